"""Upload to array and array to answer: what a stranger's file may be, and how pictures leave the server."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.errors import Refusal

Bytes = NDArray[np.uint8]
PhotoFormat = Literal["jpeg", "webp", "png"]
MEDIA_TYPES: dict[PhotoFormat, str] = {"jpeg": "image/jpeg", "webp": "image/webp", "png": "image/png"}

_READABLE = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_READABLE_WORDS = "Send a PNG, JPEG, WebP, BMP, TIFF or GIF."
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # from 89 megapixels on; our own limits say what is too large


@dataclass(frozen=True)
class Limits:
    """How large an upload may be, in bytes of the file and in pixels once decoded."""

    max_bytes: int
    max_pixels: int
    spend: Callable[[int], None] | None = None  # told each picture's pixels before they are decoded, may refuse them
    max_whole: int | None = None  # pixels that run in one piece at their own size, where that is less

    def check_whole(self, height: int, width: int) -> None:
        """Refusal of a picture that is to be run in one piece and is too large for it."""
        if self.max_whole is not None and height * width > self.max_whole:
            raise Refusal(
                413,
                "too_large_without_tiles",
                f"{width}x{height} pixels are over the limit of {self.max_whole / 1e6:.4g} megapixels for a run in one piece.",
                hint="Ask for tiles=auto and a model that allows tiling, or send a smaller picture.",
            )


def read_photo(upload: bytes, limits: Limits) -> Bytes:
    """An uploaded photo as uint8[H,W,3]: upright, 8-bit, without alpha; grey becomes RGB."""
    return as_rgb(open_upload(upload, limits))


def open_upload(upload: bytes, limits: Limits) -> Image.Image:
    """The decoded, upright picture of an upload; Refusal where it is none, broken, animated or over a limit."""
    if len(upload) > limits.max_bytes:
        raise too_many_bytes(limits.max_bytes)
    if not upload:
        raise Refusal(400, "empty_upload", "the uploaded file is empty.", hint=_READABLE_WORDS)
    try:
        picture = Image.open(io.BytesIO(upload), formats=_READABLE)
    except Image.DecompressionBombError:
        raise _too_many_pixels("The upload", limits) from None
    except _BROKEN:
        raise Refusal(400, "not_an_image", "the uploaded file is not an image that can be read.", hint=_READABLE_WORDS) from None
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{width}x{height} pixels", limits)
    if limits.spend is not None:
        limits.spend(width * height)
    try:
        if picture.format != "MPO" and getattr(picture, "is_animated", False):
            raise Refusal(
                400, "animated", f"the uploaded {picture.format} holds more than one picture.", hint="Send one frame or page of it."
            )
        picture.load()
        orientation = _orientation(picture)
    except Image.DecompressionBombError:
        raise _too_many_pixels("The upload", limits) from None
    except _BROKEN:
        raise Refusal(
            400, "broken_image", f"the uploaded {picture.format} is broken or cut short.", hint="Save it again and send the whole file."
        ) from None
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def as_rgb(picture: Image.Image) -> Bytes:
    """Any mode Pillow reads as uint8[H,W,3]; 16-bit values keep their upper byte."""
    if picture.mode.startswith("I"):
        grey = whole_numbers(picture)
        if grey.max(initial=0) > 255:
            grey = grey >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if picture.mode == "F" or picture.mode == "LAB":
        raise Refusal(
            400, "unusual_pixels", f"pictures with {picture.mode} pixels are not read.", hint="Convert it to 8-bit RGB and send that."
        )
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))  # of the same mode it would copy


def whole_numbers(picture: Image.Image) -> NDArray[np.int32]:
    """The values of a 16- or 32-bit grey picture; Refusal where one lies outside 0..65535."""
    values = np.asarray(picture).astype(np.int32)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise Refusal(400, "unusual_pixels", "the picture holds values outside 0 to 65535.", hint="Convert it to 8-bit and send that.")
    return values


def encode_photo(photo: Bytes, format: PhotoFormat) -> bytes:
    """uint8[H,W,3] as a file; WebP and PNG are lossless (at their fast settings), JPEG is of quality 95."""
    file = io.BytesIO()
    picture = Image.fromarray(photo)
    if format == "jpeg":
        picture.save(file, "JPEG", quality=95, subsampling=0)
    elif format == "webp":
        if max(photo.shape[:2]) > 16383:
            raise Refusal(400, "too_wide_for_webp", "WebP ends at 16383 pixels a side.", hint="Ask for format=jpeg or format=png.")
        picture.save(file, "WEBP", lossless=True, method=0)
    else:
        picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def encode_grey(values: Bytes) -> bytes:
    """uint8[H,W] as a grey 8-bit PNG: ids, or confidence."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def too_many_bytes(max_bytes: int) -> Refusal:
    """The refusal of an upload that is over the limit in bytes."""
    return Refusal(
        413,
        "too_many_bytes",
        f"the upload is over the limit of {max_bytes / 2**20:.4g} MiB.",
        hint="Send a smaller file, or have the operator raise FEWPAIR_MAX_BYTES (for jobs FEWPAIR_JOBS_MAX_BYTES).",
    )


def _too_many_pixels(what: str, limits: Limits) -> Refusal:
    return Refusal(
        413,
        "too_many_pixels",
        f"{what} is over the limit of {limits.max_pixels / 1e6:.4g} megapixels.",
        hint="Send a smaller picture, or have the operator raise FEWPAIR_MAX_PIXELS (for jobs FEWPAIR_JOBS_MAX_PIXELS).",
    )


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except _BROKEN:  # EXIF that cannot be read says nothing about which way is up
        return 1
