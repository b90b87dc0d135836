"""What stands in a drawn street: trees, cars, people, cyclists, lamps, signs and bins, built of shapes in metres."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from trainer.batch import IGNORE
from trainer.data.paint import BICYCLIST, CAR, PEDESTRIAN, POLE, SIGN, TREE, Canvas, texture
from trainer.data.street import Color, Street, Thing

Point = tuple[float, float, float]
"""Metres right of the thing's foot, above the ground, and behind its nearest point."""

NOTHING = 254
SKIN: tuple[Color, ...] = ((0.86, 0.67, 0.55), (0.72, 0.52, 0.40), (0.45, 0.31, 0.23), (0.92, 0.76, 0.66))


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
        ring = [(x + reach + 1.6 * radius * math.cos(angle), 0.0, z + radius * math.sin(angle)) for angle in _angles(18)]
        factor = 1 - (0.42 if leafy else 0.5) * max(sun, 0.4)
        outlines.append(((factor, factor, factor + 0.02), ring))
    return outlines


class Brush:
    """A small picture at twice the resolution around one thing, whose photo and label get the same shapes."""

    def __init__(self, canvas: Canvas, thing: Thing, *, box: tuple[float, float, float]) -> None:
        self.canvas = canvas
        self.foot = (canvas.street.centre(thing.distance) + thing.lateral, thing.distance)
        half, tall, long = box
        corners = [
            canvas.camera.project(self.foot[0] + x, y, self.foot[1] + z) for x in (-half, half) for y in (-0.1, tall) for z in (0, long)
        ]
        height, width = canvas.size
        self.left = max(0, math.floor(min(x for x, _ in corners)) - 1)
        self.top = max(0, math.floor(min(y for _, y in corners)) - 1)
        right = min(width, math.ceil(max(x for x, _ in corners)) + 1)
        bottom = min(height, math.ceil(max(y for _, y in corners)) + 1)
        self.shape = (bottom - self.top, right - self.left)
        self.pixel = self.foot[1] / canvas.camera.focal
        """Metres a pixel."""
        self.visible = self.shape[0] > 0 and self.shape[1] > 0
        if self.visible:
            self._photo = Image.new("RGB", (2 * self.shape[1], 2 * self.shape[0]))
            self._label = Image.new("L", self._photo.size, NOTHING)
            self._pens = ImageDraw.Draw(self._photo), ImageDraw.Draw(self._label)

    def polygon(self, points: Iterable[Point], color: Sequence[float], *, label: int) -> None:
        """A filled polygon in space."""
        flat = [self._flat(point) for point in points]
        self._pens[0].polygon(flat, fill=_bytes(color))
        self._pens[1].polygon(flat, fill=label)

    def disc(self, middle: Point, radii: tuple[float, float], color: Sequence[float], *, label: int) -> None:
        """An ellipse that faces the camera."""
        x, y = self._flat(middle)
        scale = 2 * self.canvas.camera.focal / (self.foot[1] + middle[2])
        half = max(0.5, radii[0] * scale), max(0.5, radii[1] * scale)
        box = (x - half[0], y - half[1], x + half[0], y + half[1])
        self._pens[0].ellipse(box, fill=_bytes(color))
        self._pens[1].ellipse(box, fill=label)

    def stroke(self, points: Iterable[Point], thickness: float, color: Sequence[float], *, label: int) -> None:
        """A line in space, never thinner than a pixel."""
        flat = [self._flat(point) for point in points]
        width = max(2, round(2 * thickness / self.pixel))
        self._pens[0].line(flat, fill=_bytes(color), width=width, joint="curve")
        self._pens[1].line(flat, fill=label, width=width, joint="curve")

    def put(self, *, leafy: bool) -> None:
        """Blend what was drawn into the canvas: soft edges in the photo, hard ones in the label."""
        height, width = self.shape
        window = slice(self.top, self.top + height), slice(self.left, self.left + width)
        fine = np.asarray(self._label)
        quarters = [fine[row::2, column::2] for row in (0, 1) for column in (0, 1)]
        cover = sum((quarter != NOTHING).astype(np.float32) for quarter in quarters) / 4
        seen = self.canvas.depth[window] > self.foot[1]
        colors = np.asarray(self._photo, np.float32) * (fine != NOTHING)[..., None]
        photo = (colors[0::2, 0::2] + colors[0::2, 1::2] + colors[1::2, 0::2] + colors[1::2, 1::2]) / (4 * 255)
        if leafy:
            across, down = self.canvas.across[window] * self.foot[1], self.canvas.down[window] * self.foot[1]
            leaves = 0.6 * texture(across * 17, down * 17) + 0.4 * texture(across * 41 + 9, down * 41)
            photo *= (1 + 0.5 * leaves)[..., None]
        share = (cover * seen)[..., None]
        self.canvas.photo[window] = self.canvas.photo[window] * (1 - share) + photo * seen[..., None]
        label = quarters[0]
        for quarter in quarters[1:]:
            label = np.where(label == NOTHING, quarter, label)
        solid = seen & (cover >= 0.5)
        self.canvas.label[window][solid] = label[solid]
        self.canvas.depth[window][solid] = self.foot[1]

    def _flat(self, point: Point) -> tuple[float, float]:
        x, y = self.canvas.camera.project(self.foot[0] + point[0], point[1], self.foot[1] + point[2])
        return 2 * (x - self.left), 2 * (y - self.top)


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
    _leaves(brush, thing, rng, middle=middle, radii=(tall * float(rng.uniform(0.24, 0.36)), crown), count=80 if thing.distance < 40 else 40)


def _bush(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    _leaves(brush, thing, rng, middle=(0.0, thing.size * 0.42), radii=(thing.size * 0.5, thing.size * 0.42), count=40)


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
        brush.disc((x, y, 0), (0.07 * radii[0], 0.05 * radii[0]), (0, 0, 0), label=NOTHING)


def _car(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    size, half, long = thing.size, 0.86 * thing.size, 4.2 * thing.size
    tall = float(rng.uniform(1.38, 1.62)) * size
    behind = thing.facing == 1
    light = brush.canvas.street.light
    glass = [0.10 + 0.30 * part for part in light.sky[1]]
    near = 0.88 if behind else 0.74
    side = -1.0 if brush.foot[0] > 0 else 1.0
    # z of: lower edge of the near pane, its upper edge, end of the roof, foot of the far pane
    panes = (0.15, 0.6, 2.5, 3.2) if behind else (1.1, 1.8, 3.6, 4.0)

    def dimmed(factor: float) -> list[float]:
        return [part * factor for part in thing.color]

    shade = 0.68 if side * light.sun_side > 0 else 0.9
    flank = [(0.0, 0.26), (0.0, near), (panes[0], 0.9), (panes[3], 0.9), (long, 0.9 if not behind else 0.74), (long, 0.26)]
    brush.polygon([(side * half, y * size, z) for z, y in flank], dimmed(shade), label=CAR)
    cabin = [(panes[0], 0.9 * size, 0.97), (panes[1], tall - 0.05, 0.80), (panes[2], tall - 0.05, 0.80), (panes[3], 0.9 * size, 0.97)]
    brush.polygon([(side * half * inset, y, z) for z, y, inset in cabin], dimmed(shade), label=CAR)
    inner = [(panes[0] + 0.25, 0.94 * size, 0.96), (panes[1] + 0.15, tall - 0.12, 0.82)]
    inner += [(panes[2] - 0.1, tall - 0.12, 0.82), (panes[3] - 0.3, 0.94 * size, 0.96)]
    brush.polygon([(side * half * inset, y, z) for z, y, inset in inner], [part * 0.8 for part in glass], label=CAR)
    for z in (0.75, long - 0.8):
        brush.polygon(
            [(side * half, 0.31 + 0.31 * math.sin(a), z + 0.31 * math.cos(a)) for a in _angles(14)], (0.06, 0.06, 0.07), label=CAR
        )
        brush.polygon(
            [(side * half, 0.31 + 0.16 * math.sin(a), z + 0.16 * math.cos(a)) for a in _angles(10)], (0.45, 0.45, 0.47), label=CAR
        )
    roof = [(-half * 0.8, tall, panes[1]), (half * 0.8, tall, panes[1]), (half * 0.78, tall, panes[2]), (-half * 0.78, tall, panes[2])]
    brush.polygon(roof, dimmed(1.1), label=CAR)
    if not behind:
        hood = [
            (-half, 0.74 * size, 0),
            (half, 0.74 * size, 0),
            (half * 0.95, 0.92 * size, panes[0]),
            (-half * 0.95, 0.92 * size, panes[0]),
        ]
        brush.polygon(hood, dimmed(1.08), label=CAR)
    brush.polygon(_trapezoid(half * 0.97, 0.86 * size, panes[0], half * 0.80, tall, panes[1]), dimmed(0.96), label=CAR)
    brush.polygon(_trapezoid(half * 0.86, 0.94 * size, panes[0], half * 0.70, tall - 0.1, panes[1]), glass, label=CAR)
    for x in (-half + 0.02, half - 0.26):
        brush.polygon(_upright(x, x + 0.24, 0.0, 0.32), (0.05, 0.05, 0.05), label=CAR)
    brush.polygon(_upright(-half, half, 0.26, near * size), dimmed(0.92), label=CAR)
    brush.polygon(_upright(-half, half, 0.24, 0.44), dimmed(0.55), label=CAR)
    bright = light.lamps > 0.2 or light.wet > 0
    lamp = ((0.95, 0.12, 0.08) if bright else (0.60, 0.08, 0.07)) if behind else ((1, 1, 0.9) if bright else (0.80, 0.82, 0.84))
    for x in (-half + 0.03, half - 0.36):
        brush.polygon(_upright(x, x + 0.33, near - 0.26, near - 0.08), lamp, label=CAR)
    if behind:
        brush.polygon(_upright(-0.27, 0.27, 0.50, 0.62), (0.86, 0.76, 0.25), label=CAR)
    else:
        brush.polygon(_upright(-0.45, 0.45, 0.48, 0.64), (0.08, 0.08, 0.09), label=CAR)
        brush.polygon(_upright(-0.27, 0.27, 0.34, 0.45), (0.88, 0.88, 0.88), label=CAR)


def _van(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    half, tall, long = 0.98 * thing.size, float(rng.uniform(2.1, 2.9)) * thing.size, 5.2 * thing.size
    behind, light = thing.facing == 1, brush.canvas.street.light
    side = -1.0 if brush.foot[0] > 0 else 1.0
    shade = 0.66 if side * light.sun_side > 0 else 0.88
    flank = [part * shade for part in thing.color]
    glass = [0.10 + 0.25 * part for part in light.sky[1]]
    brush.polygon([(side * half, y, z) for z, y in ((0, 0.3), (0, tall), (long, tall), (long, 0.3))], flank, label=CAR)
    first, last = (0.4, long - 0.3) if rng.random() < 0.4 else (long - 1.5, long - 0.4) if behind else (0.4, 1.5)
    brush.polygon([(side * half, y, z) for z, y in ((first, 1.25), (first, 1.85), (last, 1.85), (last, 1.25))], glass, label=CAR)
    for z in (0.9, long - 0.9):
        brush.polygon(
            [(side * half, 0.36 + 0.36 * math.sin(a), z + 0.36 * math.cos(a)) for a in _angles(14)], (0.06, 0.06, 0.07), label=CAR
        )
    for x in (-half + 0.02, half - 0.3):
        brush.polygon(_upright(x, x + 0.28, 0.0, 0.4), (0.05, 0.05, 0.05), label=CAR)
    brush.polygon(_upright(-half, half, 0.3, tall), [part * 0.94 for part in thing.color], label=CAR)
    brush.polygon(_upright(-half * 0.86, half * 0.86, 1.2, min(1.95, tall - 0.2)), glass, label=CAR)
    if behind:
        brush.polygon(_upright(-0.02, 0.02, 0.5, tall - 0.1), [part * 0.5 for part in thing.color], label=CAR)
    lamp = (0.66, 0.08, 0.07) if behind else (0.88, 0.88, 0.82)
    for x in (-half + 0.04, half - 0.24):
        brush.polygon(_upright(x, x + 0.2, 0.62, 0.95), lamp, label=CAR)
    brush.polygon(_upright(-half, half, 0.3, 0.5), (0.16, 0.16, 0.17), label=CAR)


def _person(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    tall = thing.size
    skin, hair = SKIN[int(rng.integers(len(SKIN)))], [part * 0.5 for part in (0.5, 0.36, 0.24)]
    legs = [(0.16, 0.18, 0.26), (0.10, 0.10, 0.11), (0.36, 0.31, 0.24), (0.24, 0.28, 0.36)][int(rng.integers(4))]
    stride = float(rng.uniform(0.02, 0.2)) * tall
    dark = [part * 0.8 for part in thing.color]
    for foot, hip in ((-stride, -0.055 * tall), (stride, 0.055 * tall)):
        brush.polygon(_limb((foot, 0.0), (hip, 0.5 * tall), 0.042 * tall, 0.075 * tall), legs, label=PEDESTRIAN)
    for hand, shoulder in ((-0.17, -0.125), (0.17, 0.125)):
        wrist = (hand * tall + float(rng.normal()) * 0.03, 0.46 * tall)
        brush.polygon(_limb(wrist, (shoulder * tall, 0.8 * tall), 0.03 * tall, 0.045 * tall), dark, label=PEDESTRIAN)
    trunk = [(-0.105, 0.44, 0), (0.105, 0.44, 0), (0.145, 0.80, 0), (0.06, 0.855, 0), (-0.06, 0.855, 0), (-0.145, 0.80, 0)]
    brush.polygon([(x * tall, y * tall, z) for x, y, z in trunk], thing.color, label=PEDESTRIAN)
    brush.disc((0, 0.925 * tall, 0), (0.055 * tall, 0.07 * tall), skin if thing.facing == -1 else hair, label=PEDESTRIAN)
    brush.disc((0, 0.96 * tall, 0), (0.056 * tall, 0.045 * tall), hair, label=PEDESTRIAN)


def _cyclist(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    crossing = rng.random() < 0.3
    turn = float(rng.choice([-1.3, 1.3])) if crossing else float(rng.uniform(-0.5, 0.5))
    along, deep, tall = math.sin(turn), math.cos(turn) * thing.facing, thing.size
    skin = SKIN[int(rng.integers(len(SKIN)))]

    def at(forward: float, up: float) -> Point:
        return forward * along, up, 0.6 + forward * deep

    frame = [part * 0.8 for part in thing.color[::-1]]
    for hub in (-0.52, 0.52):
        rim = [at(hub + 0.34 * math.cos(angle), 0.34 + 0.34 * math.sin(angle)) for angle in _angles(18)]
        brush.polygon(rim, (0.34, 0.34, 0.35), label=BICYCLIST)
        brush.stroke([*rim, rim[0]], 0.06, (0.07, 0.07, 0.07), label=BICYCLIST)
    brush.stroke([at(-0.52, 0.34), at(-0.15, 0.85), at(0.42, 0.85), at(0.0, 0.32), at(-0.15, 0.85)], 0.05, frame, label=BICYCLIST)
    brush.stroke([at(0.42, 0.95), at(0.52, 0.34)], 0.05, frame, label=BICYCLIST)
    wide = abs(math.cos(turn))
    for sideways, knee in ((-0.11, 0.55), (0.11, 0.75)):
        hip, foot = at(-0.15, 0.95), at(0.03, knee - 0.28)
        bent = at(0.2, knee)
        limb = [(x + sideways * wide, y, z) for x, y, z in (hip, bent, foot)]
        brush.stroke(limb, 0.14, (0.14, 0.15, 0.2), label=BICYCLIST)
    shoulder, seat = at(0.15, tall * 0.85), at(-0.15, 0.9)
    body = [(seat[0] - 0.15 * wide - 0.06, seat[1], 0.5), (seat[0] + 0.15 * wide + 0.06, seat[1], 0.5)]
    body += [(shoulder[0] + 0.2 * wide + 0.08, shoulder[1], 0.5), (shoulder[0] - 0.2 * wide - 0.08, shoulder[1], 0.5)]
    brush.polygon(body, thing.color, label=BICYCLIST)
    for sideways in (-0.2, 0.2):
        bar = at(0.45, 1.0)
        arm = [(shoulder[0] + sideways * wide, shoulder[1] - 0.05, shoulder[2]), (bar[0] + 1.2 * sideways * wide, bar[1], bar[2])]
        brush.stroke(arm, 0.09, [part * 0.85 for part in thing.color], label=BICYCLIST)
    head = at(0.22, tall * 0.95)
    brush.disc(head, (0.10, 0.13), skin if thing.facing == -1 or crossing else (0.22, 0.16, 0.12), label=BICYCLIST)
    if rng.random() < 0.5:
        brush.disc((head[0], head[1] + 0.06, head[2]), (0.12, 0.09), thing.color[::-1], label=BICYCLIST)


def _lamp(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    tall, inwards = thing.size, -math.copysign(1.0, thing.lateral)
    thick = max(0.085, 0.7 * brush.pixel)
    brush.polygon(_limb((0, 0), (0, tall), thick * 1.25, thick * 0.8), thing.color, label=POLE)
    brush.polygon(_limb((thick * 0.4, 0), (thick * 0.3, tall), thick * 0.5, thick * 0.3), [part * 0.7 for part in thing.color], label=POLE)
    reach = inwards * float(rng.uniform(0.7, 1.7))
    brush.stroke([(0, tall, 0), (reach * 0.6, tall + 0.18, 0), (reach, tall + 0.2, 0)], 0.08, thing.color, label=POLE)
    lit = brush.canvas.street.light.lamps > 0.2
    brush.disc((reach, tall + 0.16, 0), (0.28, 0.10), (1, 0.92, 0.7) if lit else (0.7, 0.7, 0.68), label=POLE)


def _sign(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    tall, half = thing.size, float(rng.uniform(0.32, 0.46))
    thick = max(0.045, 0.6 * brush.pixel)
    brush.polygon(_limb((0, 0), (0, tall), thick, thick), (0.48, 0.49, 0.50), label=POLE)
    y = tall - half
    kind = int(rng.integers(4))
    if thing.facing == -1:
        brush.disc((0, y, 0), (half, half), (0.45, 0.46, 0.47), label=SIGN)
    elif kind == 0:
        brush.disc((0, y, 0), (half, half), (0.78, 0.08, 0.08), label=SIGN)
        brush.disc((0, y, 0), (half * 0.74, half * 0.74), (0.93, 0.93, 0.91), label=SIGN)
        brush.polygon(_upright(-half * 0.4, half * 0.4, y - half * 0.3, y + half * 0.3), (0.1, 0.1, 0.1), label=SIGN)
    elif kind == 1:
        for scale, color in ((1.15, (0.78, 0.08, 0.08)), (0.72, (0.93, 0.93, 0.9))):
            ring = [(half * scale * math.sin(a), y - 0.1 * half + half * scale * math.cos(a), 0.0) for a in _angles(3)]
            brush.polygon(ring, color, label=SIGN)
    elif kind == 2:
        brush.disc((0, y, 0), (half, half), (0.10, 0.26, 0.66), label=SIGN)
        brush.polygon(
            [(-half * 0.5, y, 0), (0, y + half * 0.6, 0), (half * 0.5, y, 0), (0, y - half * 0.5, 0)], (0.94, 0.94, 0.94), label=SIGN
        )
    else:
        board = ((0.10, 0.30, 0.62), (0.10, 0.42, 0.24), (0.90, 0.90, 0.88), (0.82, 0.68, 0.12))[int(rng.integers(4))]
        wide = half * float(rng.uniform(0.9, 1.8))
        brush.polygon(_upright(-wide, wide, y - half, y + half), board, label=SIGN)
        for row in (-0.4, 0.1, 0.5):
            ink = 0.95 if sum(board) < 1.5 else 0.1
            brush.polygon(_upright(-wide * 0.7, wide * 0.6, y + (row - 0.1) * half, y + (row + 0.1) * half), (ink, ink, ink), label=SIGN)


def _signal(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    thick = max(0.06, 0.6 * brush.pixel)
    brush.polygon(_limb((0, 0), (0, 3.4), thick, thick), (0.24, 0.25, 0.25), label=POLE)
    brush.polygon(_upright(-0.24, 0.24, 2.2, 3.3), (0.07, 0.07, 0.07), label=SIGN)
    on = int(rng.integers(3))
    for number, color in enumerate(((0.98, 0.12, 0.08), (0.98, 0.66, 0.10), (0.12, 0.90, 0.42))):
        shown = color if number == on else tuple(part * 0.25 for part in color)
        brush.disc((0, 3.08 - 0.33 * number, 0), (0.13, 0.13), shown, label=SIGN)


def _bin(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    half, tall = float(rng.uniform(0.25, 0.42)), thing.size
    brush.polygon([(-half * 0.85, 0, 0), (half * 0.85, 0, 0), (half, tall * 0.85, 0), (-half, tall * 0.85, 0)], thing.color, label=IGNORE)
    brush.polygon(_upright(-half * 1.1, half * 1.1, tall * 0.85, tall), [part * 0.7 for part in thing.color], label=IGNORE)


_SHAPES: dict[str, Callable[[Brush, Thing, np.random.Generator], None]] = {
    "tree": _tree,
    "bush": _bush,
    "car": _car,
    "van": _van,
    "person": _person,
    "cyclist": _cyclist,
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


def _angles(count: int) -> list[float]:
    return [2 * math.pi * number / count for number in range(count)]


def _upright(left: float, right: float, low: float, high: float) -> list[Point]:
    return [(left, low, 0.0), (right, low, 0.0), (right, high, 0.0), (left, high, 0.0)]


def _trapezoid(low_half: float, low: float, low_z: float, high_half: float, high: float, high_z: float) -> list[Point]:
    return [(-low_half, low, low_z), (low_half, low, low_z), (high_half, high, high_z), (-high_half, high, high_z)]


def _limb(start: tuple[float, float], end: tuple[float, float], first: float, last: float) -> list[Point]:
    """A bar from start to end that is `first` thick on either side at its start and `last` at its end."""
    return [
        (start[0] - first, start[1], 0.0),
        (start[0] + first, start[1], 0.0),
        (end[0] + last, end[1], 0.0),
        (end[0] - last, end[1], 0.0),
    ]


def _bytes(color: Sequence[float]) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, round(255 * float(part)))) for part in color)
    return red, green, blue
