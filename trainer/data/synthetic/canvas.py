"""The image under construction: camera, depth buffer, textured surfaces in space, and noise.

Pixels are computed with + - * / alone, which every processor rounds alike.
"""

import itertools
import math
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from trainer.data.synthetic.scene import Scene

Label = IntEnum("Label", "SKY BUILDING POLE ROAD SIDEWALK TREE SIGN FENCE CAR PEDESTRIAN BICYCLIST", start=0)
"""The classes, by index."""
FAR = 1e6  # the depth of the sky
Point = tuple[float, float, float]
"""Metres to the right of the camera, above the ground, and ahead."""
Surface = tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]
"""N pixels (rows and columns), the points that they show, Float[3,N], and how many metres each covers, facing it."""


class Canvas:
    """Photo Float[H,W,3], label uint8[H,W] and depth Float[H,W], seen by a camera that looks along the road.

    The ray of each pixel at depth 1 is (across, -down, 1).
    """

    def __init__(self, scene: Scene, height: int, width: int) -> None:
        self.scene, self.focal = scene, scene.zoom * height
        self.middle = (width / 2, scene.horizon * height)
        self.photo = np.zeros((height, width, 3), np.float32)
        self.label = np.full((height, width), Label.SKY, np.uint8)
        self.depth = np.full((height, width), FAR, np.float32)
        sides = zip((width, height), self.middle, strict=True)
        rays = ((np.arange(side, dtype=np.float32) + 0.5 - middle) / self.focal for side, middle in sides)
        self.across, self.down = np.meshgrid(*rays)

    def project(self, point: Sequence[float]) -> tuple[float, float]:
        """Column and row of a point."""
        x, y, z = point
        return self.middle[0] + self.focal * x / z, self.middle[1] + self.focal * (self.scene.eye - y) / z

    def window(self, points: Sequence[Sequence[float]]) -> tuple[slice, slice] | None:
        """Rows and columns of the part of the image that the points span; None if they are outside."""
        columns, rows = (
            slice(max(0, math.floor(min(places)) - 1), min(size, math.ceil(max(places)) + 1))
            for places, size in zip(zip(*map(self.project, points), strict=True), self.label.shape[::-1], strict=True)
        )
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None

    def surface(self, x: Sequence[float], y: Sequence[float], z: Sequence[float]) -> Surface | None:
        """The visible pixels of a rectangle, one of whose ranges is a single value; None if there are none."""
        window = self.window(list(itertools.product(x, y, z)))
        if window is None:
            return None
        across, down = self.across[window], self.down[window]
        if x[0] == x[1]:
            depth = x[0] / np.where(np.abs(across) < 1e-6, 1e-6, across)
        else:
            depth = (self.scene.eye - y[0]) / np.maximum(down, 1e-6) if y[0] == y[1] else np.full_like(across, z[0])
        points, mask = np.stack([across * depth, self.scene.eye - down * depth, depth]), depth < self.depth[window]
        for values, (low, high) in zip(points, (x, y, z), strict=True):
            mask &= (values >= low - 1e-3) & (values <= high + 1e-3)
        rows, columns = np.nonzero(mask)
        place = rows + window[0].start, columns + window[1].start
        return (place, points[:, mask], depth[mask] / self.focal) if len(rows) else None


def wave(value: np.ndarray, period: float) -> np.ndarray:
    """The signed distance to the middle of the period that holds the value."""
    return value - (np.floor(value / period) + 0.5) * period


def line(distance: np.ndarray, half: float | np.ndarray, fine: np.ndarray) -> np.ndarray:
    """The share of a pixel of `fine` metres that lies within `half` metres of a line."""
    return np.clip((half - np.abs(distance)) / fine + 0.5, 0, 1) * np.minimum(1, 2 * half / fine)


def _noise(octaves: tuple[tuple[int, float], ...], side: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _tile(octaves, side)[a.astype(np.int32) % side, b.astype(np.int32) % side]


rough = partial(_noise, ((8, 0.25), (32, 0.35), (128, 0.5), (256, 0.55)), 256)
"""Noise in [-1,1] at two coordinates (arrays) with a grain of 1 unit and a period of 256."""
smooth = partial(_noise, ((8, 0.6), (16, 0.4), (32, 0.25), (64, 0.18)), 512)
"""The same with spots at least 8 units wide and a period of 512."""


@lru_cache(maxsize=2)
def _tile(octaves: tuple[tuple[int, float], ...], side: int) -> np.ndarray:
    """A square tile of noise without seams: the weighted sum of random grids, enlarged bicubically."""
    rng, total = np.random.default_rng(11), np.zeros((side, side), np.float32)
    for cells, weight in octaves:
        tiled = np.tile(rng.random((cells, cells), dtype=np.float32) * 2 - 1, (3, 3))
        large = Image.fromarray(tiled).resize((3 * side, 3 * side), Image.Resampling.BICUBIC)
        total += weight * np.asarray(large)[side : 2 * side, side : 2 * side]
    return np.clip(total / 0.9, -1, 1)
