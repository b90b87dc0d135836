"""What every annotation format is read into, pictures with labelled shapes."""

import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.errors import UserError

VOID = "void"
"""The label of pixels that a file marks as not labelled."""


class Unusable(Exception):
    """Why a shape or a picture is dropped, for example "a shape without an area (line)"."""


@dataclass(frozen=True)
class Label:
    """A class as the tool lists it; what the tool does not say is None."""

    name: str
    color: tuple[int, int, int] | None = None
    ignore: bool = False
    id: int | None = None


@dataclass(frozen=True)
class Shape:
    """One labelled region: the union of polygons without its holes, or a mask whose first pixel is at `corner` (x, y).

    Polygons are Float[n,2], x and y in pixels of the upright photo; its first pixel spans 0 to 1.
    """

    label: str
    polygons: tuple[np.ndarray, ...] = ()
    holes: tuple[np.ndarray, ...] = ()
    mask: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Picture:
    """One photo of an export: its path as the tool spells it, the size (height, width) it had there, and its shapes."""

    name: str
    size: tuple[int, int] | None
    shapes: Sequence[Shape]
    dropped: Sequence[str] = ()
    note: str | None = None
    photo: bytes | None = None
    """The content of the photo where the export embeds it."""


@dataclass(frozen=True)
class Export:
    """What a reader returns. `labels` is None where the tool writes no list of its classes."""

    labels: tuple[Label, ...] | None
    pictures: Callable[[], Iterator[Picture]]
    ordered: bool = True
    """Whether the order of the shapes is the order in which the tool paints them."""
    masks: tuple[Path, ...] = ()
    """Folders whose pictures are not photos."""
    remarks: tuple[str, ...] = ()
    """Lines for the report on what belongs to no picture."""


def shapes_of(objects: Iterable[Any], read: Callable[[Any], Shape | None]) -> tuple[list[Shape], list[str]]:
    """Return the shapes that `read` makes of a file's objects, and why others were dropped; None is no shape."""
    shapes, dropped = [], []
    for item in objects:
        try:
            shape = read(item)
        except Unusable as reason:
            dropped.append(str(reason))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, OSError, zlib.error) as error:
            dropped.append(f"a shape that cannot be read ({type(error).__name__}: {error})")
        else:
            shapes += [] if shape is None else [shape]
    return shapes, dropped


def one_size(
    sizes: Collection[tuple[int, ...]], shapes: list[Shape]
) -> tuple[tuple[int, int] | None, list[Shape], list[str]]:
    """Return a picture's size, shapes and reasons to drop: no shapes where these were made for several sizes."""
    if len(sizes) > 1:
        named = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        return None, [], [f"labels of one photo for several sizes ({named}, height x width)"]
    return next(((height, width) for height, width in sizes), None), shapes, []


def read_text(path: Path) -> str:
    """Return the content of a text file. Raises UserError where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises UserError."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): export it again") from error


def color_of(color: str | Sequence[int] | None) -> tuple[int, int, int] | None:
    """Return the colour of "#ff0000" or [255, 0, 0], or None where there is none."""
    code = bytes.fromhex(color.removeprefix("#")) if isinstance(color, str) else bytes(color or ())
    return (code[0], code[1], code[2]) if len(code) == 3 else None
