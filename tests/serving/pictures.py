"""Pictures for the tests: drawn arrays and their bytes in any format."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image


def ramp(height: int = 45, width: int = 61) -> np.ndarray:
    """A photo whose brightness rises from left to right: every class of the tiny models occurs."""
    grey = np.linspace(0, 255, width).astype(np.uint8)
    return np.repeat(np.tile(grey, (height, 1))[..., None], 3, axis=2)


def noise(height: int = 45, width: int = 61) -> np.ndarray:
    """A photo of coloured noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stripes(height: int = 30, width: int = 42) -> np.ndarray:
    """Ids 0, 1, 2 and 3 of the tiny models in vertical stripes."""
    return np.tile((np.arange(width) * 4 // width).astype(np.uint8), (height, 1))


def file_of(pixels: np.ndarray | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture file."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def zip_of(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The bytes of a ZIP of these files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return packed.getvalue()


def pixels_of(file: bytes) -> np.ndarray:
    """The decoded pixels of a picture file, palette indices where it has a palette."""
    return np.asarray(Image.open(io.BytesIO(file)))
