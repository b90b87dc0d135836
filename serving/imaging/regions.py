"""Connected regions of a label map: their areas, boxes and outlines along the pixels' edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from serving.imaging.decode import Bytes
from serving.imaging.domain import ClassRow, Domain

MOST_EDGES = 250_000  # more is noise: outlines of a million edges take 15 seconds and gigabytes
Mask = NDArray[np.bool_]
Points = NDArray[np.int64]  # [n,2]: x and y of pixel corners; the picture spans 0..width and 0..height


@dataclass(frozen=True)
class Region:
    """Pixels of one class that touch along an edge."""

    row: ClassRow
    area: int  # pixels, without the holes
    box: tuple[int, int, int, int]  # x, y, width, height
    outline: Points  # one closed ring without its last point; a cut of no width joins each hole to it


def regions(ids: Bytes, domain: Domain, *, min_area: int) -> list[Region] | None:
    """Return the regions of at least `min_area` pixels, largest first, without void; None where the map is too
    fragmented.

    `ids` is uint8[H,W]. Regions are 4-connected, so that no outline crosses itself; the areas of a class add up to its
    pixels.
    """
    small, xs, ys = _without_repeats(ids)
    if np.count_nonzero(small[1:] != small[:-1]) + np.count_nonzero(small[:, 1:] != small[:, :-1]) > MOST_EDGES:
        return None
    found = [
        region
        for row in domain.classes
        if not row.ignore
        for region in _of_class(small == row.id, row, xs=xs, ys=ys, min_area=min_area)
    ]
    return sorted(found, key=lambda region: (-region.area, region.box))


def _without_repeats(ids: Bytes) -> tuple[Bytes, Points, Points]:
    """Return the map without rows and columns that equal the one before, and where the remaining ones begin.

    Nothing is lost: a label map that was enlarged from a model's scale returns to that scale.
    """
    ys = np.flatnonzero(np.concatenate(([True], (ids[1:] != ids[:-1]).any(axis=1), [True])))
    xs = np.flatnonzero(np.concatenate(([True], (ids[:, 1:] != ids[:, :-1]).any(axis=0), [True])))
    return ids[ys[:-1]][:, xs[:-1]], xs, ys


def _of_class(mask: Mask, row: ClassRow, *, xs: Points, ys: Points, min_area: int) -> Iterator[Region]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return
    top, left = rows[0], columns[0]
    mask = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    xs, ys = xs[left:], ys[top:]
    corners, starts, outer = _rings(mask)
    if len(outer) < len(starts):
        holes = np.setdiff1d(np.arange(len(starts)), outer)
        ends = np.append(starts[1:], len(corners))
        mask, inserted = _cut_open(mask, [_topmost(corners[starts[hole] : ends[hole]]) for hole in holes])
        xs = np.insert(xs, inserted, xs[inserted])
        corners, starts, outer = _rings(mask)
    ring = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(corners)))
    corners = np.stack([xs[corners[:, 0]], ys[corners[:, 1]]], axis=1)
    low, high = np.minimum.reduceat(corners, starts), np.maximum.reduceat(corners, starts)
    onward = _shifted(corners, starts, 1)
    areas = np.abs(np.add.reduceat(corners[:, 0] * onward[:, 1] - onward[:, 0] * corners[:, 1], starts)) // 2
    kept = areas >= min_area
    for chosen, outline in zip(np.flatnonzero(kept), _outlines(corners, ring, keep=kept), strict=True):
        x, y = low[chosen]
        width, height = high[chosen] - low[chosen]
        yield Region(row, int(areas[chosen]), (int(x), int(y), int(width), int(height)), outline)


def _rings(mask: Mask) -> tuple[Points, Points, Points]:
    """The outlines of a mask [H+2,W+2] whose border is empty: corners [n,2], where each ring starts, which rings are
    outer ones.

    Marching squares pass each pixel edge between inside and outside once, in the order of the outline; which edge it
    was can be read from the point on it, and where the direction changes is a corner. At 0.75 pixels that touch only by
    a corner are kept apart.
    """
    generator = contour_generator(z=mask.astype(float), name="serial", fill_type=FillType.ChunkCombinedOffsetOffset)
    chunks: Any = generator.filled(0.75, 2.0)
    points, offsets, outer = (parts[0] for parts in chunks)  # of the one chunk, which is the whole mask
    whole = np.floor(points).astype(np.int64)
    upright = points[:, 0] != whole[:, 0]  # the point lies on an upright pixel edge
    turns = upright[:-1] != upright[1:]
    turns[offsets[1:-1].astype(np.int64) - 1] = False  # from the last point of a ring to the first of the next
    here = np.flatnonzero(turns)
    from_upright = upright[here]
    xs = np.where(from_upright, whole[here, 0], whole[here + 1, 0])
    ys = np.where(from_upright, whole[here + 1, 1], whole[here, 1])
    starts = np.searchsorted(here, offsets[:-1].astype(np.int64))
    return np.stack([xs, ys], axis=1), starts, outer[:-1].astype(np.int64)


def _topmost(hole: Points) -> tuple[int, int]:
    """x and y of the left end of a hole's highest edge."""
    highest = hole[hole[:, 1] == hole[:, 1].min()]
    return int(highest[:, 0].min()), int(highest[0, 1])


def _cut_open(mask: Mask, tops: list[tuple[int, int]]) -> tuple[Mask, Points]:
    """The mask with a cut from each hole up to the nearest outside, in columns that are inserted and get no width.

    Every cut ends at something that begins higher up, so the cuts form no cycle and split no region.
    """
    inserted = np.unique([x for x, _ in tops])
    wide = np.insert(mask, inserted + 1, mask[:, inserted + 1], axis=1)
    for x, y in tops:
        solid = mask[: y + 1, x] & mask[: y + 1, x + 1]
        above = int(np.flatnonzero(~solid)[-1])
        wide[above + 1 : y + 1, x + 1 + int(np.searchsorted(inserted, x))] = False
    return wide, inserted


def _outlines(corners: Points, ring: Points, *, keep: Mask) -> list[Points]:
    """The kept rings without repeated corners and those on a straight line; where a ring turns back, it stays."""
    corners, ring = corners[keep[ring]], ring[keep[ring]]
    if not len(ring):
        return []
    onward = _shifted(corners, _starts(ring), 1)
    moves = (corners != onward).any(axis=1)
    corners, ring = corners[moves], ring[moves]
    onward = np.sign(_shifted(corners, _starts(ring), 1) - corners)
    turns = (onward != _shifted(onward, _starts(ring), -1)).any(axis=1)
    corners, ring = corners[turns], ring[turns]
    return np.split(corners, _starts(ring)[1:])


def _starts(ring: Points) -> Points:
    return np.flatnonzero(np.diff(ring, prepend=-1))


def _shifted(values: Points, starts: Points, step: Literal[1, -1]) -> Points:
    """Each row's successor in its ring (1), or the row before it (-1)."""
    ends = np.append(starts[1:], len(values)) - 1
    shifted = np.roll(values, -step, axis=0)
    shifted[ends if step == 1 else starts] = values[starts if step == 1 else ends]
    return shifted
