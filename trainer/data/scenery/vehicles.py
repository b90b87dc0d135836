"""Cars, vans and cyclists of a drawn street, seen from behind or from the front."""

import math

import numpy as np

from trainer.data.scenery.brush import Brush, Point, angles, trapezoid, upright
from trainer.data.scenery.canvas import BICYCLIST, CAR
from trainer.data.scenery.street import Color, Thing

SKIN: tuple[Color, ...] = ((0.86, 0.67, 0.55), (0.72, 0.52, 0.40), (0.45, 0.31, 0.23), (0.92, 0.76, 0.66))


def car(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    """A hatchback."""
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
        brush.polygon([(side * half, 0.31 + 0.31 * math.sin(a), z + 0.31 * math.cos(a)) for a in angles(14)], (0.06, 0.06, 0.07), label=CAR)
        brush.polygon([(side * half, 0.31 + 0.16 * math.sin(a), z + 0.16 * math.cos(a)) for a in angles(10)], (0.45, 0.45, 0.47), label=CAR)
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
    brush.polygon(trapezoid(half * 0.97, 0.86 * size, panes[0], half * 0.80, tall, panes[1]), dimmed(0.96), label=CAR)
    brush.polygon(trapezoid(half * 0.86, 0.94 * size, panes[0], half * 0.70, tall - 0.1, panes[1]), glass, label=CAR)
    for x in (-half + 0.02, half - 0.26):
        brush.polygon(upright(x, x + 0.24, 0.0, 0.32), (0.05, 0.05, 0.05), label=CAR)
    brush.polygon(upright(-half, half, 0.26, near * size), dimmed(0.92), label=CAR)
    brush.polygon(upright(-half, half, 0.24, 0.44), dimmed(0.55), label=CAR)
    bright = light.lamps > 0.2 or light.wet > 0
    lamp = ((0.95, 0.12, 0.08) if bright else (0.60, 0.08, 0.07)) if behind else ((1, 1, 0.9) if bright else (0.80, 0.82, 0.84))
    for x in (-half + 0.03, half - 0.36):
        brush.polygon(upright(x, x + 0.33, near - 0.26, near - 0.08), lamp, label=CAR)
    if behind:
        brush.polygon(upright(-0.27, 0.27, 0.50, 0.62), (0.86, 0.76, 0.25), label=CAR)
    else:
        brush.polygon(upright(-0.45, 0.45, 0.48, 0.64), (0.08, 0.08, 0.09), label=CAR)
        brush.polygon(upright(-0.27, 0.27, 0.34, 0.45), (0.88, 0.88, 0.88), label=CAR)


def van(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    """A van, a lorry or a bus."""
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
        brush.polygon([(side * half, 0.36 + 0.36 * math.sin(a), z + 0.36 * math.cos(a)) for a in angles(14)], (0.06, 0.06, 0.07), label=CAR)
    for x in (-half + 0.02, half - 0.3):
        brush.polygon(upright(x, x + 0.28, 0.0, 0.4), (0.05, 0.05, 0.05), label=CAR)
    brush.polygon(upright(-half, half, 0.3, tall), [part * 0.94 for part in thing.color], label=CAR)
    brush.polygon(upright(-half * 0.86, half * 0.86, 1.2, min(1.95, tall - 0.2)), glass, label=CAR)
    if behind:
        brush.polygon(upright(-0.02, 0.02, 0.5, tall - 0.1), [part * 0.5 for part in thing.color], label=CAR)
    lamp = (0.66, 0.08, 0.07) if behind else (0.88, 0.88, 0.82)
    for x in (-half + 0.04, half - 0.24):
        brush.polygon(upright(x, x + 0.2, 0.62, 0.95), lamp, label=CAR)
    brush.polygon(upright(-half, half, 0.3, 0.5), (0.16, 0.16, 0.17), label=CAR)


def cyclist(brush: Brush, thing: Thing, rng: np.random.Generator) -> None:
    """Somebody on a bicycle, sometimes crossing."""
    crossing = rng.random() < 0.3
    turn = float(rng.choice([-1.3, 1.3])) if crossing else float(rng.uniform(-0.5, 0.5))
    along, deep, tall = math.sin(turn), math.cos(turn) * thing.facing, thing.size
    skin = SKIN[int(rng.integers(len(SKIN)))]

    def at(forward: float, up: float) -> Point:
        return forward * along, up, 0.6 + forward * deep

    frame = [part * 0.8 for part in thing.color[::-1]]
    for hub in (-0.52, 0.52):
        rim = [at(hub + 0.34 * math.cos(angle), 0.34 + 0.34 * math.sin(angle)) for angle in angles(18)]
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
