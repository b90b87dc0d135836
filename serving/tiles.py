"""Large pictures in overlapping tiles: where they lie, how they are cut, and how their answers become one picture without seams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.errors import Refusal
from serving.imaging import Bytes
from serving.manifest import Manifest, TensorSpec

Tiles = Literal["auto", "never", "always"]
SIDE = 1024  # of a tile, where the manifest names no size
_WHOLE = 2**22  # pixels that `auto` still runs in one piece
_OVERLAP = 4  # a tile shares a quarter of its sides with each neighbour
BATCH_PIXELS = 2**20  # of the tiles that run together
_MOST_AT_ONCE = 16


@dataclass(frozen=True)
class Axis:
    """The tiles along one side of a picture: where each starts, and where the answer changes over from one to the next."""

    length: int  # of the picture
    tile: int
    overlap: int  # the least; tiles are spread evenly and may share more
    starts: tuple[int, ...]

    @property
    def cuts(self) -> tuple[int, ...]:
        """The middle of each overlap: to its left the centre of one tile is nearer, to its right the centre of the next."""
        return tuple((start + self.tile + following) // 2 for start, following in zip(self.starts, self.starts[1:], strict=False))

    def part(self, index: int) -> tuple[int, int]:
        """From where to where in the picture the tile's centre is the nearest."""
        borders = (0, *self.cuts, self.length)
        return borders[index], borders[index + 1]

    def window(self, index: int) -> NDArray[np.float32]:
        """Float[tile] in [0,1]: how much the tile counts. The windows of all tiles add up to 1 at every pixel.

        They change over within half of an overlap around its middle, so that what a tile makes of its outermost pixels, beyond which
        it sees nothing, counts for nothing.
        """
        at = self.starts[index] + np.arange(self.tile, dtype=np.float32) + np.float32(0.5)
        rises = [np.clip((at - cut) / max(1, self.overlap // 2) + np.float32(0.5), 0, 1) for cut in self.cuts]
        window = np.ones(self.tile, np.float32)
        if index > 0:
            window *= rises[index - 1]
        if index < len(self.cuts):
            window *= 1 - rises[index]
        return window


@dataclass(frozen=True)
class Grid:
    """The tiles of a picture, all of one size, row by row."""

    rows: Axis
    columns: Axis

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def __str__(self) -> str:
        return f"{len(self.columns.starts)}x{len(self.rows.starts)}"

    def batches(self) -> Iterator[tuple[int, Sequence[int]]]:
        """(row, columns) of the tiles that are run together."""
        size = min(_MOST_AT_ONCE, max(1, BATCH_PIXELS // (self.rows.tile * self.columns.tile)))
        across = range(len(self.columns.starts))
        for row in range(len(self.rows.starts)):
            for first in range(0, len(across), size):
                yield row, across[first : first + size]


def plan(manifest: Manifest, size: tuple[int, int], tiles: Tiles) -> Grid | None:
    """The grid over a picture of (height, width), or None where it is run in one piece by the manifest's rule.

    `auto` asks how the model was trained: at the pictures' own scale (rule none), and pictures over 4 megapixels are tiled; shrunk to
    one size (exact, fit), and a tile of a large picture would show things larger than the model ever saw them, so that is not done
    unasked. `always` tiles whatever is larger than a tile; Refusal where the manifest forbids it.
    """
    check_tiles(manifest, tiles)
    if tiles == "never" or manifest.tiling == "forbidden":
        return None
    if tiles == "auto" and (manifest.resize.rule != "none" or size[0] * size[1] <= _WHOLE):
        return None
    side = (manifest.resize.height or SIDE, manifest.resize.width or SIDE)
    if size[0] <= side[0] and size[1] <= side[1]:
        return None
    return Grid(lay(size[0], tile=side[0], multiple_of=manifest.multiple_of), lay(size[1], tile=side[1], multiple_of=manifest.multiple_of))


def check_tiles(manifest: Manifest, tiles: Tiles) -> None:
    """Refusal where tiles are demanded and the manifest forbids them."""
    if tiles == "always" and manifest.tiling == "forbidden":
        raise Refusal(
            400,
            "tiling_forbidden",
            f"model {manifest.name} cannot be run in tiles: what it makes of a place depends on the whole picture.",
            hint="Ask for tiles=auto: the picture is run in one piece, at the model's scale.",
        )


def lay(length: int, *, tile: int, multiple_of: int, overlap: int | None = None) -> Axis:
    """Spread tiles evenly over a side. They start at multiples of `multiple_of`, where the strides of the network fall as in the whole."""

    def rounded_up(value: int) -> int:
        return value + (-value) % multiple_of

    tile, padded = rounded_up(tile), rounded_up(length)
    if padded <= tile:
        return Axis(length, padded, 0, (0,))
    overlap = min(rounded_up(tile // _OVERLAP if overlap is None else overlap), rounded_up(tile // 2), tile - multiple_of)
    count = -(-(padded - overlap) // (tile - overlap))
    starts = tuple((padded - tile) * index // (count - 1) // multiple_of * multiple_of for index in range(count))
    return Axis(length, tile, overlap, starts)


def cut(pixels: Bytes, grid: Grid, row: int, columns: Sequence[int], *, void: int) -> Bytes:
    """Tiles of one row as [N,h,w] or [N,h,w,3]; beyond the picture a photo's edge goes on, and a label map is void."""
    return np.stack([_tile(pixels, grid.rows, row, grid.columns, column, void=void) for column in columns])


class Mosaic:
    """Answers of tiles put together to answers of the size of the picture.

    Photos are blended. Ids cannot be, and come from the tile whose centre is nearest, with the confidence of that tile: it is the tile
    that sees most around the pixel, which how sure a tile is does not tell.
    """

    def __init__(self, grid: Grid, outputs: Sequence[TensorSpec]) -> None:
        self._grid = grid
        self._parts: dict[str, _Nearest | _Blended] = {
            output.name: _Blended(grid) if output.layout == "NHWC" else _Nearest(grid) for output in outputs
        }

    def add(self, row: int, columns: Sequence[int], found: Mapping[str, Bytes]) -> None:
        """Put a batch of tiles into its place; batches come in the order of the grid."""
        for name, part in self._parts.items():
            for column, tile in zip(columns, found[name], strict=True):
                part.add(row, column, tile)

    def answers(self) -> dict[str, Bytes]:
        """Output name -> [H,W] or [H,W,3], after the last tile."""
        return {name: part.whole for name, part in self._parts.items()}


class _Nearest:
    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.whole = np.empty((grid.rows.length, grid.columns.length), np.uint8)

    def add(self, row: int, column: int, tile: Bytes) -> None:
        rows, columns = self._grid.rows, self._grid.columns
        (top, bottom), (left, right) = rows.part(row), columns.part(column)
        y, x = rows.starts[row], columns.starts[column]
        self.whole[top:bottom, left:right] = tile[top - y : bottom - y, left - x : right - x]


class _Blended:
    """Keeps one row of tiles as floats; what no further row reaches is rounded into the whole."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.whole = np.empty((grid.rows.length, grid.columns.length, 3), np.uint8)
        self._strip = np.zeros((grid.rows.tile, grid.columns.starts[-1] + grid.columns.tile, 3), np.float32)

    def add(self, row: int, column: int, tile: Bytes) -> None:
        rows, columns = self._grid.rows, self._grid.columns
        window = rows.window(row)[:, None, None] * columns.window(column)[None, :, None]
        x = columns.starts[column]
        self._strip[:, x : x + columns.tile] += tile * window
        if column == len(columns.starts) - 1:
            self._end_row(row)

    def _end_row(self, row: int) -> None:
        rows = self._grid.rows
        start = rows.starts[row]
        end = rows.starts[row + 1] if row + 1 < len(rows.starts) else rows.length
        finished = end - start
        done = self._strip[:finished, : self._grid.columns.length]
        for first in range(0, finished, 64):  # in bands: the roundings of a whole strip would double it
            self.whole[start + first : min(start + first + 64, end)] = np.rint(done[first : first + 64])
        kept = max(0, rows.tile - finished)
        for first in range(0, kept, max(1, finished)):  # moved up in pieces that do not overlap
            size = min(finished, kept - first)
            self._strip[first : first + size] = self._strip[first + finished : first + finished + size]
        self._strip[kept:] = 0


def _tile(pixels: Bytes, rows: Axis, row: int, columns: Axis, column: int, *, void: int) -> Bytes:
    y, x = rows.starts[row], columns.starts[column]
    tile = pixels[y : y + rows.tile, x : x + columns.tile]
    missing = ((0, rows.tile - tile.shape[0]), (0, columns.tile - tile.shape[1]))
    if missing == ((0, 0), (0, 0)):
        return tile
    if tile.ndim == 3:
        return np.pad(tile, (*missing, (0, 0)), mode="edge")
    return np.pad(tile, missing, constant_values=void)
