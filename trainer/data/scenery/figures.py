"""What stands in a drawn street, far things first: trees, people, lamps, signs and bins are drawn here."""

import math
from collections.abc import Callable

import numpy as np

from trainer.batch import IGNORE
from trainer.data.scenery.brush import NOTHING, Brush, Point, angles, limb, upright
from trainer.data.scenery.canvas import PEDESTRIAN, POLE, SIGN, TREE, Canvas
from trainer.data.scenery.street import Color, Street, Thing
from trainer.data.scenery.vehicles import SKIN, car, cyclist, van


def draw(canvas: Canvas, thing: Thing) -> None:
    """Paint one thing onto the canvas, behind whatever is nearer."""
    if not 1.5 < thing.distance < 120:
        return
    half, tall, long = _BOX[thing.kind]
    brush = Brush(canvas, thing, box=(half * thing.size, tall * thing.size, long * thing.size))
    if brush.visible:
        _SHAPES[thing.kind](brush, thing, np.random.default_rng(thing.seed))
        brush.put(leafy=thing.kind in ("tree", "bush"))


def shadows(street: Street) -> list[tuple[Color, list[Point]]]:
    """The outlines on the ground that things darken, each with its factor; the sun moves and lengthens them."""
    outlines: list[tuple[Color, list[Point]]] = []
    sun = street.light.sun
    for thing in street.things:
        x, z = street.centre(thing.distance) + thing.lateral, thing.distance
        if not 3 < z < 70 or thing.kind in ("lamp", "sign", "signal"):
            continue
        if thing.kind in ("car", "van"):
            wide, long = 0.95 * thing.size, 4.3 * thing.size
            lean = 0.9 * sun * street.light.sun_side
            corners = [(x - wide + min(0, lean), 0.0, z - 0.1), (x + wide + max(0, lean), 0.0, z - 0.1)]
            corners += [(x + wide + max(0, lean), 0.0, z + long), (x - wide + min(0, lean), 0.0, z + long)]
            outlines.append(((0.42, 0.42, 0.45), corners))
            continue
        leafy = thing.kind in ("tree", "bush")
        if leafy and sun < 0.3:
            continue
        radius = thing.size * (0.30 if leafy else 0.2)
        reach = thing.size * (0.5 if leafy else 0.25) * max(sun, 0.1) * street.light.sun_side
        ring = [(x + reach + 1.6 * radius * math.cos(angle), 0.0, z + radius * math.sin(angle)) for angle in angles(18)]
        factor = 1 - (0.42 if leafy else 0.5) * max(sun, 0.4)
        outlines.append(((factor, factor, factor + 0.02), ring))
    return outlines


def _tree(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    tall = thing.size
    lean = float(rng.normal()) * 0.04 * tall
    bark = (0.26, 0.21, 0.16)
    thick = 0.035 * tall
    crown = tall * float(rng.uniform(0.26, 0.42))
    brush.polygon(
        [(-thick, 0, 0), (thick, 0, 0), (lean + thick * 0.6, tall * 0.6, 0), (lean - thick * 0.6, tall * 0.6, 0)], bark, label=TREE
    )
    for _ in range(5):
        end = (lean + float(rng.uniform(-0.25, 0.25)) * tall, tall * float(rng.uniform(0.55, 0.85)), 0.0)
        brush.stroke([(lean * 0.5, tall * float(rng.uniform(0.25, 0.45)), 0.0), end], thick * 0.5, bark, label=TREE)
    middle = (lean, tall - crown)
    _leaves(brush, thing, rng, middle=middle, radii=(tall * float(rng.uniform(0.24, 0.36)), crown), count=70 if thing.distance < 30 else 30)


def _bush(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    _leaves(brush, thing, rng, middle=(0.0, thing.size * 0.42), radii=(thing.size * 0.5, thing.size * 0.42), count=30)


def _leaves(
    brush: Brush, thing: Thing, rng: np.random.Generator, *, middle: tuple[float, float], radii: tuple[float, float], count: int
) -> None:
    """Tufts from the dark inside to the bright outside, with a few holes."""
    light = brush.canvas.street.light
    for number, (angle, far, grow, tone) in enumerate(rng.random((count, 4))):
        share = number / count
        out = math.sqrt(far) * (0.75 + 0.2 * share)
        x, y = out * math.cos(2 * math.pi * angle), out * math.sin(2 * math.pi * angle)
        size = (0.34 - 0.20 * share) * (0.7 + 0.6 * grow) * min(radii)
        bright = 0.55 + 0.35 * share + 0.28 * y * (0.4 + light.sun) - 0.18 * x * light.sun_side * light.sun + 0.2 * (tone - 0.5)
        color = [max(0.02, part * bright) for part in thing.color]
        brush.disc((middle[0] + x * radii[0], middle[1] + y * radii[1], 0), (size * 1.15, size), color, label=TREE)
    for angle, far in rng.random((6, 2)):
        out = 0.5 + 0.5 * far
        x, y = middle[0] + out * math.cos(2 * math.pi * angle) * radii[0], middle[1] + out * math.sin(2 * math.pi * angle) * radii[1]
        brush.disc((x, y, 0), (0.045 * radii[0], 0.03 * radii[0]), (0, 0, 0), label=NOTHING)


def _person(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    tall = thing.size
    skin, hair = SKIN[int(rng.integers(len(SKIN)))], [part * 0.5 for part in (0.5, 0.36, 0.24)]
    legs = [(0.16, 0.18, 0.26), (0.10, 0.10, 0.11), (0.36, 0.31, 0.24), (0.24, 0.28, 0.36)][int(rng.integers(4))]
    stride = float(rng.uniform(0.02, 0.2)) * tall
    dark = [part * 0.8 for part in thing.color]
    for foot, hip in ((-stride, -0.055 * tall), (stride, 0.055 * tall)):
        brush.polygon(limb((foot, 0.0), (hip, 0.5 * tall), 0.042 * tall, 0.075 * tall), legs, label=PEDESTRIAN)
    for hand, shoulder in ((-0.17, -0.125), (0.17, 0.125)):
        wrist = (hand * tall + float(rng.normal()) * 0.03, 0.46 * tall)
        brush.polygon(limb(wrist, (shoulder * tall, 0.8 * tall), 0.03 * tall, 0.045 * tall), dark, label=PEDESTRIAN)
    trunk = [(-0.105, 0.44, 0), (0.105, 0.44, 0), (0.145, 0.80, 0), (0.06, 0.855, 0), (-0.06, 0.855, 0), (-0.145, 0.80, 0)]
    brush.polygon([(x * tall, y * tall, z) for x, y, z in trunk], thing.color, label=PEDESTRIAN)
    brush.disc((0, 0.925 * tall, 0), (0.055 * tall, 0.07 * tall), skin if thing.facing == -1 else hair, label=PEDESTRIAN)
    brush.disc((0, 0.96 * tall, 0), (0.056 * tall, 0.045 * tall), hair, label=PEDESTRIAN)


def _lamp(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    tall, inwards = thing.size, -math.copysign(1.0, thing.lateral)
    thick = max(0.085, 0.7 * brush.pixel)
    brush.polygon(limb((0, 0), (0, tall), thick * 1.25, thick * 0.8), thing.color, label=POLE)
    brush.polygon(limb((thick * 0.4, 0), (thick * 0.3, tall), thick * 0.5, thick * 0.3), [part * 0.7 for part in thing.color], label=POLE)
    reach = inwards * float(rng.uniform(0.7, 1.7))
    brush.stroke([(0, tall, 0), (reach * 0.6, tall + 0.18, 0), (reach, tall + 0.2, 0)], 0.08, thing.color, label=POLE)
    lit = brush.canvas.street.light.lamps > 0.2
    brush.disc((reach, tall + 0.16, 0), (0.28, 0.10), (1, 0.92, 0.7) if lit else (0.7, 0.7, 0.68), label=POLE)


def _sign(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    tall, half = thing.size, float(rng.uniform(0.32, 0.46))
    thick = max(0.045, 0.6 * brush.pixel)
    brush.polygon(limb((0, 0), (0, tall), thick, thick), (0.48, 0.49, 0.50), label=POLE)
    y = tall - half
    kind = int(rng.integers(4))
    if thing.facing == -1:
        brush.disc((0, y, 0), (half, half), (0.45, 0.46, 0.47), label=SIGN)
    elif kind == 0:
        brush.disc((0, y, 0), (half, half), (0.78, 0.08, 0.08), label=SIGN)
        brush.disc((0, y, 0), (half * 0.74, half * 0.74), (0.93, 0.93, 0.91), label=SIGN)
        brush.polygon(upright(-half * 0.4, half * 0.4, y - half * 0.3, y + half * 0.3), (0.1, 0.1, 0.1), label=SIGN)
    elif kind == 1:
        for scale, color in ((1.15, (0.78, 0.08, 0.08)), (0.72, (0.93, 0.93, 0.9))):
            ring = [(half * scale * math.sin(a), y - 0.1 * half + half * scale * math.cos(a), 0.0) for a in angles(3)]
            brush.polygon(ring, color, label=SIGN)
    elif kind == 2:
        brush.disc((0, y, 0), (half, half), (0.10, 0.26, 0.66), label=SIGN)
        brush.polygon(
            [(-half * 0.5, y, 0), (0, y + half * 0.6, 0), (half * 0.5, y, 0), (0, y - half * 0.5, 0)], (0.94, 0.94, 0.94), label=SIGN
        )
    else:
        board = ((0.10, 0.30, 0.62), (0.10, 0.42, 0.24), (0.90, 0.90, 0.88), (0.82, 0.68, 0.12))[int(rng.integers(4))]
        wide = half * float(rng.uniform(0.9, 1.8))
        brush.polygon(upright(-wide, wide, y - half, y + half), board, label=SIGN)
        for row in (-0.4, 0.1, 0.5):
            ink = 0.95 if sum(board) < 1.5 else 0.1
            brush.polygon(upright(-wide * 0.7, wide * 0.6, y + (row - 0.1) * half, y + (row + 0.1) * half), (ink, ink, ink), label=SIGN)


def _signal(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    thick = max(0.06, 0.6 * brush.pixel)
    brush.polygon(limb((0, 0), (0, 3.4), thick, thick), (0.24, 0.25, 0.25), label=POLE)
    brush.polygon(upright(-0.24, 0.24, 2.2, 3.3), (0.07, 0.07, 0.07), label=SIGN)
    on = int(rng.integers(3))
    for number, color in enumerate(((0.98, 0.12, 0.08), (0.98, 0.66, 0.10), (0.12, 0.90, 0.42))):
        shown = color if number == on else tuple(part * 0.25 for part in color)
        brush.disc((0, 3.08 - 0.33 * number, 0), (0.13, 0.13), shown, label=SIGN)


def _bin(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    half, tall = float(rng.uniform(0.25, 0.42)), thing.size
    brush.polygon([(-half * 0.85, 0, 0), (half * 0.85, 0, 0), (half, tall * 0.85, 0), (-half, tall * 0.85, 0)], thing.color, label=IGNORE)
    brush.polygon(upright(-half * 1.1, half * 1.1, tall * 0.85, tall), [part * 0.7 for part in thing.color], label=IGNORE)


_SHAPES: dict[str, Callable[[Brush, Thing, np.random.Generator], None]] = {
    "tree": _tree,
    "bush": _bush,
    "car": car,
    "van": van,
    "person": _person,
    "cyclist": cyclist,
    "lamp": _lamp,
    "sign": _sign,
    "signal": _signal,
    "bin": _bin,
}


_BOX: dict[str, tuple[float, float, float]] = {
    "tree": (0.5, 1.1, 0),
    "bush": (0.7, 1.1, 0),
    "car": (0.9, 1.7, 4.3),
    "van": (1.0, 3.0, 5.3),
    "person": (0.3, 1.05, 0),
    "cyclist": (0.7, 1.15, 0.8),
    "lamp": (0.45, 1.15, 0),
    "sign": (0.45, 1.1, 0),
    "signal": (0.2, 1.1, 0),
    "bin": (0.6, 1.1, 0),
}
"""Half the width, the height and the length of what is drawn, for size 1."""
