"""The random content of one synthetic street, in metres: light, buildings, fences and objects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

Color = tuple[float, float, float]  # red, green, blue in [0,1]
PAINTS: tuple[Color, ...] = (
    *((0.75, 0.76, 0.78), (0.16, 0.17, 0.19), (0.90, 0.90, 0.90), (0.62, 0.10, 0.10), (0.14, 0.22, 0.46)),
    *((0.36, 0.38, 0.41), (0.12, 0.32, 0.24), (0.80, 0.62, 0.16), (0.30, 0.46, 0.60), (0.45, 0.32, 0.22)),
)


@dataclass(frozen=True)
class Light:
    """Time of day and weather."""

    zenith: Color
    horizon: Color
    tint: Color
    exposure: float
    sun: float  # contrast of the shadows, which fall to the left (`sun_side` -1) or to the right (1)
    haze: float  # share of the horizon's colour at a distance of 60 m
    lit: float  # share of the windows that are lit; street lamps and headlights are on above 0.2
    sun_side: int = 1
    clouds: float = 0.5


OVERCAST = Light((0.76, 0.78, 0.82), (0.82, 0.82, 0.82), (0.97, 0.99, 1.02), 0.8, sun=0.08, haze=0.3, lit=0.05)
CLEAR = Light((0.34, 0.55, 0.84), (0.78, 0.86, 0.93), (1.06, 1.0, 0.93), 1.0, sun=0.8, haze=0.12, lit=0.0)
DUSK = Light((0.31, 0.35, 0.54), (0.86, 0.60, 0.48), (1.05, 0.95, 0.92), 0.84, sun=0.25, haze=0.2, lit=0.4)


@dataclass(frozen=True)
class Object:
    """Anything on the ground, `lateral` metres from the centre line (left: negative) from distance `near` on."""

    kind: str
    lateral: float
    near: float
    height: float
    length: float  # metres along the road, for buildings and fences
    facing: int  # 1: seen from behind, -1: seen from the front
    seed: int


@dataclass(frozen=True)
class Scene:
    """One street. The details of its parts follow from their seeds when they are rendered."""

    eye: float  # height of the camera
    horizon: float  # row of the horizon as a share of the image height
    zoom: float
    offset: float  # distance of the centre line of the road from the camera, to the right
    half_road: float
    sidewalk: float
    light: Light
    objects: tuple[Object, ...]  # the farthest first
    seed: int


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a street from the random generator."""
    u, traffic = rng.uniform, int(rng.choice([-1, -1, 1]))  # the side on which one drives
    half_road, sidewalk, leafy = u(3.6, 5.6), u(1.8, 3.4), rng.random()
    objects: list[Object] = []

    def add(kind: str, lateral: float, near: float, height: float, *, length: float = 0.0, facing: int = 1) -> None:
        objects.append(Object(kind, lateral, near, height, length, facing, int(rng.integers(1 << 20))))

    for side in (-1, 1):
        kerb, near, setback = half_road + sidewalk, u(-12, -6), u(0.0, 1.5) if rng.random() < 0.6 else u(2.5, 7.0)
        while near < 130:  # buildings, and trees in the gaps
            length, park = u(6, 20), rng.random() < 0.10 + 0.35 * leafy
            for _ in range(1 + int(length / 5) if park else 0):
                add("tree", side * (kerb + u(1.5, 7)), near + length * rng.random(), u(5, 11))
            if not park:
                add("building", side * (kerb + setback + u(0, 0.6)), near, u(6, 17), length=length)
            if park or setback > 2.4:
                add("fence", side * (kerb + 0.2), near, u(0.9, 1.7), length=length)
            near += length + u(1, 4) * (rng.random() < 0.3)
        rows = (("lamp", 0.8, u(14, 26), u(5, 8)), ("tree", 0.25 + 0.5 * leafy, u(8, 16), u(4.5, 8.5)))
        for kind, chance, spacing, height in rows:
            for near in np.arange(u(4, 16), 100 * (rng.random() < chance), spacing):
                add(kind, side * (half_road + 0.45), near, height)
        for _ in range(rng.integers(1, 5)):
            add("sign", side * (half_road + 0.45), u(5, 32), u(2.3, 3.2))
        lanes = ((half_road - 1.0, 0.7 * (rng.random() < 0.6), 5.6), (half_road * 0.45, 0.4, 11.0))
        for lateral, density, spacing in lanes:
            for near in np.arange(u(4.5, 18), 80, spacing):
                if rng.random() < density:
                    height = u(1.38, 1.62) if rng.random() < 0.87 else u(2.1, 2.9)
                    add("vehicle", side * lateral, near + u(0, 1), height, facing=side * traffic)
    for _ in range(rng.integers(1, 9)):
        away = half_road + sidewalk * u(0.25, 0.85) if rng.random() < 0.9 else half_road * u(0, 0.5)
        add("person", rng.choice([-1, 1]) * away, u(5, 34), u(1.5, 1.88), facing=rng.choice([-1, 1]))
    for _ in range(rng.choice([0, 1, 1, 2, 3, 4])):
        facing, near = int(rng.choice([-1, 1, 1])), u(5.5, 19)
        lateral = facing * traffic * (half_road - u(0.5, 2.4))
        cars = (each for each in objects if each.kind == "vehicle" and abs(each.lateral - lateral) <= 1.3)
        if not any(-1.5 < near - each.near < 5.6 for each in cars):
            add("cyclist", lateral, near, u(1.55, 1.8), facing=facing)
    return Scene(
        eye=u(1.25, 1.9),
        horizon=u(0.40, 0.54),
        zoom=u(0.85, 1.15),
        offset=-traffic * half_road * u(0.30, 0.55),
        half_road=half_road,
        sidewalk=sidewalk,
        light=_sample_light(rng),
        objects=tuple(sorted(objects, key=lambda each: -each.near)),
        seed=int(rng.integers(1 << 20)),
    )


def _sample_light(rng: np.random.Generator) -> Light:
    """One of the three kinds of weather, varied."""
    u, light = rng.uniform, (OVERCAST, CLEAR, DUSK)[rng.choice(3, p=(0.42, 0.36, 0.22))]
    red, green, blue = np.array(light.zenith) + u(-0.09, 0.09, 3)
    varied = replace(light, zenith=(red, green, blue), exposure=light.exposure * u(0.87, 1.15), clouds=u(0.2, 0.9))
    return replace(varied, haze=light.haze * u(0.5, 1.7), sun_side=int(rng.choice([-1, 1])))


def sample_color(rng: np.random.Generator, colors: Sequence[Color]) -> np.ndarray:
    """One of the colours, slightly varied: Float[3]."""
    return np.clip(rng.choice(np.array(colors)) + rng.uniform(-0.05, 0.05) + rng.uniform(-0.03, 0.03, 3), 0.02, 1)
