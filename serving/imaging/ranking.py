"""Which photos to label next: those that stand for many photos of which a model is not sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NEAR = 0.2  # two photos are near-duplicates below this share of the mean distance between photos
_TIE = 1e-6  # what a photo's own distance counts: it decides between equals
_EQUAL = 1e-6  # above the rounding of distances between equal rows
_MOST = 4000  # rows that are compared with each other: of more, the least certain
Floats = NDArray[np.floating]


def rank(
    features: Floats, uncertainty: Floats, count: int, *, labelled: Sequence[int] = ()
) -> tuple[list[int], dict[int, int]]:
    """Choose up to `count` rows to label by features Float[N,D] and a model's uncertainty Float[N], 0 or more.

    Each is the row j that most reduces sum_i uncertainty_i distance(i, nearest chosen or labelled row) over the other
    rows i: the greedy solution of an uncertainty-weighted k-median (facility location, Wei et al. 2015) without j's own
    distance, which would outweigh the others in a small set, so that outliers came first. Photos that resemble none,
    those among photos of which the model is sure, and those like a chosen one reduce it little. Return the rows in
    order, and the near-duplicates, which are set aside: {row: the labelled or chosen row that it resembles}.
    """
    fresh = np.setdiff1d(np.arange(len(features)), labelled)
    rows = np.sort(fresh[np.argsort(-uncertainty[fresh], kind="stable")[:_MOST]])
    between, weights = distances(features[rows], features[rows]), uncertainty[rows] + 1e-9
    limit = max(_EQUAL, NEAR * between.sum() / max(1, len(rows) * (len(rows) - 1)))
    away = np.full(len(rows), between.max(initial=0) + 1)
    if len(labelled):
        away = distances(features[rows], features[list(labelled)]).min(1)
    chosen = list(labelled)
    while len(chosen) < count + len(labelled) and (away > limit).any():
        gain = weights @ np.maximum(0, away[:, None] - between) - weights * away * (1 - _TIE)
        pick = int(np.where(away > limit, gain, -1).argmax())
        chosen.append(int(rows[pick]))
        away = np.minimum(away, between[pick])
    owner = distances(features[rows], features[chosen]).argmin(1) if chosen else away
    near = {int(rows[at]): chosen[owner[at]] for at in np.flatnonzero(away <= limit) if rows[at] not in chosen}
    return chosen[len(labelled) :], near


def distances(left: Floats, right: Floats) -> Floats:
    """Euclidean distances: [A,D] and [B,D] -> Float64[A,B]."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))
