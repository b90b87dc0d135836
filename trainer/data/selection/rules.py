"""Rules that select k of N photos by their features Float32[N,D], and how well a selection covers the set."""

from collections.abc import Callable, Sequence

import numpy as np

from serving.imaging.ranking import distances
from trainer.batch import random
from trainer.errors import UserError

SAME = 1e-5
"""Two photos count as one if their features are no farther apart than this share of the longest feature vector."""
NEIGHBOURS = 20
"""The rows whose distances say how dense the features are around a row."""
BLOCK = 4096
"""The rows whose distances to all others are in memory at a time."""


def kmeans_medoid(features: np.ndarray, k: int, seed: int, *, labelled: Sequence[int] = ()) -> list[int]:
    """Return the medoid of each of k clusters (hybrid paper, section 3.2), first the one that is nearest to most rows.

    `labelled` rows come first and count; the others are the medoids of the largest clusters that hold none of them
    (TypiClust, Hacohen et al. 2022, section 3). The same features give the same picks on one machine: one thread adds
    in one order.
    """
    clusters = _clusters(features, k, seed, labelled)
    medoids = sorted(int(rows[medoid(features[rows])]) for rows in clusters)
    if labelled:
        return [*labelled, *medoids]
    sizes = np.bincount(nearest(features, medoids)[0], minlength=k)
    return [medoids[place] for place in np.argsort(-sizes, kind="stable")]


def typical(features: np.ndarray, k: int, seed: int, *, labelled: Sequence[int] = ()) -> list[int]:
    """Return the densest row of each of k clusters, the largest cluster first (TypiClust, Hacohen et al. 2022).

    Typicality is the inverse of the mean distance to the 20 nearest rows of its cluster (section 3). `labelled`
    rows come first and count.
    """
    clusters = _clusters(features, k, seed, labelled)
    picks = (_least(features[rows], lambda away: np.sort(away, axis=1)[:, : NEIGHBOURS + 1]) for rows in clusters)
    return [*labelled, *(int(rows[pick]) for rows, pick in zip(clusters, picks, strict=True))]


def _clusters(features: np.ndarray, k: int, seed: int, labelled: Sequence[int]) -> list[np.ndarray]:
    """The rows of the clusters to pick from: the largest without a labelled row, of k clusters."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    kcenter(features, k, seed)  # refuses copies
    with threadpool_limits(limits=1):
        labels = KMeans(k, n_init=4, random_state=seed % 2**32).fit_predict(features)
    clusters = [np.flatnonzero(labels == cluster) for cluster in range(k) if cluster not in labels[list(labelled)]]
    return sorted(clusters, key=len, reverse=True)[: k - len(labelled)]


def kcenter(features: np.ndarray, k: int, seed: int, *, labelled: Sequence[int] = ()) -> list[int]:
    """Return the row nearest the mean, then repeatedly the farthest from all picks (greedy k-center, Gonzalez 1985).

    The largest distance is at most twice the least possible. `labelled` rows come first and count. The seed has no
    influence. Raises UserError where fewer than k rows differ.
    """
    chosen = list(labelled) or [int(np.argmin(_distance_to(features, features.mean(0, dtype=np.float64))))]
    away = distances(features, features[chosen]).min(1)
    same = SAME * max(1e-30, float(np.linalg.norm(features, axis=1).max()))
    while len(chosen) < k:
        farthest = int(np.argmax(away))
        if away[farthest] <= same:
            raise UserError(
                f"{k} photos were requested, but only {len(chosen)} of the {len(features)} differ (the others have "
                f"the same features as one of these): request at most {len(chosen)}, or add photos that differ"
            )
        chosen.append(farthest)
        away = np.minimum(away, _distance_to(features, features[farthest]))
    return chosen


BY_FEATURES: dict[str, Callable[..., list[int]]] = {
    "kmeans-medoid": kmeans_medoid,
    "kcenter": kcenter,
    "typical": typical,
}
RULES = ("random", *BY_FEATURES)
"""What `--rule` and `--pool-rule` accept. Of equal rows the first is picked; rows are sorted by the photos' names."""


def medoid(rows: np.ndarray) -> int:
    """The index of the row with the least mean distance to the others."""
    return _least(rows, lambda away: away)


def _least(rows: np.ndarray, counted: Callable[[np.ndarray], np.ndarray]) -> int:
    """The row with the least sum of the distances that count, Float64[A,N] -> [A,K]; computed in blocks of rows."""
    blocks = (distances(rows[start : start + BLOCK], rows) for start in range(0, len(rows), BLOCK))
    return int(np.concatenate([counted(block).sum(1) for block in blocks]).argmin())


def nearest(features: np.ndarray, picks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """For each row the rank of its nearest pick, int[N], and its distance to it, Float64[N]."""
    between = distances(features, features[list(picks)])
    between[list(picks), np.arange(len(picks))] = -1  # a pick represents itself, even among copies
    return between.argmin(1), np.maximum(between.min(1), 0)


def coverage(features: np.ndarray, picks: Sequence[int]) -> float:
    """The mean distance from a row to its nearest pick: lower is better."""
    return float(nearest(features, picks)[1].mean())


def random_coverage(features: np.ndarray, k: int, *, draws: int) -> list[float]:
    """The coverage of random selections of k rows, in ascending order."""
    selections = [random(draw, 0, "coverage").permutation(len(features))[:k] for draw in range(draws)]
    return sorted(coverage(features, selection.tolist()) for selection in selections)


def _distance_to(features: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Every row's distance to one, Float64[N]; equal rows have exactly 0."""
    return np.asarray(np.linalg.norm(features.astype(np.float64) - row, axis=1))
