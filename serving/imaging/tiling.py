"""Large pictures in overlapping tiles: lay the grid, cut the tiles, and join their outputs without seams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.imaging.decode import Bytes

Tiles = Literal["auto", "never", "always"]
BATCH_PIXELS = 2**20  # of the tiles that run together
_OVERLAP = 4  # a tile shares a quarter of its sides with each neighbour
_MOST_AT_ONCE = 16


@dataclass(frozen=True)
class Axis:
    """The tiles along one side of a picture."""

    length: int  # of the picture
    tile: int
    overlap: int  # the least; tiles are spread evenly and may share more
    starts: tuple[int, ...]

    @property
    def cuts(self) -> tuple[int, ...]:
        """The middle of each overlap, where the nearest centre changes from one tile to the next."""
        return tuple((start + self.tile + following) // 2 for start, following in pairwise(self.starts))

    def part(self, index: int) -> tuple[int, int]:
        """Return the range in the picture in which the tile's centre is the nearest."""
        borders = (0, *self.cuts, self.length)
        return borders[index], borders[index + 1]

    def window(self, index: int) -> NDArray[np.float32]:
        """Return the weights of the tile, Float[tile] in [0,1]. The windows of all tiles add up to 1 at every pixel.

        Weights change within the middle half of an overlap, so that the outermost pixels of a tile, which lack context,
        have weight 0.
        """
        at = self.starts[index] + np.arange(self.tile, dtype=np.float32) + np.float32(0.5)
        borders = (-np.inf, *self.cuts, np.inf)[index : index + 2]
        rise, fall = (np.clip((at - cut) / max(1, self.overlap // 2) + np.float32(0.5), 0, 1) for cut in borders)
        return np.asarray(rise * (1 - fall))


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
        """Yield (row, columns) of the tiles that are run together."""
        size = min(_MOST_AT_ONCE, max(1, BATCH_PIXELS // (self.rows.tile * self.columns.tile)))
        across = range(len(self.columns.starts))
        for row in range(len(self.rows.starts)):
            for first in range(0, len(across), size):
                yield row, across[first : first + size]

    def cut(self, pixels: Bytes, row: int, columns: Sequence[int]) -> Bytes:
        """Return tiles of one row of a picture that is padded to `multiple_of`, as [N,h,w] or [N,h,w,3]."""
        y = self.rows.starts[row]
        strip = pixels[y : y + self.rows.tile]
        return np.stack([strip[:, x : x + self.columns.tile] for x in (self.columns.starts[one] for one in columns)])


def lay(length: int, *, tile: int, multiple_of: int, overlap: int | None = None) -> Axis:
    """Spread tiles evenly over a side, at multiples of `multiple_of`, which keeps the strides aligned."""

    def rounded_up(value: int) -> int:
        return value + (-value) % multiple_of

    tile, padded = rounded_up(tile), rounded_up(length)
    if padded <= tile:
        return Axis(length, padded, 0, (0,))
    wanted = rounded_up(tile // _OVERLAP if overlap is None else overlap)
    overlap = min(wanted, rounded_up(tile // 2), tile - multiple_of)
    count = -(-(padded - overlap) // (tile - overlap))
    starts = tuple((padded - tile) * index // (count - 1) // multiple_of * multiple_of for index in range(count))
    return Axis(length, tile, overlap, starts)


class Mosaic:
    """Join the outputs of tiles to outputs of the size of the picture.

    Photos are blended: one row of tiles is kept as floats, and rounded where no later row reaches. Ids and confidence
    come from the tile whose centre is nearest, which has the most context around the pixel.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._strips: dict[str, NDArray[np.float32]] = {}
        self.answers: dict[str, Bytes] = {}  # output name -> [H,W] or [H,W,3], complete after the last tile

    def add(self, row: int, columns: Sequence[int], found: Mapping[str, Bytes]) -> None:
        """Add the outputs of a batch of tiles, in the order of the grid."""
        shape = (self._grid.rows.length, self._grid.columns.length)
        for name, tiles in found.items():
            if name not in self.answers:
                self.answers[name] = np.empty((*shape, *tiles.shape[3:]), np.uint8)
            for column, tile in zip(columns, tiles, strict=True):
                if tile.ndim == 3:
                    self._blend(name, row, column, tile)
                else:
                    self._paste(name, row, column, tile)

    def _paste(self, name: str, row: int, column: int, tile: Bytes) -> None:
        rows, columns = self._grid.rows, self._grid.columns
        (top, bottom), (left, right) = rows.part(row), columns.part(column)
        y, x = rows.starts[row], columns.starts[column]
        self.answers[name][top:bottom, left:right] = tile[top - y : bottom - y, left - x : right - x]

    def _blend(self, name: str, row: int, column: int, tile: Bytes) -> None:
        rows, columns = self._grid.rows, self._grid.columns
        if name not in self._strips:
            self._strips[name] = np.zeros((rows.tile, columns.starts[-1] + columns.tile, 3), np.float32)
        strip, x = self._strips[name], columns.starts[column]
        window = rows.window(row)[:, None, None] * columns.window(column)[None, :, None]
        strip[:, x : x + columns.tile] += tile * window
        if column < len(columns.starts) - 1:
            return
        start, end = (*rows.starts, rows.length)[row : row + 2]
        done, rest = strip[: end - start, : columns.length], strip[end - start :]
        self.answers[name][start:end] = np.rint(done, out=done)
        strip[: len(rest)] = rest
        strip[len(rest) :] = 0
