"""Partitioning around medoids over a table of distances."""

from collections.abc import Sequence

import numpy as np

BLOCK = 512
"""Candidates that are weighed at once."""


def k_medoids(distances: np.ndarray, k: int, *, start: Sequence[int]) -> list[int]:
    """The k medoids, ascending, with the least sum of distances Float[N,N] from a row to its nearest medoid that single swaps can reach.

    Two descents, one from the greedy build of Kaufman and Rousseeuw (1990) and one from `start`; the better end is returned, so that the
    result is never worse than `start`.
    """
    ends = [_swapped(distances, medoids) for medoids in (_built(distances, k), sorted(start))]
    return min(ends, key=lambda medoids: (cost(distances, medoids), medoids))


def cost(distances: np.ndarray, medoids: Sequence[int]) -> float:
    """The sum of the distances from each row to its nearest medoid."""
    return float(distances[list(medoids)].min(axis=0).sum(dtype=np.float64))


def _built(distances: np.ndarray, k: int) -> list[int]:
    """BUILD: the row with the least sum of distances, then always the one that lowers the sum most."""
    medoids = [int(np.argmin(distances.sum(axis=0, dtype=np.float64)))]
    nearest = distances[medoids[0]].copy()
    while len(medoids) < k:
        gains = np.concatenate(
            [
                np.maximum(nearest - distances[start : start + BLOCK], 0).sum(axis=1, dtype=np.float64)
                for start in range(0, len(distances), BLOCK)
            ]
        )
        gains[medoids] = -1
        medoids.append(int(np.argmax(gains)))
        nearest = np.minimum(nearest, distances[medoids[-1]])
    return sorted(medoids)


def _swapped(distances: np.ndarray, medoids: Sequence[int]) -> list[int]:
    """SWAP: the best exchange of one medoid for one other row, again and again until none lowers the sum."""
    current, best = list(medoids), cost(distances, medoids)
    while True:
        change, out, into = _best_swap(distances, current)
        candidate = sorted([*current[:out], *current[out + 1 :], into])
        reached = cost(distances, candidate)
        if change >= 0 or reached >= best:  # the second: rounding alone must not make it go in circles
            return current
        current, best = candidate, reached


def _best_swap(distances: np.ndarray, medoids: Sequence[int]) -> tuple[float, int, int]:
    """(change of the sum, place of the medoid that leaves, row that enters) of the best exchange.

    All k exchanges of a candidate at once, as FastPAM1 does (Schubert and Rousseeuw 2019, section 3.1): a row j whose nearest medoid stays
    gains min(d(j,c) - nearest_j, 0); one whose nearest medoid leaves goes to the candidate or to its second nearest.
    """
    to_medoids = distances[list(medoids)]
    owner = to_medoids.argmin(axis=0)
    ordered = np.sort(to_medoids, axis=0)
    nearest = ordered[0]
    second = ordered[1] if len(medoids) > 1 else np.full_like(nearest, np.inf)
    owned = np.zeros((len(owner), len(medoids)))
    owned[np.arange(len(owner)), owner] = 1
    best = (0.0, 0, int(medoids[0]))
    for start in range(0, len(distances), BLOCK):
        to_candidates = distances[start : start + BLOCK]
        gain = np.minimum(to_candidates - nearest, 0)
        moved = np.minimum(to_candidates, second) - nearest - gain
        changes = gain.sum(axis=1, dtype=np.float64)[:, None] + moved.astype(np.float64) @ owned
        place = np.unravel_index(int(np.argmin(changes)), changes.shape)
        if changes[place] < best[0]:
            best = (float(changes[place]), int(place[1]), start + int(place[0]))
    return best
