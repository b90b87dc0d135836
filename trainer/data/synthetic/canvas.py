"""The image under construction: camera, depth buffer, textured surfaces in space, and noise.

Pixels are computed with + - * / alone, which every processor rounds alike.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from PIL import Image

from trainer.data.synthetic.scene import Scene

FAR = 1e6
"""The depth of the sky."""
Point = tuple[float, float, float]
"""Metres to the right of the camera, above the ground, and ahead."""


class Label(IntEnum):
    """The classes, by index."""

    SKY, BUILDING, POLE, ROAD, SIDEWALK, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)


@dataclass
class Surface:
    """The visible part of a rectangle: Bool `mask` over a window; its N pixels show the points (x, y, z), Float[N].

    A pixel covers `fine` metres where the surface faces the camera.
    """

    window: tuple[slice, slice]
    mask: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    fine: np.ndarray


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
        columns, rows = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
        self.across, self.down = np.meshgrid(
            (columns - self.middle[0]) / self.focal, (rows - self.middle[1]) / self.focal
        )

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
        right, up, mask = across * depth, self.scene.eye - down * depth, depth < self.depth[window]
        for values, (low, high) in zip((right, up, depth), (x, y, z), strict=True):
            mask &= (values >= low - 1e-3) & (values <= high + 1e-3)
        surface = Surface(window, mask, right[mask], up[mask], depth[mask], fine=depth[mask] / self.focal)
        return surface if mask.any() else None

    def paint(self, surface: Surface, color: np.ndarray, label: int | np.ndarray) -> None:
        """Put the colours Float[N,3] and the label on a surface."""
        self.photo[surface.window][surface.mask] = color
        self.label[surface.window][surface.mask] = label
        self.depth[surface.window][surface.mask] = surface.z


def rough(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Noise in [-1,1] with a grain of 1 unit and a period of 256."""
    tile = _noise(256, ((8, 0.25), (32, 0.35), (128, 0.5), (256, 0.55)))
    return tile[a.astype(np.int32) & 255, b.astype(np.int32) & 255]


def smooth(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Noise in [-1,1] with spots at least 8 units wide and a period of 512."""
    tile = _noise(512, ((8, 0.6), (16, 0.4), (32, 0.25), (64, 0.18)))
    return tile[a.astype(np.int32) & 511, b.astype(np.int32) & 511]


def wave(value: np.ndarray, period: float) -> np.ndarray:
    """The signed distance to the middle of the period that holds the value."""
    return value - (np.floor(value / period) + 0.5) * period


def line(distance: np.ndarray, half: float | np.ndarray, fine: np.ndarray) -> np.ndarray:
    """The share of a pixel of `fine` metres that lies within `half` metres of a line."""
    return np.clip((half - np.abs(distance)) / fine + 0.5, 0, 1) * np.minimum(1, 2 * half / fine)


@lru_cache(maxsize=2)
def _noise(side: int, octaves: tuple[tuple[int, float], ...]) -> np.ndarray:
    """A square tile of noise without seams: the weighted sum of random grids, enlarged bicubically."""
    rng, total = np.random.default_rng(11), np.zeros((side, side), np.float32)
    for cells, weight in octaves:
        tiled = np.tile(rng.random((cells, cells), dtype=np.float32) * 2 - 1, (3, 3))
        large = Image.fromarray(tiled).resize((3 * side, 3 * side), Image.Resampling.BICUBIC)
        total += weight * np.asarray(large)[side : 2 * side, side : 2 * side]
    return np.clip(total / 0.9, -1, 1)
