"""Outlines and masks of shapes, and how they become pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.data.formats.shapes import Shape, Unusable


def polygon(points: Any) -> np.ndarray:
    """Return points as Float[n,2]. Raises Unusable where there are fewer than 3."""
    ring = np.asarray(points, np.float64).reshape(-1, 2)
    if len(ring) < 3:
        raise Unusable("a polygon of fewer than 3 points")
    if not np.isfinite(ring).all():
        raise Unusable("a polygon with coordinates that are not finite")
    return ring


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def rotated(points: np.ndarray, degrees: float, *, about: tuple[float, float]) -> np.ndarray:
    """Turn points clockwise on the screen."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (points - about) @ np.array([[cos, sin], [-sin, cos]]) + about


def mask_of_runs(runs: Sequence[int], shape: tuple[int, int], *, by: str) -> np.ndarray:
    """Return bool[H,W] of run lengths, zeros first, by "rows" or "columns". Raises Unusable if they do not fill it."""
    lengths = np.asarray(runs, np.int64)
    if (lengths < 0).any() or lengths.sum() != shape[0] * shape[1]:
        raise Unusable(f"a mask whose runs add up to {lengths.sum()} pixels, not {shape[0]}x{shape[1]}")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(shape, order="C" if by == "rows" else "F")


def rasterised(shape: Shape, size: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return where in a picture of this size (height, width) a shape lies, rows and columns, and its mask bool there.

    Raises Unusable where it covers no pixel of the picture.
    """
    if shape.mask is not None:
        corners = np.array([shape.corner, np.add(shape.corner, shape.mask.shape[::-1])])
    else:
        corners = np.concatenate(shape.polygons)
    low = np.clip(np.floor(corners.min(axis=0)), 0, size[::-1]).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), 0, size[::-1]).astype(int)
    place = (slice(low[1], high[1]), slice(low[0], high[0]))
    width, height = high - low
    if shape.mask is not None:
        left, top = low - shape.corner
        mask = shape.mask[top : top + height, left : left + width]
    else:
        mask = np.zeros((height, width), bool)
        for ring in shape.polygons:
            mask |= filled(ring - low, (height, width))
        for ring in shape.holes:
            mask &= ~filled(ring - low, (height, width))
    if not mask.any():
        raise Unusable("a shape that covers no pixel")
    return place, mask


def filled(ring: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return bool[H,W]: the pixels whose centre lies inside a ring Float[n,2] by the even-odd rule.

    Along each row of centres the edges that are crossed are counted from the left.
    """
    (height, width), onward = size, np.roll(ring, -1, axis=0)
    (x, y), (next_x, next_y) = ring.T - 0.5, onward.T - 0.5
    first = np.clip(np.ceil(np.minimum(y, next_y)), 0, height).astype(int)
    rows = np.clip(np.ceil(np.maximum(y, next_y)), 0, height).astype(int) - first
    edge = np.repeat(np.arange(len(ring)), rows)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
    crossing = x[edge] + (row - y[edge]) * (next_x - x)[edge] / (next_y - y)[edge]
    crossed = np.zeros((height, width + 1), np.int32)
    np.add.at(crossed, (row, np.clip(np.ceil(crossing), 0, width).astype(int)), 1)
    return np.cumsum(crossed, axis=1)[:, :width] % 2 == 1
