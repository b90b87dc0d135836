"""Vehicles, people, trees and street furniture, as flat shapes in metres."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from trainer.data.synthetic.canvas import Canvas, Label, Point, rough
from trainer.data.synthetic.scene import PAINTS, Object, sample_color

SKIN = ((0.86, 0.67, 0.55), (0.72, 0.52, 0.40), (0.45, 0.31, 0.23))
LEAVES = ((0.20, 0.31, 0.12), (0.26, 0.34, 0.14), (0.16, 0.28, 0.14), (0.44, 0.33, 0.14))
BARK, BLACK, GREY = np.array((0.26, 0.21, 0.16)), np.array((0.07, 0.07, 0.08)), np.array((0.46, 0.47, 0.48))


def draw_object(canvas: Canvas, thing: Object) -> None:
    """Render one object, behind whatever is nearer."""
    draw, label, wide, tall = KINDS[thing.kind]
    x, z = canvas.scene.offset + thing.lateral, thing.near
    box = [(x + side * wide, y, z + behind) for side in (-1, 1) for y in (-0.1, tall) for behind in (0, 5)]
    window = canvas.window(box) if 3 < z < 120 else None
    if window is not None:
        brush = Brush(canvas, thing, window, label)
        draw(brush, thing, np.random.default_rng(thing.seed))
        brush.blend()


def draw_shadow(canvas: Canvas, thing: Object) -> None:
    """Darken the ground below an object, and beside it where the sun shines."""
    light, vehicle = canvas.scene.light, thing.kind == "vehicle"
    wide, long = (1.1, 4.4) if vehicle else (0.45 * thing.height, 0.6 * thing.height)
    x = canvas.scene.offset + thing.lateral + light.sun * light.sun_side * wide * 0.7
    ground = canvas.surface((x - wide, x + wide), (0.01, 0.01), (thing.near - 0.1, thing.near + long))
    if ground is not None and thing.near > 3:
        place, (right, _, ahead), _ = ground
        squares = np.stack([((right - x) / wide) ** 2, (2 * (ahead - thing.near) / long - 1) ** 2])
        edge = np.clip((1 - (squares.max(0) if vehicle else squares.sum(0))) * 4, 0, 1)
        shade = 0.6 if vehicle else 0.5 * max(light.sun, 0.3)
        canvas.photo[place] *= (1 - shade * edge)[:, None]


class Brush:
    """Draws one object at twice the resolution, its label as alpha; points are metres right, up and behind its foot."""

    def __init__(self, canvas: Canvas, thing: Object, window: tuple[slice, slice], label: int) -> None:
        self.canvas, self.window, self.label, self.light = canvas, window, label, canvas.scene.light
        self.x, self.z = canvas.scene.offset + thing.lateral, thing.near
        rows, columns = window
        self.picture = Image.new("RGBA", (2 * (columns.stop - columns.start), 2 * (rows.stop - rows.start)))
        self.pen = ImageDraw.Draw(self.picture)

    def draw(self, points: Sequence[Point], color: np.ndarray, *, width: float = 0.0, label: int | None = None) -> None:
        """A filled polygon, or a line of that width in metres and of one pixel at least."""
        flat = [self.canvas.project((self.x + x, y, self.z + z)) for x, y, z in points]
        flat = [(2 * (x - self.window[1].start), 2 * (y - self.window[0].start)) for x, y in flat]
        fill = (*(int(part) for part in np.clip(color * 255, 0, 255)), int(label or self.label))
        if width:
            pixels = max(2, round(2 * width * self.canvas.focal / self.z))
            self.pen.line(flat, fill=fill, width=pixels, joint="curve")
        else:
            self.pen.polygon(flat, fill=fill)

    def blend(self) -> None:
        """Blend the object in, antialiased; a label pixel is set where at least half of it is covered."""
        labels = np.asarray(self.picture.getchannel("A")).reshape(self.picture.height // 2, 2, -1, 2)
        cover = (labels > 0).mean((1, 3), dtype=np.float32)
        cover[self.canvas.depth[self.window] < self.z] = 0
        photo = np.asarray(self.picture.convert("RGB").reduce(2)) / np.float32(255)
        if self.label == Label.TREE:
            a, b = (each[self.window] * self.z for each in (self.canvas.across, self.canvas.down))
            photo *= (1 + 0.3 * rough(a * 17, b * 17) + 0.2 * rough(a * 41 + 9, b * 41))[..., None]
        old, solid = self.canvas.photo[self.window], cover >= 0.5
        old += (photo - old * cover[..., None]) * (cover > 0)[..., None]
        self.canvas.label[self.window][solid] = labels.max((1, 3))[solid]
        self.canvas.depth[self.window][solid] = self.z


def _circle(count: int) -> list[tuple[float, float]]:
    """Sine and cosine of equally spaced angles."""
    return [(math.sin(2 * math.pi * k / count), math.cos(2 * math.pi * k / count)) for k in range(count)]


def _disc(x: float, y: float, wide: float, tall: float, *, behind: float = 0.0) -> list[Point]:
    return [(x + wide * s, y + tall * c, behind) for s, c in _circle(20)]


def _box(x: float, low: float, high: float, half: float) -> list[Point]:
    return [(x - half, low, 0.0), (x + half, low, 0.0), (x + half, high, 0.0), (x - half, high, 0.0)]


def _draw_vehicle(brush: Brush, thing: Object, rng: np.random.Generator) -> None:
    """A car or a van: one long side, wheels, roof and hood, and the end that faces the camera."""
    light, tall, behind, van = brush.light, thing.height, thing.facing == 1, thing.height > 2
    paint, glass = sample_color(rng, PAINTS), 0.1 + 0.3 * np.array(light.horizon)
    half, belt, long, lean = (0.98, 1.15, 5.2, 1.0) if van else (0.86, 0.88, 4.2, 0.82)
    # distances of the lower and upper edge of the near window, and of the upper and lower edge of the far one
    base, front, back, end = (0.0, 0.05, 5.1, 5.2) if van else (0.15, 0.6, 2.5, 3.2) if behind else (1.1, 1.8, 3.6, 4.0)
    side = -half if brush.x > 0 else half
    flank = paint * (0.68 if side * light.sun_side > 0 else 0.9)
    brush.draw([(side, 0.26, 0), (side, belt, 0), (side, belt, long), (side, 0.26, long)], flank)
    brush.draw([(side, belt, base), (side * lean, tall, front), (side * lean, tall, back), (side, belt, end)], flank)
    pane = [(side, 0.93, base + 0.2), (side * lean, tall - 0.14, front + 0.1)]
    pane += [(side * lean, tall - 0.14, back - 0.1), (side, 0.93, end - 0.3)]
    brush.draw(pane, flank if van else glass * 0.8)
    for z in (0.75, long - 0.8):
        for radius, color in ((0.32, BLACK), (0.17, GREY)):
            brush.draw([(side, 0.32 + radius * s, z + radius * c) for s, c in _circle(14)], color)
    height, top = (belt if behind or van else 0.75), min(tall - 0.08, 1.95)
    edges = [(half * lean, tall, back), (half * lean, tall, front), (half, belt, base), (half, height, 0.0)]
    for (x0, y0, z0), (x1, y1, z1), shade in zip(edges, edges[1:], (1.1, 0.96, 1.08), strict=False):
        brush.draw([(-x0, y0, z0), (x0, y0, z0), (x1, y1, z1), (-x1, y1, z1)], paint * shade)
    low, high = half - 0.08, half * lean - 0.08
    brush.draw([(-low, belt + 0.08, base), (low, belt + 0.08, base), (high, top, front), (-high, top, front)], glass)
    brush.draw(_box(0, 0, 0.4, half - 0.08), BLACK * 0.7)
    brush.draw(_box(0, 0.26, height, half), paint * 0.92)
    brush.draw(_box(0, 0.24, 0.44, half), paint * 0.55)
    brush.draw(_box(0, 0.46, 0.58, 0.27), np.array((0.86, 0.76, 0.25) if behind else (0.88, 0.88, 0.88)))
    lamp = np.array((0.60, 0.08, 0.07) if behind else (0.80, 0.82, 0.84)) * (1.5 if light.lit > 0.2 else 1)
    for x in (0.2 - half, half - 0.2):
        brush.draw(_box(x, height - 0.26, height - 0.08, 0.16), lamp)


def _draw_person(brush: Brush, thing: Object, rng: np.random.Generator) -> None:
    m, stride, coat, legs = thing.height, rng.uniform(0.02, 0.18), sample_color(rng, PAINTS), sample_color(rng, PAINTS)
    for side in (-m, m):
        brush.draw([(side * stride, 0, 0), (side * 0.05, 0.5 * m, 0)], legs * 0.5, width=0.11 * m)
        brush.draw([(side * 0.17, 0.46 * m, 0), (side * 0.12, 0.8 * m, 0)], coat * 0.8, width=0.075 * m)
    outline = ((-0.1, 0.44), (0.1, 0.44), (0.145, 0.8), (0.06, 0.86), (-0.06, 0.86), (-0.145, 0.8))
    brush.draw([(x * m, y * m, 0) for x, y in outline], coat)
    brush.draw(_disc(0, 0.93 * m, 0.056 * m, 0.075 * m), BARK)
    if thing.facing == -1:
        brush.draw(_disc(0, 0.915 * m, 0.05 * m, 0.06 * m), sample_color(rng, SKIN))


def _draw_cyclist(brush: Brush, thing: Object, rng: np.random.Generator) -> None:
    """A bicycle turned by a random angle, and its rider."""
    tall, coat = thing.height, sample_color(rng, PAINTS)
    turn = rng.choice([-1.3, 1.3]) if rng.random() < 0.3 else rng.uniform(-0.5, 0.5)
    sideways, along = math.sin(turn), math.cos(turn) * thing.facing

    def at(forward: float, up: float, right: float = 0.0) -> Point:
        return forward * sideways + right * abs(along), up, 0.6 + forward * along

    for hub in (-0.52, 0.52):
        rim = [at(hub + 0.34 * c, 0.34 + 0.34 * s) for s, c in _circle(18)]
        brush.draw(rim, GREY * 0.7)
        brush.draw([*rim, rim[0]], BLACK, width=0.06)
    frame = [at(-0.52, 0.34), at(-0.15, 0.85), at(0.42, 0.85), at(0, 0.32), at(-0.15, 0.85), at(0.42, 0.85)]
    brush.draw([*frame, at(0.52, 0.34)], coat[::-1], width=0.05)
    for right, knee in ((-0.11, 0.55), (0.11, 0.75)):
        leg = [at(-0.15, 0.95, right), at(0.2, knee, right), at(0.03, knee - 0.28, right)]
        brush.draw(leg, BLACK * 2, width=0.14)
        brush.draw([at(0.15, 0.8 * tall, 1.8 * right), at(0.45, 1, 2.2 * right)], coat * 0.85, width=0.09)
    brush.draw([at(-0.15, 0.95), at(0.13, 0.8 * tall)], coat, width=0.26 + 0.12 * abs(along))
    head = BARK if thing.facing == 1 else sample_color(rng, SKIN)
    brush.draw(_disc(0.22 * sideways, 0.95 * tall, 0.1, 0.13, behind=0.6), head)


def _draw_tree(brush: Brush, thing: Object, rng: np.random.Generator) -> None:
    """A trunk with branches, and a crown of tufts from the dark inside to the lit outside."""
    m, light, leaves = thing.height, brush.light, sample_color(rng, LEAVES)
    wide, tall = rng.uniform(0.24, 0.36) * m, rng.uniform(0.26, 0.42) * m
    brush.draw([(0, 0, 0), (0, m * 0.6, 0)], BARK, width=0.055 * m)
    for lean, height in rng.uniform((-0.2, 0.55), (0.2, 0.8), (5, 2)):
        brush.draw([(0, m * 0.35, 0), (lean * m, height * m, 0)], BARK, width=0.035 * m)
    tufts = rng.random((60 if thing.near < 30 else 30, 4))
    for share, (angle, far, grow, tone) in zip(np.linspace(0, 1, len(tufts)), tufts, strict=True):
        out = math.sqrt(far) * (0.75 + 0.2 * share)
        x, y = out * math.cos(2 * math.pi * angle), out * math.sin(2 * math.pi * angle)
        bright = 0.45 + 0.35 * share + 0.28 * y * (0.4 + light.sun) - 0.18 * x * light.sun_side * light.sun + 0.2 * tone
        radius = (0.34 - 0.2 * share) * (0.7 + 0.6 * grow) * min(wide, tall)
        brush.draw(_disc(x * wide, m - tall + y * tall, 1.15 * radius, radius), leaves * bright)


def _draw_lamp(brush: Brush, thing: Object, rng: np.random.Generator) -> None:
    m, reach = thing.height, rng.uniform(0.7, 1.7) * (1 if thing.lateral < 0 else -1)
    brush.draw([(0, 0, 0), (0, m, 0), (0.6 * reach, m + 0.18, 0), (reach, m + 0.2, 0)], GREY * 0.8, width=0.15)
    brush.draw(_disc(reach, m + 0.16, 0.28, 0.1), np.array((1, 0.92, 0.7)) * (1 if brush.light.lit > 0.2 else 0.75))


def _draw_sign(brush: Brush, thing: Object, rng: np.random.Generator) -> None:
    """A round, triangular or rectangular sign."""
    half, wide, color = rng.uniform(0.32, 0.46), rng.uniform(0.9, 1.8), sample_color(rng, PAINTS)
    y, ink, shape = thing.height - half, np.full(3, 0.93 if color.sum() < 1.6 else 0.1), rng.integers(3)
    brush.draw([(0, 0, 0), (0, y, 0)], GREY, width=0.1)
    for m, part in ((half, color), (0.72 * half, ink), (0.4 * half, color)):
        triangle = [(1.15 * m * s, y + 1.15 * m * c, 0.0) for s, c in _circle(3)]
        outline = (_disc(0, y, m, m), triangle, _box(0, y - m, y + m, wide * m))[shape]
        brush.draw(outline, part, label=Label.SIGN)


KINDS: dict[str, tuple[Callable[[Brush, Object, np.random.Generator], None], int, float, float]] = {
    "tree": (_draw_tree, Label.TREE, 5.0, 12.5),
    "vehicle": (_draw_vehicle, Label.CAR, 1.2, 3.1),
    "person": (_draw_person, Label.PEDESTRIAN, 0.6, 2.1),
    "cyclist": (_draw_cyclist, Label.BICYCLIST, 1.2, 2.1),
    "lamp": (_draw_lamp, Label.POLE, 2.1, 8.5),
    "sign": (_draw_sign, Label.POLE, 0.9, 3.5),
}
"""How each kind is drawn, its class, and half its width and its height at most, in metres."""
