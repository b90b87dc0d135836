"""Resize pictures to the model's scale by the manifest's rule, and outputs back to the picture's size."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from serving.imaging.decode import Bytes
from serving.imaging.domain import Resize


@dataclass(frozen=True)
class Scaled:
    """A picture at the model's scale, with the sizes that are needed to resize outputs back."""

    pixels: Bytes  # [H,W,3] or [H,W], both sides multiples of multiple_of
    inner: tuple[int, int]  # height and width without the padding
    outer: tuple[int, int]  # height and width of the picture


def to_model(pixels: Bytes, *, resize: Resize, multiple_of: int, void: int) -> Scaled:
    """Resize photos with the manifest's filter, label maps with nearest; then pad."""
    outer = (pixels.shape[0], pixels.shape[1])
    inner = _size(outer, resize)
    if inner != outer:
        pixels = _resized(pixels, inner, resize.filter)
    return Scaled(padded(pixels, multiple_of=multiple_of, void=void), inner, outer)


def padded(pixels: Bytes, *, multiple_of: int, void: int) -> Bytes:
    """Pad right and bottom to multiples: photos by their edge, label maps with void."""
    bottom, right = (-pixels.shape[0]) % multiple_of, (-pixels.shape[1]) % multiple_of
    if not (bottom or right):
        return pixels
    if pixels.ndim == 3:
        return np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="edge")
    return np.pad(pixels, ((0, bottom), (0, right)), constant_values=void)


def from_model(pixels: Bytes, scaled: Scaled, *, resize: Resize) -> Bytes:
    """Crop the padding and resize to the picture's size: photos with the filter, ids and confidence with nearest."""
    pixels = pixels[: scaled.inner[0], : scaled.inner[1]]
    return pixels if scaled.inner == scaled.outer else _resized(pixels, scaled.outer, resize.filter)


def _size(outer: tuple[int, int], resize: Resize) -> tuple[int, int]:
    if resize.rule == "none" or resize.height is None or resize.width is None:
        return outer
    if resize.rule == "exact":
        return (resize.height, resize.width)
    scale = min(resize.height / outer[0], resize.width / outer[1])
    return (max(1, round(outer[0] * scale)), max(1, round(outer[1] * scale)))


def _resized(pixels: Bytes, size: tuple[int, int], filter: str) -> Bytes:
    chosen = Image.Resampling[filter.upper()] if pixels.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), chosen))
