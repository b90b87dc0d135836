"""From a picture file to uint8 arrays: photos as RGB, label maps as class indices, and a sentence with the path where a file is broken."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from trainer.batch import IGNORE, Classes
from trainer.errors import UserError

Spelling = Literal["ids", "colours"]
"""How label files say a class: as its id in the table, or as its colour."""

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises on files that are no pictures, or no whole pictures."""


NEAR = 60
"""How far, in levels of RGB, JPEG may move the colour of a class: on facades with halved chroma 93 % right, 6 % void, 0.6 % wrong."""


class BrokenFile(UserError):
    """A file that cannot be decoded at all; what `--skip-broken` skips, with its `reason` alone."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(reason + remedy)
        self.reason = reason


def read_photo(path: Path) -> np.ndarray:
    """A picture file as uint8[H,W,3]: turned upright by its EXIF tag, 16 bit scaled to 8, grey spread, alpha dropped."""
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F":
            raise UserError(f"{path} holds floating-point values; save it as an 8- or 16-bit picture")
        if upright.mode.startswith("I"):
            values = np.asarray(upright).astype(np.int64)
            wide = upright.mode != "I" or int(values.max(initial=0)) > 255
            grey = np.clip(values >> 8 if wide else values, 0, 255).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if upright.mode in ("P", "PA"):
            upright = upright.convert("RGBA")
        return np.array(upright.convert("RGB"))


def photo_size(path: Path, *, upright: bool = True) -> tuple[int, int]:
    """(height, width) of the picture, turned upright by its EXIF tag or as it is stored, read from the file's head alone."""
    with _opened(path) as image:
        width, height = image.size
        sideways = upright and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (width, height) if sideways else (height, width)


def read_label(path: Path, classes: Classes, *, spelling: Spelling) -> np.ndarray:
    """A label file as class indices uint8[H,W] in 0..C-1 or IGNORE."""
    with _opened(path) as image:
        _refuse_jpeg(path, image)
        if spelling == "colours":
            if image.mode not in ("RGB", "RGBA", "P", "PA"):
                raise UserError(f"{path} is a grey picture, but the other label files are spelt in palette colours: save it in colour")
            return _from_colours(path, np.asarray(image.convert("RGBA").convert("RGB")), classes)
        if image.mode not in ("L", "P", "1", "LA", "PA", "I") and not image.mode.startswith("I;16"):
            raise UserError(
                f"{path} is a colour picture ({image.mode}), but the label files here hold class ids: save it as an 8-bit index PNG"
            )
        return _from_ids(path, _ids(image), classes)


def nearest_colours(picture: np.ndarray, classes: Classes) -> np.ndarray:
    """A label map drawn in colours and blurred by JPEG, uint8[H,W,3] -> class indices uint8[H,W].

    Each pixel takes the class of the nearest colour (Euclidean in RGB); one that is farther than NEAR from all of them is void.
    """
    colours, places = np.unique(_packed(picture), return_inverse=True)
    spread = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1)
    table = np.array([row.color for row in classes.rows], dtype=np.int64)
    squared = np.stack([((spread - colour) ** 2).sum(1) for colour in table])
    indices = np.array([_index_of(classes, position) for position in range(len(classes.rows))], dtype=np.uint8)
    found = np.where(squared.min(0) <= NEAR**2, indices[squared.argmin(0)], np.uint8(IGNORE))
    return found[places].reshape(picture.shape[:2]).astype(np.uint8)


def spelling_of(path: Path, classes: Classes) -> Spelling:
    """Whether a label file holds ids or palette colours: colour files hold colours, as do indexed ones with indices the table lacks."""
    with _opened(path) as image:
        _refuse_jpeg(path, image)
        if image.mode in ("P", "PA"):
            return "ids" if classes.known_ids().issuperset(np.unique(_ids(image)).tolist()) else "colours"
        return "colours" if image.mode in ("RGB", "RGBA", "CMYK", "YCbCr") else "ids"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An open picture; whatever Pillow finds wrong with it while the block runs becomes a BrokenFile with the path."""
    try:
        with Image.open(path) as image:
            yield image
    except UserError:
        raise
    except FileNotFoundError as error:
        raise BrokenFile(f"{path} is not there (any more)") from error
    except BROKEN as error:
        remedy = ": replace it, or go on without it with --skip-broken"
        raise BrokenFile(f"{path} cannot be read as a picture ({error})", remedy=remedy) from error


def _refuse_jpeg(path: Path, image: Image.Image) -> None:
    """A JPEG of ids opens like any other, with ids that nobody drew between those of two neighbours."""
    if image.format in ("JPEG", "MPO"):
        raise UserError(f"{path} is a JPEG, which cannot hold the classes of a label map exactly: draw or export it anew as PNG")


def _ids(image: Image.Image) -> np.ndarray:
    """The raw values of a one-channel picture; Pillow stretches 2- and 4-bit greys to 0..255, which is undone here."""
    tiles = getattr(image, "tile", None)
    packing = tiles[0].args if tiles else None
    if image.mode in ("LA", "PA"):
        return np.asarray(image)[:, :, 0]
    values = np.asarray(image)
    stretch = {"L;2": 85, "L;4": 17}.get(packing) if isinstance(packing, str) else None
    return values // stretch if stretch else values.astype(np.int64) if values.dtype != np.uint8 else values


def _from_ids(path: Path, ids: np.ndarray, classes: Classes) -> np.ndarray:
    known = np.zeros(256, dtype=bool)
    known[list(classes.known_ids())] = True
    outside = ids[(ids < 0) | (ids > 255)] if ids.dtype != np.uint8 else ids[:0]
    if outside.size == 0:
        outside = ids[~known[ids]]
    if outside.size:
        value = int(outside.flat[0])
        listed = _ranges(sorted({row.id for row in classes.rows} - {IGNORE}))
        raise UserError(
            f"{path} holds class {value} ({int((outside == value).sum())} pixels), but the class table lists only {listed} (and 255, void)"
        )
    return classes.id_to_index()[ids]


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted whole numbers as a person writes them: "0 to 150", "0, 3 to 7, 9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _from_colours(path: Path, colours: np.ndarray, classes: Classes) -> np.ndarray:
    packed = _packed(colours)
    table = _packed(np.array([row.color for row in classes.rows]))
    indices = np.array([_index_of(classes, position) for position in range(len(classes.rows))], dtype=np.uint8)
    order = np.argsort(table)
    place = np.minimum(np.searchsorted(table[order], packed), len(table) - 1)
    found = table[order][place] == packed
    if not found.all():
        strange, counts = np.unique(packed[~found], return_counts=True)
        value, count = int(strange[counts.argmax()]), int(counts.max())
        colour = (value >> 16, value >> 8 & 255, value & 255)
        nearest = min(classes.rows, key=lambda row: sum((a - b) ** 2 for a, b in zip(row.color, colour, strict=True)))
        raise UserError(
            f"{path} holds colour {colour} in {count} pixels, which no class has; the nearest is {nearest.name} {nearest.color}. "
            "Save label maps without smoothing or JPEG, or add the colour to the class table"
        )
    return indices[order][place]


def _index_of(classes: Classes, position: int) -> int:
    row = classes.rows[position]
    return IGNORE if row.ignore else classes.real.index(row)


def _packed(colours: np.ndarray) -> np.ndarray:
    wide = colours.astype(np.int64)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
