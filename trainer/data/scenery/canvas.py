"""The canvas of a drawn street: camera, depth of every pixel, outlines in space, and noise.

Pixels are made with + - * / alone, whose results every processor rounds alike.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from trainer.data.scenery.street import Street

SKY, BUILDING, POLE, ROAD, SIDEWALK, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
FAR = 1e6
"""The depth where there is only sky."""


class Camera:
    """A pinhole at the height of the eye, looking along the road; rays are (across, down) at depth 1."""

    def __init__(self, street: Street, height: int, width: int) -> None:
        self.focal = street.zoom * height
        self.middle = (width / 2 + street.vanishing * height, street.horizon * height)
        self.turn = (math.cos(street.roll), math.sin(street.roll))
        self.eye = street.eye

    def rays(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Float[H,W] across and down, for the pixel centres."""
        right = ((np.arange(width, dtype=np.float32) + 0.5 - self.middle[0]) / self.focal)[None, :]
        down = ((np.arange(height, dtype=np.float32) + 0.5 - self.middle[1]) / self.focal)[:, None]
        cosine, sine = np.float32(self.turn[0]), np.float32(self.turn[1])
        return cosine * right + sine * down, cosine * down - sine * right

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """The point x metres right, y above the ground and z ahead, in pixels."""
        across, down = x / z, (self.eye - y) / z
        cosine, sine = self.turn
        return (
            self.middle[0] + self.focal * (cosine * across - sine * down),
            self.middle[1] + self.focal * (sine * across + cosine * down),
        )


@dataclass
class Canvas:
    """The picture being painted: photo Float[H,W,3], label uint8[H,W] and depth Float[H,W] of each pixel."""

    street: Street
    camera: Camera
    photo: np.ndarray
    label: np.ndarray
    depth: np.ndarray
    across: np.ndarray
    down: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        height, width = self.label.shape
        return height, width


def blank(street: Street, height: int, width: int) -> Canvas:
    """A canvas with nothing on it."""
    camera = Camera(street, height, width)
    across, down = camera.rays(height, width)
    photo = np.zeros((height, width, 3), np.float32)
    return Canvas(street, camera, photo, np.full((height, width), SKY, np.uint8), np.full((height, width), FAR, np.float32), across, down)


def mask_of(canvas: Canvas, points: list[tuple[float, float, float]]) -> tuple[np.ndarray | None, tuple[slice, slice]]:
    """Which pixels of a window of the canvas a flat shape in space covers; None if it is out of sight."""
    height, width = canvas.size
    flat = [canvas.camera.project(*point) for point in points]
    left, right = max(0, math.floor(min(x for x, _ in flat))), min(width, math.ceil(max(x for x, _ in flat)) + 1)
    top, bottom = max(0, math.floor(min(y for _, y in flat))), min(height, math.ceil(max(y for _, y in flat)) + 1)
    window = slice(top, bottom), slice(left, right)
    if left >= right or top >= bottom:
        return None, window
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).polygon([(x - left, y - top) for x, y in flat], fill=1)
    mask = np.array(image, dtype=bool)
    return (mask if mask.any() else None), window


def texture(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rough noise in [-1,1] at the points (a, b) of an endless tile; 256 units are one period, 1 unit is one grain."""
    return _noise("rough")[((a.astype(np.int32) & 255) << 8) | (b.astype(np.int32) & 255)]


def smooth(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Soft noise in [-1,1]; 512 units are one period, the smallest spots are 8 units wide."""
    return _noise("smooth")[((a.astype(np.int32) & 511) << 9) | (b.astype(np.int32) & 511)]


def wave(value: np.ndarray, period: float) -> np.ndarray:
    """The distance to the middle of the period that holds the value, signed."""
    return value - (np.floor(value / period) + 0.5) * period


def line(distance: np.ndarray, half: float | np.ndarray, fine: np.ndarray) -> np.ndarray:
    """How much of a pixel `fine` metres wide lies within `half` metres of a line."""
    return np.clip((half - np.abs(distance)) / fine + 0.5, 0, 1) * np.minimum(1, 2 * half / fine)


def sharp(fine: np.ndarray, limit: float) -> np.ndarray:
    """1 where a pixel is finer than the limit, falling to 0 at twice: fine detail fades before it flickers."""
    return np.clip(2 - fine / limit, 0, 1)


@lru_cache(maxsize=2)
def _noise(kind: str) -> np.ndarray:
    """A tile that joins itself at its edges, flat."""
    rng = np.random.default_rng(11)
    side, octaves = (
        (256, ((8, 0.25), (32, 0.35), (128, 0.5), (256, 0.55))) if kind == "rough" else (512, ((8, 0.6), (16, 0.4), (32, 0.25), (64, 0.18)))
    )
    total = np.zeros((side, side), np.float32)
    for cells, weight in octaves:
        grid = np.tile(rng.random((cells, cells), dtype=np.float32) * 2 - 1, (3, 3))
        wide = Image.fromarray(grid).resize((3 * side, 3 * side), Image.Resampling.BICUBIC)
        total += weight * np.asarray(wide)[side : 2 * side, side : 2 * side]
    return np.clip(total / 0.9, -1, 1).reshape(-1)
