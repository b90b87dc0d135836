"""One thing in a drawn street: shapes in metres, drawn with soft edges in the photo and hard ones in the label."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from trainer.data.scenery.canvas import Canvas, texture
from trainer.data.scenery.street import Thing

Point = tuple[float, float, float]
"""Metres right of the thing's foot, above the ground, and behind its nearest point."""

NOTHING = 254


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
        cover = np.stack([quarter != NOTHING for quarter in quarters]).mean(0, dtype=np.float32)
        seen = (self.canvas.depth[window] > self.foot[1]) & (cover > 0)
        photo = np.asarray(self._photo.reduce(2))[seen] / np.float32(255)
        if leafy:
            across, down = self.canvas.across[window][seen] * self.foot[1], self.canvas.down[window][seen] * self.foot[1]
            photo *= (1 + 0.3 * texture(across * 17, down * 17) + 0.2 * texture(across * 41 + 9, down * 41))[:, None]
        self.canvas.photo[window][seen] = self.canvas.photo[window][seen] * (1 - cover[seen])[:, None] + photo
        label = quarters[0]
        for quarter in quarters[1:]:
            label = np.where(label == NOTHING, quarter, label)
        solid = seen & (cover >= 0.5)
        self.canvas.label[window][solid] = label[solid]
        self.canvas.depth[window][solid] = self.foot[1]

    def _flat(self, point: Point) -> tuple[float, float]:
        x, y = self.canvas.camera.project(self.foot[0] + point[0], point[1], self.foot[1] + point[2])
        return 2 * (x - self.left), 2 * (y - self.top)


def angles(count: int) -> list[float]:
    return [2 * math.pi * number / count for number in range(count)]


def upright(left: float, right: float, low: float, high: float) -> list[Point]:
    return [(left, low, 0.0), (right, low, 0.0), (right, high, 0.0), (left, high, 0.0)]


def trapezoid(low_half: float, low: float, low_z: float, high_half: float, high: float, high_z: float) -> list[Point]:
    return [(-low_half, low, low_z), (low_half, low, low_z), (high_half, high, high_z), (-high_half, high, high_z)]


def limb(start: tuple[float, float], end: tuple[float, float], first: float, last: float) -> list[Point]:
    """A bar from start to end that is `first` thick on either side at its start and `last` at its end."""
    return [
        (start[0] - first, start[1], 0.0),
        (start[0] + first, start[1], 0.0),
        (end[0] + last, end[1], 0.0),
        (end[0] - last, end[1], 0.0),
    ]


def _bytes(color: Sequence[float]) -> tuple[int, int, int]:
    red, green, blue = color
    return min(255, int(255 * red)), min(255, int(255 * green)), min(255, int(255 * blue))
