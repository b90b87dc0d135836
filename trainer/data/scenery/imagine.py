"""From random numbers to a street: the hour, the houses, and who is out, before a single pixel is drawn."""

import numpy as np

from trainer.data.scenery.street import Color, Facade, Fence, Kind, Light, Street, Thing

WALLS: tuple[Color, ...] = (
    (0.62, 0.38, 0.28),
    (0.50, 0.30, 0.24),
    (0.70, 0.58, 0.42),
    (0.80, 0.76, 0.68),
    (0.72, 0.70, 0.66),
    (0.86, 0.84, 0.80),
    (0.55, 0.56, 0.58),
    (0.66, 0.72, 0.76),
    (0.80, 0.66, 0.56),
    (0.45, 0.42, 0.38),
    (0.60, 0.66, 0.56),
    (0.76, 0.70, 0.50),
)
PAINTS: tuple[Color, ...] = (
    (0.75, 0.76, 0.78),
    (0.16, 0.17, 0.19),
    (0.90, 0.90, 0.90),
    (0.62, 0.10, 0.10),
    (0.14, 0.22, 0.46),
    (0.36, 0.38, 0.41),
    (0.12, 0.32, 0.24),
    (0.56, 0.60, 0.66),
    (0.80, 0.62, 0.16),
    (0.30, 0.46, 0.60),
    (0.45, 0.32, 0.22),
)


def imagine(numbers: np.random.Generator) -> Street:
    """A street, from nothing but random numbers."""
    light = _light(numbers)
    half_road = _between(numbers, 3.6, 5.6)
    pavement = _between(numbers, 1.8, 3.4)
    traffic = -1 if numbers.random() < 0.6 else 1  # which side one drives on
    offset = -traffic * half_road * _between(numbers, 0.30, 0.55)
    bend = float(numbers.normal()) * 0.0016
    leafy = numbers.random()
    facades: list[Facade] = []
    fences: list[Fence] = []
    things: list[Thing] = []
    for side in (-1, 1):
        _line_up(numbers, side, half_road + pavement, leafy=leafy, facades=facades, fences=fences, things=things)
    _furnish(numbers, half_road, pavement, leafy=leafy, things=things)
    _populate(numbers, half_road, pavement, traffic=traffic, things=things)
    grey = _between(numbers, 0.27, 0.47)
    slab = _between(numbers, 0.45, 0.66)
    warm = _between(numbers, -0.03, 0.03)
    return Street(
        eye=_between(numbers, 1.25, 1.9),
        horizon=_between(numbers, 0.40, 0.54),
        vanishing=float(numbers.normal()) * 0.07,
        zoom=_between(numbers, 0.85, 1.15),
        roll=float(numbers.normal()) * 0.012,
        bend=bend,
        offset=offset,
        half_road=half_road,
        pavement=pavement,
        asphalt=(grey + warm, grey, grey - warm + 0.015),
        slabs=(slab + 0.03 + warm, slab, slab - 0.04),
        ground=(0.30, 0.38, 0.17) if leafy > 0.35 else (slab * 0.8, slab * 0.77, slab * 0.7),
        dashes=_between(numbers, 4.0, 9.0),
        edge_lines=("none", "white", "yellow")[int(numbers.integers(3))],  # type: ignore[arg-type]
        crossing=_between(numbers, 9, 24) if numbers.random() < 0.25 else None,
        bonnet=_pick(numbers, PAINTS) if numbers.random() < 0.22 else None,
        light=light,
        facades=tuple(sorted(facades, key=lambda facade: facade.near)),
        fences=tuple(fences),
        things=tuple(sorted(things, key=lambda thing: -thing.distance)),
        skyline=(_foliage(numbers), _pick(numbers, WALLS)),
        seed=int(numbers.integers(1 << 31)),
    )


def _light(numbers: np.random.Generator) -> Light:
    hour, side = numbers.random(), 1.0 if numbers.random() < 0.5 else -1.0
    wet = _between(numbers, 0.25, 0.6) if hour < 0.5 and numbers.random() < 0.35 else 0.0
    if hour < 0.42:  # overcast
        high = _between(numbers, 0.70, 0.90)
        return Light(
            sun=0.08,
            sun_side=side,
            sky=((high * 0.93, high * 0.95, high), (high, high, high)),
            clouds=0.5,
            tint=(0.97, 0.99, 1.02),
            exposure=_between(numbers, 0.72, 0.98),
            haze=_between(numbers, 0.10, 0.55),
            wet=wet,
            lamps=0.05,
        )
    if hour < 0.78:  # clear
        top = (_between(numbers, 0.25, 0.45), _between(numbers, 0.48, 0.62), _between(numbers, 0.76, 0.92))
        return Light(
            sun=_between(numbers, 0.6, 1),
            sun_side=side,
            sky=(top, (0.78, 0.86, 0.93)),
            clouds=_between(numbers, 0, 0.9),
            tint=(1.06, 1.0, 0.93),
            exposure=_between(numbers, 0.9, 1.12),
            haze=0.12,
            wet=wet,
            lamps=0.0,
        )
    low = (_between(numbers, 0.75, 0.95), _between(numbers, 0.50, 0.68), _between(numbers, 0.38, 0.60))  # dusk
    return Light(
        sun=0.25,
        sun_side=side,
        sky=((_between(numbers, 0.22, 0.40), _between(numbers, 0.28, 0.42), _between(numbers, 0.45, 0.62)), low),
        clouds=_between(numbers, 0.2, 0.9),
        tint=(1.05, 0.95, 0.92),
        exposure=_between(numbers, 0.62, 0.85),
        haze=_between(numbers, 0.1, 0.35),
        wet=wet,
        lamps=0.4,
    )


def _line_up(
    numbers: np.random.Generator,
    side: int,
    kerb: float,
    *,
    leafy: float,
    facades: list[Facade],
    fences: list[Fence],
    things: list[Thing],
) -> None:
    """Buildings along one side from behind the camera to 130 m, with gaps that hold trees behind a fence."""
    place = -6.0 - 6 * numbers.random()
    closed = numbers.random()
    setback = _between(numbers, 0.0, 1.5) if closed < 0.6 else _between(numbers, 2.5, 7.0)
    while place < 130:
        length = _between(numbers, 6, 20)
        if numbers.random() < 0.10 + 0.35 * leafy:
            for _ in range(1 + int(length / 5)):
                away = kerb + _between(numbers, 1.5, 7)
                things.append(
                    _thing(numbers, "tree", side * away, place + length * numbers.random(), _between(numbers, 5, 11), _foliage(numbers))
                )
            fences.append(_fence(numbers, side * (kerb + 0.2), place, place + length))
        else:
            facades.append(_facade(numbers, side * (kerb + setback + _between(numbers, 0, 0.6)), place, place + length))
            if setback > 2.4:
                fences.append(_fence(numbers, side * (kerb + 0.1), place, place + length))
                if numbers.random() < 0.6:
                    spot = place + length * numbers.random()
                    things.append(_thing(numbers, "bush", side * (kerb + 1.2), spot, _between(numbers, 1.2, 3), _foliage(numbers)))
        place += length + (0 if numbers.random() < 0.7 else _between(numbers, 1, 4))


def _facade(numbers: np.random.Generator, lateral: float, near: float, far: float) -> Facade:
    floor = _between(numbers, 2.7, 3.6)
    wall = _pick(numbers, WALLS)
    trim = (0.9, 0.9, 0.87) if numbers.random() < 0.6 else (0.25, 0.24, 0.24)
    return Facade(
        lateral=lateral,
        near=near,
        far=far,
        height=floor * int(numbers.choice([2, 2, 3, 3, 4, 5])) + 0.6,
        wall=wall,
        trim=trim,
        roof=_near(numbers, ((0.36, 0.24, 0.20), (0.28, 0.29, 0.32), (0.42, 0.33, 0.28))[int(numbers.integers(3))], 0.05),
        roof_height=_between(numbers, 1.5, 3.2) if numbers.random() < 0.6 else 0.0,
        floor=floor,
        bay=_between(numbers, 1.7, 3.6),
        window=(_between(numbers, 0.36, 0.7), _between(numbers, 0.42, 0.62)),
        brick=float(numbers.random() < 0.5) * _between(numbers, 0.5, 1),
        shop=_pick(numbers, PAINTS) if numbers.random() < 0.32 else None,
        seed=int(numbers.integers(1 << 31)),
    )


def _fence(numbers: np.random.Generator, lateral: float, near: float, far: float) -> Fence:
    railing = numbers.random() < 0.55
    color = _pick(
        numbers, ((0.12, 0.13, 0.13), (0.16, 0.26, 0.20), (0.60, 0.61, 0.62)) if railing else ((0.42, 0.31, 0.22), (0.56, 0.48, 0.38))
    )
    pitch = _between(numbers, 0.14, 0.3)
    return Fence(lateral, near, far, _between(numbers, 0.9, 1.7), color, pitch, _between(numbers, 0.45, 0.65) if railing else 0.06)


def _furnish(numbers: np.random.Generator, half_road: float, pavement: float, *, leafy: float, things: list[Thing]) -> None:
    """Lamps, signs, signals, bins and street trees along the kerbs."""
    for side in (-1, 1):
        kerb = side * (half_road + 0.45)
        if numbers.random() < 0.8:
            spacing, first, tall = _between(numbers, 14, 26), _between(numbers, 4, 16), _between(numbers, 5, 8)
            grey = _between(numbers, 0.22, 0.62)
            for number in range(5):
                things.append(_thing(numbers, "lamp", kerb, first + number * spacing, tall, (grey, grey, grey * 0.97)))
        if numbers.random() < 0.25 + 0.5 * leafy:
            spacing, first, hue = _between(numbers, 8, 16), _between(numbers, 7, 16), _foliage(numbers)
            for number in range(6):
                spot = first + number * spacing + _between(numbers, -1, 1)
                things.append(_thing(numbers, "tree", kerb + side * 0.3, spot, _between(numbers, 4.5, 8.5), hue))
        for _ in range(int(numbers.integers(1, 4))):
            things.append(_thing(numbers, "sign", kerb, _between(numbers, 5, 32), _between(numbers, 2.3, 3.2), (0.5, 0.5, 0.5)))
        if numbers.random() < 0.3:
            things.append(_thing(numbers, "signal", kerb, _between(numbers, 7, 26), 3.2, (0.2, 0.2, 0.2)))
        if numbers.random() < 0.35:
            things.append(
                _thing(numbers, "bin", side * (half_road + pavement - 0.5), _between(numbers, 4, 20), 1.1, _pick(numbers, PAINTS))
            )


def _populate(numbers: np.random.Generator, half_road: float, pavement: float, *, traffic: int, things: list[Thing]) -> None:
    """Parked and moving cars, people on the pavements and crossing, cyclists near the kerb."""
    for side in (-1, 1):
        if numbers.random() < 0.6:
            place, end = _between(numbers, 4.5, 18), _between(numbers, 25, 80)
            while place < end:
                if numbers.random() < 0.7:
                    kind: Kind = "van" if numbers.random() < 0.12 else "car"
                    facing = 1 if side == traffic else -1
                    things.append(
                        _thing(numbers, kind, side * (half_road - 1.0), place, _between(numbers, 0.94, 1.1), _paint(numbers), facing)
                    )
                place += _between(numbers, 5.4, 7.5)
    for side, chance in ((traffic, 0.6), (-traffic, 0.75)):
        place = _between(numbers, 7, 22)
        while numbers.random() < chance and place < 90:
            kind = "van" if numbers.random() < 0.15 else "car"
            size = _between(numbers, 0.94, 1.1)
            things.append(_thing(numbers, kind, side * half_road * 0.45, place, size, _paint(numbers), 1 if side == traffic else -1))
            place += _between(numbers, 8, 25)
    for _ in range(int(numbers.integers(1, 9))):
        side = -1 if numbers.random() < 0.5 else 1
        away = side * (half_road + pavement * _between(numbers, 0.25, 0.85))
        if numbers.random() < 0.1:
            away *= 0.5 * numbers.random()
        size = _between(numbers, 1.5, 1.88)
        things.append(_thing(numbers, "person", away, _between(numbers, 5, 34), size, _paint(numbers), 1 if numbers.random() < 0.5 else -1))
    for _ in range(int(numbers.choice([0, 1, 1, 2, 2, 3]))):
        side = traffic if numbers.random() < 0.7 else -traffic
        facing = 1 if side == traffic else -1
        for _ in range(4):
            lateral, distance = side * (half_road - _between(numbers, 0.5, 2.4)), _between(numbers, 5.5, 19)
            if _is_free(things, lateral, distance):
                things.append(_thing(numbers, "cyclist", lateral, distance, _between(numbers, 1.55, 1.8), _paint(numbers), facing))
                break


def _is_free(things: list[Thing], lateral: float, distance: float) -> bool:
    """Whether no car stands where a cyclist is to ride."""
    cars = (thing for thing in things if thing.kind in ("car", "van"))
    return not any(abs(car.lateral - lateral) < 1.3 and -1.5 < distance - car.distance < 5.6 for car in cars)


def _thing(numbers: np.random.Generator, kind: Kind, lateral: float, distance: float, size: float, color: Color, facing: int = 1) -> Thing:
    return Thing(kind, lateral, distance, size, color, facing, int(numbers.integers(1 << 31)))


def _between(numbers: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(numbers.random())


def _near(numbers: np.random.Generator, color: Color, spread: float) -> Color:
    shift = numbers.random(4)
    common = (float(shift[3]) - 0.5) * 2 * spread
    red, green, blue = (
        min(1.0, max(0.02, part + common + (float(move) - 0.5) * spread)) for part, move in zip(color, shift[:3], strict=True)
    )
    return red, green, blue


def _pick(numbers: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    return _near(numbers, colors[int(numbers.integers(len(colors)))], 0.06)


def _paint(numbers: np.random.Generator) -> Color:
    return _pick(numbers, PAINTS)


def _foliage(numbers: np.random.Generator) -> Color:
    autumn = numbers.random() < 0.15
    return _near(numbers, (0.44, 0.33, 0.14) if autumn else (0.20, 0.31, 0.12), 0.07)
