"""A seeded stream of uploads: broken, malicious, unusual and valid files, with valid and mutated text fields."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image, ImageCms

Drawn = random.Random
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
SMALL = 96
_TEXTS = (
    "[" * 100_000,
    "9" * 5000,
    "-" + "9" * 5000,
    '{"a":' * 500,
    "null",
    "NaN",
    "1e999",
    "1.10",
    "true",
    '"',
    "",
    " ",
    "\0",
    "\ud7ff\u202e\u0301",
    "http://127.0.0.1/x.png",
    "../../etc/passwd",
    "x" * 70_000,
)
_FIELDS = ("model", "output", "opacity", "min_area", "tiles", "seed", "count", "format", "snap", "image", "x")
_CHARSETS = ("latin-1", "utf-16", "undefined", "punycode", "idna", "base64", "nonsense")


@dataclass(frozen=True)
class Upload:
    """One request: what it is called, where it goes, and its body with the type that it claims."""

    kind: str
    path: str
    body: bytes
    content_type: str


def upload(seed: int) -> Upload:
    """Return the upload of this seed; the same seed gives the same bytes."""
    drawn = random.Random(seed)
    kind = drawn.choice(sorted(KINDS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is made here on purpose
        file = KINDS[kind](drawn)
    if drawn.random() < 0.15:
        kind, file = f"{kind}, mutated", _mutated(drawn, file)
    return _sent(drawn, kind, file)


def _sent(drawn: Drawn, kind: str, file: bytes) -> Upload:
    """Send the file as a form to /segment or /v1, or as the bare body, with random parameters."""
    direction = drawn.choice(("segment", "synthesize"))
    options = {"segment": _segment_options, "synthesize": _synthesize_options}[direction](drawn)
    if drawn.random() < 0.15:
        kind, options = f"{kind}, mutated field", {**options, drawn.choice(_FIELDS): drawn.choice(_TEXTS)}
    way = drawn.choice(("form", "form", "v1 form", "v1 raw"))
    if way == "v1 raw":
        claimed = drawn.choice(
            ("image/png", "image/jpeg", "application/octet-stream", "application/zip", "image/svg+xml", "text/html")
        )
        query = urlencode({name: value[:4000] for name, value in options.items()}, errors="replace")
        return Upload(f"{kind}, raw", f"/v1/{direction}?{query}", file, claimed)
    name = drawn.choice(
        ("a.png", "b.jpg", "../../etc/passwd", "x" * 200 + ".png", "c\x00.png", "caf\xe9.png", "", "d.svg", "e.zip")
    )
    path = f"/{direction}" if way == "form" else f"/v1/{direction}"
    body, kind_of_form = _form(drawn, file, options, name=name)
    return Upload(f"{kind}, {'short' if way == 'form' else 'v1'} form", path, body, kind_of_form)


def _segment_options(drawn: Drawn) -> dict[str, str]:
    odd = drawn.random() < 0.1
    output = drawn.choice(("colours", "ids", "overlay", "confidence", "polygons", "json"))
    return {
        "output": "everything" if odd else output,
        **({"min_area": str(drawn.randrange(-1, 50))} if drawn.random() < 0.2 else {}),
    }


def _synthesize_options(drawn: Drawn) -> dict[str, str]:
    options = {"format": drawn.choice(("jpeg", "webp", "png")), "snap": drawn.choice(("true", "false"))}
    if drawn.random() < 0.3:
        options["seed"] = drawn.choice(("0", "7", str(2**32 - 1), str(2**32), "-1", "1e3", "x"))
    return options


def _form(drawn: Drawn, file: bytes, options: dict[str, str], *, name: str) -> tuple[bytes, str]:
    boundary = f"fewpair{drawn.randrange(10**9)}"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in options.items()
    ]
    claimed = drawn.choice(("image/png", "image/jpg", "application/octet-stream", "text/plain", "nonsense"))
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: '
        f"{claimed}\r\n\r\n"
    )
    parts.insert(drawn.randrange(len(parts) + 1), head.encode("latin-1") + file + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    if drawn.random() < 0.05:
        body = _mutated(drawn, body)
    charset = f"; charset={drawn.choice(_CHARSETS)}" if drawn.random() < 0.05 else ""
    return body, f"multipart/form-data; boundary={boundary}{charset}"


def _size(drawn: Drawn) -> tuple[int, int]:
    return drawn.randrange(1, SMALL), drawn.randrange(1, SMALL)


def _pixels(drawn: Drawn, *channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(drawn.randrange(2**32)).integers(0, 256, (*_size(drawn), *channels), dtype=np.uint8)


def _saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def _photo(drawn: Drawn) -> bytes:
    return _saved(Image.fromarray(_pixels(drawn, 3)), drawn.choice(FORMATS))


def _mutated(drawn: Drawn, file: bytes) -> bytes:
    """Cut short, with bits flipped, or with a piece left out, doubled or overwritten."""
    if not file:
        return file
    at, length = drawn.randrange(len(file)), drawn.randrange(1, 64)
    match drawn.randrange(5):
        case 0:
            return file[:at]
        case 1:
            return file[:at] + file[at + length :]
        case 2:
            return file[: at + length] + file[at:]
        case 3:
            return file[:at] + drawn.randbytes(length) + file[at + length :]
    flipped = bytearray(file)
    for _ in range(drawn.randrange(1, 32)):
        flipped[drawn.randrange(len(file))] ^= 1 << drawn.randrange(8)
    return bytes(flipped)


def _flipped_head(drawn: Drawn) -> bytes:
    """Bits flipped where files say what they are."""
    file = bytearray(_photo(drawn))
    for _ in range(drawn.randrange(1, 8)):
        file[drawn.randrange(min(64, len(file)))] ^= 1 << drawn.randrange(8)
    return bytes(file)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 0, more: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + more + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _absurd_png(drawn: Drawn) -> bytes:
    side = drawn.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1, 60_000))
    depth, colour = drawn.choice((0, 1, 3, 8, 16, 255)), drawn.choice((0, 1, 2, 3, 4, 6, 7, 255))
    return _png(side, drawn.choice((0, 1, 7, 2**31)), zlib.compress(bytes(100)), depth=depth, colour=colour)


def _absurd_jpeg(drawn: Drawn) -> bytes:
    file = bytearray(_saved(Image.fromarray(_pixels(drawn, 3)), "JPEG"))
    frame = file.find(b"\xff\xc0")
    file[frame + 5 : frame + 9] = struct.pack(">HH", drawn.choice((0, 1, 65535)), drawn.choice((0, 1, 65535)))
    return bytes(file)


def _absurd_bmp(drawn: Drawn) -> bytes:
    file = bytearray(_saved(Image.fromarray(_pixels(drawn, 3)), "BMP"))
    struct.pack_into(
        "<ii", file, 18, drawn.choice((-1, 0, 2**31 - 1, 40_000)), drawn.choice((-(2**31), 0, 2**31 - 1, -5))
    )
    struct.pack_into("<HI", file, 28, drawn.choice((0, 1, 4, 24, 32, 99)), drawn.choice((0, 1, 2, 3, 4, 99)))
    return bytes(file)


def _absurd_tiff(drawn: Drawn) -> bytes:
    """A directory that leads to itself, to nowhere, or says absurd things of its picture."""
    entries = [
        (256, 4, 1, drawn.choice((0, 1, 2**32 - 1, 50))),
        (257, 4, 1, drawn.choice((0, 2**31, 50))),
        (258, 3, 1, drawn.choice((1, 8, 16, 99))),
    ]
    entries += [
        (259, 3, 1, drawn.choice((1, 2, 5, 7, 8, 32773, 34712, 50000))),
        (262, 3, 1, drawn.randrange(9)),
        (273, 4, 1, drawn.choice((8, 2**31, 0))),
    ]
    entries += [(277, 3, 1, drawn.choice((1, 3, 65535))), (278, 4, 1, 50), (279, 4, drawn.choice((1, 2**30)), 2500)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", drawn.choice((0, 8, 2**31))) + bytes(3000)


def _pixel_bomb(drawn: Drawn) -> bytes:
    """A small file of very many pixels, in one colour."""
    return _one_colour(drawn.choice((1000, 6000, 9000)))


@cache
def _one_colour(side: int) -> bytes:
    packer = zlib.compressobj(6)
    row = bytes(side + 1)
    return _png(side, side, b"".join(packer.compress(row) for _ in range(side)) + packer.flush())


def _chunk_bomb(drawn: Drawn) -> bytes:
    """A right picture with a text or a colour profile that unpacks to very much."""
    name, head = drawn.choice(((b"zTXt", b"comment\0\0"), (b"iCCP", b"profile\0\0"), (b"iTXt", b"comment\0\1\0\0\0")))
    return _png(8, 8, zlib.compress(bytes(72)), more=_chunk(name, head + _much()) * drawn.choice((1, 4)))


@cache
def _much() -> bytes:
    return zlib.compress(bytes(50 * 2**20), 6)


def _zip(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that is given twice
        for name, body in entries:
            archive.writestr(name, body)
    return file.getvalue()


def _zip_of_photos(drawn: Drawn) -> bytes:
    names = ["a.png", "a.png", "../../b.png", "/etc/c.png", "d/", "__MACOSX/a.png", "C:\\e.png", "\u00e9.png"]
    return _zip([(drawn.choice([*names, "f" * 300]), _photo(drawn)) for _ in range(drawn.randrange(4))])


def _zip_bomb(drawn: Drawn) -> bytes:
    inner = _zip_of_zeros(drawn.choice((2**20, 40 * 2**20)))
    return drawn.choice((inner, _zip([("inner.zip", inner)] * 3)))


@cache
def _zip_of_zeros(size: int) -> bytes:
    return _zip([("zeros.png", bytes(size))])


def _lying_zip(drawn: Drawn) -> bytes:
    """A ZIP whose entry says another size, method, flag or place than is true."""
    file = bytearray(_zip([("a.png", _photo(drawn))]))
    entry = file.rfind(b"PK\x01\x02")
    offset, form = drawn.choice(((24, "<I"), (20, "<I"), (42, "<I"), (8, "<H"), (10, "<H")))
    struct.pack_into(form, file, entry + offset, drawn.choice((0, 1, 8, 12, 14, 99, 2**15)))
    return bytes(file)


def _polyglot(drawn: Drawn) -> bytes:
    """A right picture that is something else too."""
    photo = _photo(drawn)
    return drawn.choice(
        (
            photo + _zip([("a.png", photo)]),
            photo + b"<script>alert(1)</script>",
            b"%PDF-1.7\n" + photo,
            photo + photo,
            b"GIF89a/*" + photo + b"*/=1;",
            _saved(Image.fromarray(_pixels(drawn, 3)), "JPEG", comment=b"<?php system($_GET[0]); ?>"),
            _zip([("a.png", photo)]) + photo,
        )
    )


def _document(drawn: Drawn) -> bytes:
    """What is no picture at all, or one that runs code where it is read."""
    return drawn.choice(
        (
            b"",
            b"\0",
            b"hello",
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/><script>1</script></svg>',
            b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>',
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\nshowpage\n",
            b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>",
            b"P6 9999999 9999999 255\n" + bytes(99),
            b"\x7fELF" + drawn.randbytes(200),
            b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x.jpg'\npop graphic-context",
            drawn.randbytes(drawn.randrange(1, 4000)),
        )
    )


def _animated(drawn: Drawn) -> bytes:
    frames = [Image.fromarray(_pixels(drawn, 3)).resize((20, 20)) for _ in range(drawn.randrange(2, 6))]
    return _saved(frames[0], drawn.choice(("GIF", "WEBP", "PNG", "TIFF")), save_all=True, append_images=frames[1:])


def _with_exif(drawn: Drawn) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = drawn.choice((*range(10), 65535))
    exif[0x010F] = "x" * drawn.randrange(2000)
    told = exif.tobytes()
    told = drawn.choice(
        (told, _mutated(drawn, told), b"Exif\0\0" + drawn.randbytes(40), b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    )
    return _saved(Image.fromarray(_pixels(drawn, 3)), drawn.choice(("JPEG", "PNG", "WEBP")), exif=told)


def _with_profile(drawn: Drawn) -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(drawn.choice(("sRGB", "LAB", "XYZ")))).tobytes()
    profile = drawn.choice((profile, _mutated(drawn, profile), drawn.randbytes(300), b"x"))
    return _saved(
        Image.fromarray(_pixels(drawn, 3)), drawn.choice(("JPEG", "PNG", "WEBP", "TIFF")), icc_profile=profile
    )


_UNUSUAL = {
    "PNG": ("I;16", "1", "RGBA", "LA", "P"),
    "TIFF": ("I;16", "CMYK", "LAB", "F", "I", "1", "RGBA"),
    "JPEG": ("CMYK", "YCbCr"),
    "WEBP": ("RGBA",),
    "GIF": ("P",),
}
"""The modes of Pillow in which a format is written."""


def _unusual_pixels(drawn: Drawn) -> bytes:
    """16-bit, CMYK, LAB, float, bilevel, with alpha, with a palette."""
    rgb = Image.fromarray(_pixels(drawn, 3))
    grey = np.random.default_rng(drawn.randrange(2**32)).integers(0, 65536, _size(drawn), dtype=np.uint16)
    mode, format = drawn.choice([(mode, format) for format, modes in _UNUSUAL.items() for mode in modes])
    if mode == "I;16":
        return _saved(Image.fromarray(grey), format)
    if mode == "LAB":
        lab = ImageCms.profileToProfile(
            rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        assert lab is not None
        return _saved(lab, format)
    return _saved(rgb.convert(mode), format)


def _deep_png(drawn: Drawn) -> bytes:
    """PNG with 16 bits a channel in colour, which Pillow does not write."""
    width, height = _size(drawn)
    rows = b"".join(b"\0" + drawn.randbytes(6 * width) for _ in range(height))
    return _png(width, height, zlib.compress(rows), depth=16, colour=2)


def _extreme_shape(drawn: Drawn) -> bytes:
    width, height = drawn.choice(((1, 1), (1, 60_000), (60_000, 1), (1, 2), (17_000, 1), (2, 20_000)))
    return _saved(Image.new(drawn.choice(("RGB", "L")), (width, height)), drawn.choice(("PNG", "BMP", "TIFF")))


def _label_map(drawn: Drawn) -> bytes:
    """Ids and colours, right and wrong."""
    ids = _pixels(drawn) % np.uint8(drawn.choice((1, 3, 12, 34, 255)))
    picture = Image.fromarray(ids)
    if drawn.random() < 0.4:
        picture.putpalette(drawn.randbytes(3 * drawn.randrange(1, 256)))
    if drawn.random() < 0.3:
        picture = picture.convert("RGB")
    return _saved(picture, drawn.choice(("PNG", "PNG", "TIFF", "BMP")))


KINDS: dict[str, Callable[[Drawn], bytes]] = {
    "photo": _photo,
    "mutated photo": lambda drawn: _mutated(drawn, _photo(drawn)),
    "cut photo": lambda drawn: (file := _photo(drawn))[: drawn.randrange(len(file))],
    "flipped head": _flipped_head,
    "absurd PNG": _absurd_png,
    "absurd JPEG": _absurd_jpeg,
    "absurd BMP": _absurd_bmp,
    "absurd TIFF": _absurd_tiff,
    "pixel bomb": _pixel_bomb,
    "chunk bomb": _chunk_bomb,
    "ZIP": _zip_of_photos,
    "ZIP bomb": _zip_bomb,
    "lying ZIP": _lying_zip,
    "polyglot": _polyglot,
    "document": _document,
    "animated": _animated,
    "EXIF": _with_exif,
    "profile": _with_profile,
    "unusual pixels": _unusual_pixels,
    "16-bit colour": _deep_png,
    "extreme shape": _extreme_shape,
    "label map": _label_map,
}
