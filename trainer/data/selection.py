"""The rules that choose k photos by their features, and how well a choice covers the set: pure functions over Float32[N,D]."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.batch import random
from trainer.data.kmeans import LARGE, k_means
from trainer.data.pam import k_medoids
from trainer.errors import UserError
from trainer.progress import told

PAM_LIMIT = 16_000
"""The largest set for `pam`: it holds every distance between two photos at once, 1 GB here."""
BLOCK = 2048
"""Rows that are compared at once: what keeps the memory fixed."""
SAME = 1e-5
"""Two photos count as one where their features are no farther apart than this share of the longest feature vector."""
RECHECKED, CLOSE = 256, 1e-4
"""How many rows, at most this share above the least mean distance in single precision, are compared anew in double precision."""


@dataclass(frozen=True)
class Picks:
    """The k rows that were chosen, and for every row the rank 0..k-1 of the pick that stands for it."""

    indices: tuple[int, ...]
    stands_for: np.ndarray
    """int[N]"""

    @property
    def cluster_sizes(self) -> tuple[int, ...]:
        """How many rows each pick stands for, itself among them; they add up to N."""
        return tuple(np.bincount(self.stands_for, minlength=len(self.indices)).tolist())


class TooFewDistinct(UserError):
    """A set holds fewer photos that differ than are to be chosen."""

    def __init__(self, k: int, *, distinct: int, photos: int, option: str = "--pairs") -> None:
        self.counts = {"distinct": distinct, "photos": photos}
        self.k = k
        super().__init__(
            f"{option} {k} asks for more than the {distinct} distinct photos among {photos} (the others have the same features as one "
            f"of these): ask for at most {distinct}, or add photos that differ"
        )

    def asked_by(self, option: str) -> "TooFewDistinct":
        """The same in the words of the option that asked for them."""
        return TooFewDistinct(self.k, **self.counts, option=option)


Rule = Callable[[np.ndarray, int, int], Picks]
"""(features Float32[N,D], k, seed) -> the picks. Of rows that serve equally well the first is taken; rows come in the order of names."""


def kmeans_medoid(features: np.ndarray, k: int, seed: int) -> Picks:
    """The hybrid paper's rule: k-means with k clusters, and of each the medoid (section 3.2), largest cluster first."""
    _refuse(features, k)
    labels = np.zeros(len(features), dtype=np.int64) if k == 1 else k_means(features, k, random(seed, 0, "k-means"))
    members = [np.flatnonzero(labels == cluster) for cluster in range(k)]
    counted = told(members, what="medoids", unit="cluster", shown=len(features) >= LARGE)
    picks = [int(rows[medoid(features, rows)]) for rows in counted]
    order = sorted(range(k), key=lambda cluster: (-len(members[cluster]), picks[cluster]))
    return Picks(tuple(picks[cluster] for cluster in order), np.argsort(order)[labels])


def kcenter(features: np.ndarray, k: int, seed: int) -> Picks:
    """Greedy k-center (Gonzalez 1985), in the order of choice: the row nearest the mean, then always the one farthest from all chosen.

    The seed decides nothing. The largest distance from a row to its pick is at most twice the least possible.
    """
    _refuse(features, k)
    chosen, _ = _farthest_first(features, k)
    return Picks(tuple(chosen), nearest(features, chosen)[0])


def pam(features: np.ndarray, k: int, seed: int) -> Picks:
    """k-medoids: the k rows with the least mean distance from a row to its nearest pick that single swaps can reach, largest cluster first.

    Partitioning around medoids (Kaufman and Rousseeuw 1990), from its own greedy start and from the picks of `kmeans_medoid`; the better
    end counts. Raises UserError above PAM_LIMIT rows.
    """
    _refuse(features, k)
    if len(features) > PAM_LIMIT:
        raise UserError(
            f"--rule pam compares every photo with every other: {len(features)} photos are more than the {PAM_LIMIT} it can hold; "
            f"take --rule kmeans-medoid, or --unpaired {PAM_LIMIT} for a pool of that size first"
        )
    table = _all_distances(features)
    medoids = k_medoids(table, k, start=kmeans_medoid(features, k, seed).indices)
    labels = np.argmin(table[medoids], axis=0)
    labels[medoids] = np.arange(k)
    sizes = np.bincount(labels, minlength=k)
    order = sorted(range(k), key=lambda cluster: (-sizes[cluster], medoids[cluster]))
    return Picks(tuple(medoids[cluster] for cluster in order), np.argsort(order)[labels])


RULES: dict[str, Rule] = {"kmeans-medoid": kmeans_medoid, "kcenter": kcenter, "pam": pam}
"""The rules that look at features; `random` is the one that does not."""


def medoid(features: np.ndarray, rows: np.ndarray) -> int:
    """The place in `rows` of the row with the least mean distance to the others; the first of equals.

    All pairs are compared, in blocks: time M^2, memory fixed. Those that single precision cannot tell from the best are compared in double.
    """
    if len(rows) < 3:
        return 0
    centre = features[rows[:: max(1, len(rows) // BLOCK)]].mean(axis=0)
    blocks = [slice(start, min(start + BLOCK, len(rows))) for start in range(0, len(rows), BLOCK)]
    sums = np.zeros(len(rows))
    for place, across in enumerate(blocks):
        left = features[rows[across]] - centre
        for down in blocks[place:]:
            between = distances(left, left if down == across else features[rows[down]] - centre)
            if down == across:
                np.fill_diagonal(between, 0)
                sums[across] += between.sum(axis=1, dtype=np.float64)
            else:
                sums[across] += between.sum(axis=1, dtype=np.float64)
                sums[down] += between.sum(axis=0, dtype=np.float64)
    close = np.flatnonzero(sums <= sums.min() * (1 + CLOSE))
    close = np.sort(close[np.argsort(sums[close], kind="stable")[:RECHECKED]])
    exact = [sum(float(_to_one(features[rows[block]], features[rows[place]]).sum()) for block in blocks) for place in close]
    return int(close[int(np.argmin(exact))])


def nearest(features: np.ndarray, picks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """For each row the rank of its nearest pick, int[N], and how far that is, Float64[N]. A pick stands for itself."""
    ranks = np.empty(len(features), dtype=np.int64)
    away = np.empty(len(features))
    chosen = features[list(picks)].astype(np.float64)
    for start in range(0, len(features), BLOCK):
        between = distances(features[start : start + BLOCK].astype(np.float64), chosen)
        ranks[start : start + BLOCK] = between.argmin(axis=1)
        away[start : start + BLOCK] = between.min(axis=1)
    ranks[list(picks)] = np.arange(len(picks))
    away[list(picks)] = 0
    return ranks, away


def coverage(features: np.ndarray, picks: Sequence[int]) -> float:
    """How well the picks cover the set: the mean distance from a row to the nearest pick. Less is better."""
    return float(nearest(features, picks)[1].mean())


def random_coverage(features: np.ndarray, k: int, *, draws: int = 20) -> list[float]:
    """The coverage of `draws` random choices of k rows, in ascending order."""
    choices = [random(draw, 0, "coverage").permutation(len(features))[:k] for draw in range(draws)]
    return sorted(coverage(features, choice.tolist()) for choice in choices)


def distinct(features: np.ndarray, k: int) -> list[int]:
    """Up to k rows no two of which are the same; fewer than k where the set holds no more."""
    return _farthest_first(features, k)[0]


def _refuse(features: np.ndarray, k: int) -> None:
    if not 1 <= k <= len(features):
        raise ValueError(f"{k} picks of {len(features)} rows")
    found = len(distinct(features, k))
    if found < k:
        raise TooFewDistinct(k, distinct=found, photos=len(features))


def _farthest_first(features: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
    """Up to k rows, each the farthest from those before it, until what is left repeats them; and every row's distance to the nearest."""
    chosen = [int(np.argmin(_to_one_of_all(features, features.mean(axis=0, dtype=np.float64))))]
    same = SAME * max(1e-30, float(max(np.linalg.norm(features[at : at + BLOCK], axis=1).max() for at in range(0, len(features), BLOCK))))
    away = _to_one_of_all(features, features[chosen[0]])
    while len(chosen) < k:
        farthest = int(np.argmax(away))
        if away[farthest] <= same:
            break
        chosen.append(farthest)
        away = np.minimum(away, _to_one_of_all(features, features[farthest]))
    return chosen, away


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Euclidean, [A,D] and [B,D] -> [A,B], in the precision of what is given."""
    squares = left @ right.T
    squares *= -2
    squares += np.einsum("ij,ij->i", left, left)[:, None]
    squares += np.einsum("ij,ij->i", right, right)[None]
    return np.sqrt(np.maximum(squares, 0, out=squares), out=squares)


def _all_distances(features: np.ndarray) -> np.ndarray:
    """Float32[N,N]."""
    centred = features - features.mean(axis=0)
    table = np.empty((len(features), len(features)), np.float32)
    for start in range(0, len(features), BLOCK):
        table[start : start + BLOCK] = distances(centred[start : start + BLOCK], centred)
    np.fill_diagonal(table, 0)
    return table


def _to_one(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The distance of each of few rows to one, by their differences in double precision: equal rows are at exactly 0. Float64[M]"""
    difference = rows.astype(np.float64) - row
    return np.sqrt(np.einsum("ij,ij->i", difference, difference))


def _to_one_of_all(features: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The same for all rows, block by block. Float64[N]"""
    return np.concatenate([_to_one(features[start : start + BLOCK], row) for start in range(0, len(features), BLOCK)])
