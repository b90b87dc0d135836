"""Image files that decoders disagree about, with the pixels that every path of the project must read.

`PHOTOS` and `LABELS` are read through `serving.imaging`, `fewpair predict`, the REST API and the trainer. What a file
holds is either an array, or the code of the `ImageError` that refuses it. The class table of the label maps is that of
`tests.serving.factory`.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from serving.imaging.domain import ClassRow, Domain
from tests.serving.factory import CLASSES
from tests.serving.pictures import file_of

DOMAIN = Domain(
    "classes", tuple(ClassRow(row["id"], row["name"], tuple(row["color"]), row["ignore"]) for row in CLASSES)
)
COLOURS = np.array([row["color"] for row in CLASSES], np.uint8)  # by id, 3 is void
VOID = 3
ORIENTATION = 0x0112


@dataclass(frozen=True)
class OddFile:
    """A file, and what it holds: uint8[H,W,3] or ids uint8[H,W]; the code of the error where it is refused."""

    name: str
    content: bytes
    expected: np.ndarray | str

    def __str__(self) -> str:
        return self.name


def png(values: np.ndarray, depth: int, *, color_type: int = 0, interlaced: bool = False, **chunks: bytes) -> bytes:
    """A grey (0) or indexed (3) PNG of 1, 2, 4, 8 or 16 bits a pixel, written by hand; chunks go between header and
    pixels.
    """
    height, width = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def rows(part: np.ndarray) -> bytes:
        bits = (part[..., None].astype(int) >> np.arange(depth - 1, -1, -1) & 1).reshape(len(part), -1)
        return b"".join(b"\0" + row.tobytes() for row in np.packbits(bits.astype(np.uint8), axis=1))

    adam7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [values[y::dy, x::dx] for y, x, dy, dx in adam7] if interlaced else [values]
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, int(interlaced))
    written = [chunk(b"IHDR", header), *(chunk(kind.encode(), data) for kind, data in chunks.items())]
    written.append(chunk(b"IDAT", zlib.compress(b"".join(rows(part) for part in parts if part.size))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(written) + chunk(b"IEND", b"")


def indexed(indices: np.ndarray, palette: np.ndarray, **options: Any) -> bytes:
    """A palette PNG."""
    picture = Image.fromarray(indices.astype(np.uint8))
    picture.putpalette(palette.astype(np.uint8).tobytes())
    return file_of(picture, "PNG", **options)


def stored_as(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How pixels lie in a file whose EXIF orientation makes them upright again."""
    swapped = upright.swapaxes(0, 1)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: swapped, 6: swapped[::-1], 7: swapped[::-1, ::-1], 8: swapped[:, ::-1],
    }[orientation]  # fmt: skip
    return np.ascontiguousarray(stored)


def turned(orientation: int) -> bytes:
    """EXIF data with an orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def _after_pixels(file: bytes, exif: bytes) -> bytes:
    """A PNG whose EXIF data follow its pixels."""
    data = exif.removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
    return file[:-12] + chunk + file[-12:]


def _xmp(orientation: int) -> bytes:
    attribute = f'tiff:Orientation="{orientation}"'
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {attribute}/></x:xmpmeta>'.encode()


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


_RANDOM = np.random.default_rng(7)
PHOTO = _RANDOM.integers(0, 256, (20, 28, 3), dtype=np.uint8)
DEEP = _RANDOM.integers(0, 65536, (20, 28)).astype(np.uint16)
IDS = np.repeat(np.repeat(np.array([[0, 1, 2, 3], [2, 0, 3, 1], [1, 1, 0, 2]], np.uint8), 6, axis=0), 7, axis=1)
BINARY = (IDS % 2).astype(np.uint8)
ALPHA = np.full(IDS.shape, 255, np.uint8)
ALPHA[3:9, 5:12] = 0
ERASED = np.where(ALPHA == 0, VOID, IDS).astype(np.uint8)
PAINTED = COLOURS[IDS]
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True, "exact": True}}
TWO_PAGES = {"save_all": True, "append_images": [Image.fromarray(PHOTO[::-1])]}
TWO_LABELS = {"save_all": True, "append_images": [Image.fromarray(IDS[::-1])]}

PHOTOS = [
    *(
        OddFile(
            f"{format}-orientation-{orientation}.{format.lower()}",
            file_of(stored_as(PHOTO, orientation), format, exif=turned(orientation), **options),
            PHOTO,
        )
        for format, options in LOSSLESS.items()
        for orientation in range(1, 9)
    ),
    OddFile("lzw-orientation.tif", file_of(stored_as(PHOTO, 6), "TIFF", exif=turned(6), compression="tiff_lzw"), PHOTO),
    OddFile("orientation-after-pixels.png", _after_pixels(file_of(stored_as(PHOTO, 6), "PNG"), turned(6)), PHOTO),
    OddFile("orientation-in-xmp.webp", file_of(stored_as(PHOTO, 8), "WEBP", lossless=True, xmp=_xmp(8)), PHOTO),
    OddFile(
        "orientation-twice.tif", file_of(stored_as(PHOTO, 6), "TIFF", tiffinfo={ORIENTATION: 6, 700: _xmp(6)}), PHOTO
    ),
    OddFile("broken-exif.png", file_of(PHOTO, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), PHOTO),
    OddFile("16-bit-grey.png", png(DEEP, 16), _rgb(DEEP >> 8)),
    OddFile("16-bit-grey.tif", file_of(Image.fromarray(DEEP), "TIFF"), _rgb(DEEP >> 8)),
    OddFile("16-bit-black.png", png(DEEP * 0, 16), _rgb(DEEP * 0)),
    OddFile("8-bits-in-16.png", png(DEEP >> 8, 16), "dark_16_bit"),
    OddFile("12-bits-in-16.tif", file_of(Image.fromarray(DEEP >> 4), "TIFF"), "dark_16_bit"),
    OddFile("1-bit-grey.png", png(BINARY, 1), _rgb(BINARY * 255)),
    OddFile("2-bit-grey.png", png(IDS, 2), _rgb(IDS * 85)),
    OddFile("4-bit-grey.png", png(IDS, 4), _rgb(IDS * 17)),
    OddFile("float.tif", file_of(Image.fromarray(PHOTO[..., 0].astype(np.float32)), "TIFF"), "unusual_pixels"),
    OddFile("alpha.png", file_of(np.dstack([PHOTO[: len(ALPHA)], ALPHA]), "PNG"), PHOTO[: len(ALPHA)]),
    OddFile("grey-alpha.png", file_of(np.dstack([IDS * 17, ALPHA]), "PNG"), _rgb(IDS * 17)),
    OddFile("transparent-palette.png", indexed(IDS, COLOURS, transparency=b"\0\x80"), PAINTED),
    OddFile("cmyk.tif", file_of(Image.fromarray(PAINTED).convert("CMYK"), "TIFF"), PAINTED),
    OddFile("animated.gif", file_of(PHOTO, "GIF", **TWO_PAGES), "animated"),
    OddFile("animated.png", file_of(PHOTO, "PNG", **TWO_PAGES), "animated"),
    OddFile("animated.webp", file_of(PHOTO, "WEBP", **TWO_PAGES), "animated"),
    OddFile("animated.avif", file_of(PHOTO, "AVIF", **TWO_PAGES), "animated"),
    OddFile("two-pages.tif", file_of(PHOTO, "TIFF", **TWO_PAGES), "animated"),
]

FOREIGN = np.array([[9, 9, 9], [50, 60, 70], [1, 2, 3], [200, 100, 0]])
SHUFFLED = np.array([2, 0, 1, 3])  # which index a palette in another order gives each id
IN_ORDER_OF_SIZE = np.array([2, 0, 3])  # an editor's palette of the three classes that occur
WITHOUT_BRIGHT = np.where(IDS == 1, 0, IDS)
BLURRED = np.asarray(Image.fromarray(PAINTED).resize((41, 27), Image.Resampling.BICUBIC))
UNLABELLED = np.where(ALPHA == 0, 255, IDS).astype(np.uint8)

LABELS = [
    OddFile("ids.png", file_of(IDS, "PNG"), IDS),
    OddFile("1-bit.png", png(BINARY, 1), BINARY),
    OddFile("1-bit.tif", file_of(Image.fromarray(BINARY.astype(bool)), "TIFF"), BINARY),
    OddFile("2-bit.png", png(IDS, 2), IDS),
    OddFile("4-bit.png", png(IDS, 4), IDS),
    OddFile("4-bit-interlaced.png", png(IDS, 4, interlaced=True), IDS),
    OddFile("4-bit-other-ids.png", png(IDS * 5, 4), "unknown_class_id"),
    OddFile("16-bit.png", png(IDS, 16), IDS),
    OddFile("16-bit.tif", file_of(Image.fromarray(IDS.astype(np.uint16)), "TIFF"), IDS),
    OddFile("32-bit.tif", file_of(Image.fromarray(IDS.astype(np.int32)), "TIFF"), IDS),
    OddFile("float.tif", file_of(Image.fromarray(IDS.astype(np.float32)), "TIFF"), "unusual_pixels"),
    OddFile("16-bit-high-byte.png", png(IDS.astype(np.uint16) << 8, 16), "unknown_class_id"),
    OddFile("white-is-zero.tif", file_of(IDS, "TIFF", tiffinfo={262: 0}), "unusual_pixels"),
    OddFile("void-255.png", file_of(UNLABELLED, "PNG"), UNLABELLED),
    OddFile("grey-rgb.png", file_of(_rgb(IDS), "PNG"), IDS),
    OddFile("colours.png", file_of(PAINTED, "PNG"), IDS),
    OddFile("colours.gif", file_of(PAINTED, "GIF"), "ambiguous_label_map"),
    OddFile("colours.webp", file_of(PAINTED, "WEBP", lossless=True), IDS),
    OddFile("ids-and-colours.png", indexed(IDS, COLOURS), IDS),
    OddFile("foreign-palette.png", indexed(IDS, FOREIGN), IDS),
    OddFile("4-bit-foreign-palette.png", indexed(IDS, FOREIGN, bits=4), IDS),
    OddFile("colours-of-high-indices.png", indexed(IDS + 100, np.vstack([np.zeros((100, 3)), COLOURS])), IDS),
    OddFile(
        "colours-in-another-order.png", indexed(SHUFFLED[IDS], COLOURS[np.argsort(SHUFFLED)]), "ambiguous_label_map"
    ),
    OddFile(
        "colours-in-order-of-size.png",
        indexed(np.argsort(IN_ORDER_OF_SIZE)[np.searchsorted([0, 2, 3], WITHOUT_BRIGHT)], COLOURS[IN_ORDER_OF_SIZE]),
        "ambiguous_label_map",
    ),
    OddFile("indexed-of-neither.png", indexed(IDS + 100, np.full((104, 3), 77)), "unknown_class_id"),
    *(
        OddFile(
            f"orientation-{orientation}.{format.lower()}",
            file_of(stored_as(IDS, orientation), format, exif=turned(orientation)),
            IDS,
        )
        for format in ("PNG", "TIFF")
        for orientation in range(2, 9)
    ),
    OddFile("colours-turned.webp", file_of(stored_as(PAINTED, 6), "WEBP", lossless=True, exif=turned(6)), IDS),
    OddFile("erased-colours.png", file_of(np.dstack([PAINTED, ALPHA]), "PNG"), ERASED),
    OddFile(
        "erased-white.png",
        file_of(np.dstack([np.where(ALPHA[..., None] == 0, 255, PAINTED).astype(np.uint8), ALPHA]), "PNG"),
        ERASED,
    ),
    OddFile(
        "erased-ids.png", file_of(np.dstack([np.where(ALPHA == 0, 99, IDS).astype(np.uint8), ALPHA]), "PNG"), ERASED
    ),
    OddFile("erased-grey-value.png", png(np.where(ALPHA == 0, 9, IDS), 4, tRNS=b"\0\x09"), ERASED),
    OddFile(
        "erased-entry.png",
        indexed(np.where(ALPHA == 0, 4, IDS), np.vstack([COLOURS, [[9, 9, 9]]]), transparency=4),
        ERASED,
    ),
    OddFile(
        "erased-colour.png",
        file_of(np.where(ALPHA[..., None] == 0, 200, PAINTED).astype(np.uint8), "PNG", transparency=(200, 200, 200)),
        ERASED,
    ),
    OddFile("antialiased.png", file_of(BLURRED, "PNG"), "unknown_colours"),
    OddFile("smeared.jpg", file_of(PAINTED, "JPEG", quality=95), "lossy_label_map"),
    OddFile("ids.jpg", file_of(IDS, "JPEG", quality=95), "lossy_label_map"),
    OddFile("smeared.avif", file_of(PAINTED, "AVIF", quality=95), "lossy_label_map"),
    OddFile("animated.gif", file_of(IDS, "GIF", **TWO_LABELS), "animated"),
    OddFile("two-pages.tif", file_of(IDS, "TIFF", **TWO_LABELS), "animated"),
]
