"""Decode image files to arrays and encode arrays as files; the trainer and the server read every file here.

A source is the content of a file as bytes, or its path. The rules (EXIF orientation, bit depths, alpha, animations) are
listed in `exported/README.md`. Errors are `ImageError`; `BrokenImage` is for a file that cannot be decoded at all.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps

from serving.errors import Refusal
from serving.imaging.domain import Domain

Bytes = NDArray[np.uint8]
PhotoFormat = Literal["jpeg", "webp", "png"]
MEDIA_TYPES: dict[PhotoFormat, str] = {"jpeg": "image/jpeg", "webp": "image/webp", "png": "image/png"}

_READABLE = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF", "HEIF")  # HEIF where a plugin is registered
_READABLE_HINT = "PNG, JPEG, WebP, AVIF, BMP, TIFF and GIF can be read."
_UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error,
    RuntimeError,  # of AVIF
)  # fmt: skip
_PNG_METADATA = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # what can hold an orientation
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_DARK = 4096  # a 16-bit image below this has 12 bits or fewer, and would be almost black
_WEBP_SIDE = 16383

# Pillow warns from 89 megapixels on; `Limits` says what is too large.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(Refusal):
    """An image that is not accepted."""


class BrokenImage(ImageError):
    """A file that is not an image, or not a whole one."""


@dataclass(frozen=True)
class Limits:
    """How large a file may be, in bytes and in pixels once decoded."""

    max_bytes: int
    max_pixels: int
    spend: Callable[[int], None] | None = None  # called with the pixels of each image before it is decoded; may raise
    max_whole: int | None = None  # pixels that run in one piece at their own size, where that is less


class PixelBudget:
    """The limit of the pixels of all pictures of one request, for each of their `answers`."""

    def __init__(self, max_pixels: int, *, answers: int = 1) -> None:
        self._max_pixels, self._answers = max_pixels, answers
        self._pixels = 0

    def spend(self, pixels: int) -> None:
        """Count a picture before decoding; over the limit it is refused, unless it is the first, with one answer."""
        self._pixels += pixels * self._answers
        if self._pixels > self._max_pixels and self._pixels > pixels:
            self._pixels -= pixels * self._answers
            most = self._max_pixels / 1e6
            message = f"with this picture the request is over the limit of {most:.4g} megapixels in all."
            hint = "Send the rest in another request, or have the operator raise FEWPAIR_MAX_PIXELS_IN_ALL."
            raise Refusal(413, "too_many_pixels_in_all", message, hint=hint)


@dataclass(frozen=True)
class OpenedImage:
    """A decoded, upright image, and how its file stored it."""

    picture: Image.Image
    format: str
    packing: str  # Pillow's raw mode, for example "L;4" for 4-bit grey; empty where unknown


def read_photo(source: bytes | Path, limits: Limits | None = None) -> Bytes:
    """Return a photo as uint8[H,W,3]: upright, 8-bit, without alpha; grey becomes RGB.

    Raises ImageError, or BrokenImage where the file cannot be decoded.
    """
    image = open_image(source, limits)
    picture = image.picture
    if picture.mode.startswith("I"):
        return _deep_grey(image)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # the colours of transparent palette entries are kept, too
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def image_size(source: bytes | Path) -> tuple[int, int]:
    """Return (height, width) of the upright image without decoding its pixels.

    Only a PNG that holds metadata is decoded, because they may follow its pixels. Raises BrokenImage.
    """
    with _opened(source) as picture:
        width, height = picture.size
        if picture.format == "TIFF":  # Pillow has applied the orientation to the size
            return height, width
        if picture.format == "PNG" and not any(mark in _content(source) for mark in _PNG_METADATA):
            return height, width
        with suppress(*_UNREADABLE):
            if picture.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS:
                return width, height
        return height, width


def open_image(source: bytes | Path, limits: Limits | None = None) -> OpenedImage:
    """Decode an image and apply its EXIF orientation.

    Raises BrokenImage where it cannot be decoded, ImageError where it is animated, has several pages, holds
    floating-point or LAB values, or is over a limit.
    """
    content = _content(source)
    if limits is not None and len(content) > limits.max_bytes:
        raise too_many_bytes(limits.max_bytes)
    picture = _opened(content)
    if limits is not None:
        width, height = picture.size
        if width * height > limits.max_pixels:
            message = f"{width}x{height} pixels are over the limit of {limits.max_pixels / 1e6:.4g} megapixels."
            hint = "Use a smaller image, or raise the server's FEWPAIR_MAX_PIXELS (for jobs FEWPAIR_JOBS_MAX_PIXELS)."
            raise ImageError(413, "too_many_pixels", message, hint=hint)
        if limits.spend is not None:
            limits.spend(width * height)
    format = picture.format or ""
    with _broken("broken_image", f"the {format} is broken or cut short.", "Save it again and use the whole file."):
        if format != "MPO" and getattr(picture, "is_animated", False):  # MPO: a photo with previews or depth behind it
            message = f"the {format} holds more than one image."
            raise ImageError(400, "animated", message, hint="Save one frame or page of it.")
        if picture.mode in ("F", "LAB"):
            message = f"{picture.mode} pixels cannot be read."
            raise ImageError(400, "unusual_pixels", message, hint="Save the image with 8 bits a channel.")
        packing = _packing(picture)
        picture.load()
    with suppress(*_UNREADABLE):  # EXIF data that are broken hold no orientation
        ImageOps.exif_transpose(picture, in_place=True)
    return OpenedImage(picture, format, packing)


def whole_numbers(picture: Image.Image) -> NDArray[np.int32]:
    """Return the values of a 16- or 32-bit grey image. Raises ImageError where one lies outside 0..65535."""
    values = np.asarray(picture).astype(np.int32)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        message = "the image holds values outside 0 to 65535."
        raise ImageError(400, "unusual_pixels", message, hint="Convert it to 8 or 16 bits.")
    return values


def encode_photo(photo: Bytes, format: PhotoFormat) -> bytes:
    """Encode uint8[H,W,3]: WebP and PNG without loss at their fast settings, JPEG at quality 95."""
    picture = Image.fromarray(photo)
    if format == "jpeg":
        return saved(picture, "JPEG", quality=95, subsampling=0)
    if format == "png":
        return saved(picture, "PNG", compress_level=1)
    if max(photo.shape[:2]) > _WEBP_SIDE:
        message = f"a WebP image has at most {_WEBP_SIDE} pixels a side."
        raise Refusal(400, "too_wide_for_webp", message, hint="Set format to jpeg or png.")
    return saved(picture, "WEBP", lossless=True, method=0)


def encode_grey(values: Bytes) -> bytes:
    """Encode uint8[H,W] as an 8-bit grey PNG: ids, or confidence."""
    return saved(Image.fromarray(values), "PNG")


def encode_label(ids: Bytes, domain: Domain) -> bytes:
    """Return a palette PNG whose indices are the ids and whose palette is the class colours."""
    picture = Image.fromarray(ids)
    picture.putpalette(domain.palette.tobytes())  # turns L into P, the indices stay
    return saved(picture, "PNG")


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    """Return the content of an image file."""
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def too_many_bytes(max_bytes: int) -> ImageError:
    """Return the error for a file or a request that is over the limit in bytes."""
    message = f"the file is over the limit of {max_bytes / 2**20:.4g} MiB."
    hint = "Use a smaller file, or raise the server's FEWPAIR_MAX_BYTES (for jobs FEWPAIR_JOBS_MAX_BYTES)."
    return ImageError(413, "too_many_bytes", message, hint=hint)


def _content(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise BrokenImage(400, "unreadable_file", f"the file cannot be read: {error.strerror or error}.") from None


def _opened(source: bytes | Path) -> ImageFile.ImageFile:
    """Return the image with its header read."""
    if source == b"":
        raise BrokenImage(400, "empty_upload", "the file is empty.", hint=_READABLE_HINT)
    Image.init()
    formats = [format for format in _READABLE if format in Image.OPEN]
    with _broken("not_an_image", "the file is not an image that can be read.", _READABLE_HINT):
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)


@contextmanager
def _broken(code: str, message: str, hint: str) -> Iterator[None]:
    """Raise BrokenImage for whatever Pillow raises."""
    try:
        yield
    except Image.DecompressionBombError:
        message = "the image has too many pixels to be decoded."
        raise BrokenImage(413, "too_many_pixels", message, hint="Use a smaller image.") from None
    except _UNREADABLE:
        raise BrokenImage(400, code, message, hint=hint) from None


def _packing(picture: ImageFile.ImageFile) -> str:
    arguments = picture.tile[0].args if picture.tile else ""
    packing = arguments if isinstance(arguments, str) else next(iter(arguments or ()), "")
    return packing if isinstance(packing, str) else ""


def _deep_grey(image: OpenedImage) -> Bytes:
    """Return 16-bit grey as uint8[H,W,3]: the upper byte, whatever the range of the values."""
    values = whole_numbers(image.picture)
    brightest = int(values.max(initial=0))
    twelve_bits = image.packing.startswith("I;12")
    if 0 < brightest < _DARK and not twelve_bits:
        message = f"the 16-bit image holds no value above {brightest} of 65535, so it would be almost black."
        raise ImageError(400, "dark_16_bit", message, hint="Scale its values to 0 to 65535, or save it with 8 bits.")
    grey = (values >> (4 if twelve_bits else 8)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
