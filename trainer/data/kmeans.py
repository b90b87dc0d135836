"""k-means in fixed memory: Lloyd's algorithm over blocks of rows, the same answer for the same seed."""

import numpy as np

from trainer.progress import told

BLOCK = 2048
"""Rows that are looked at together."""
STARTS = 10
"""How often it begins anew; the tightest result counts."""
ROUNDS = 300
"""After so many rounds a start is taken as it is."""
STILL = 1e-4
"""A start ends when its centres move less than this share of the mean variance of a dimension, all together and squared."""
LARGE = 20_000
"""From so many rows on it takes minutes, and says how far it is."""


def k_means(features: np.ndarray, k: int, numbers: np.random.Generator) -> np.ndarray:
    """The cluster int[N] of each row of Float32[N,D], none of them empty where N holds k distinct rows.

    Lloyd 1982 from 10 starts by greedy k-means++ (Arthur and Vassilvitskii 2007); that with the least sum of squared distances counts.
    Unlike scikit-learn's KMeans (1.9) it copies nothing of the size of the features, and its sums run in one order, so that the threads of
    a machine decide nothing.
    """
    squares = np.concatenate([np.einsum("ij,ij->i", rows, rows, dtype=np.float64) for rows in _blocks(features)])
    still = STILL * _variance(features)
    best: tuple[float, np.ndarray] | None = None
    for _ in told(range(STARTS), what=f"k-means, {k} clusters", unit="start", shown=len(features) >= LARGE):
        labels, inertia = lloyd(features, squares, _plus_plus(features, squares, k, numbers), still=still)
        if best is None or inertia < best[0]:
            best = inertia, labels
    assert best is not None
    return best[1]


def lloyd(features: np.ndarray, squares: np.ndarray, centres: np.ndarray, *, still: float) -> tuple[np.ndarray, float]:
    """The cluster int[N] of each row and the sum of squared distances to the centres, from given centres Float32[k,D].

    `squares` Float64[N] are the rows' squared lengths. A cluster that lost its last row takes the row that is farthest from its centre.
    """
    labels = np.full(len(features), -1)
    for _ in range(ROUNDS):
        before, (labels, away) = labels, _nearest(features, squares, centres)
        counts = np.bincount(labels, minlength=len(centres))
        for empty in np.flatnonzero(counts == 0):
            farthest = int(np.argmax(np.where(counts[labels] > 1, away, -1)))
            counts[labels[farthest]] -= 1
            labels[farthest], away[farthest], counts[empty] = empty, 0, 1
        moved = _means(features, labels, counts)
        shift = float(((moved - centres) ** 2).sum(dtype=np.float64))
        if np.array_equal(labels, before):
            break
        centres = moved
        if shift <= still:
            break
    return labels, float(away.sum())


def _plus_plus(features: np.ndarray, squares: np.ndarray, k: int, numbers: np.random.Generator) -> np.ndarray:
    """Each centre is a row drawn with a probability that grows with its squared distance to those before; of some draws the best."""
    trials = 2 + int(np.log(k))
    centres = [features[int(numbers.integers(len(features)))]]
    away = _squared(features, squares, np.stack(centres))[:, 0]
    while len(centres) < k:
        mass = np.cumsum(away)
        drawn = np.minimum(np.searchsorted(mass, numbers.random(trials) * mass[-1]), len(features) - 1)
        left = np.minimum(away[:, None], _squared(features, squares, features[drawn]))
        chosen = int(np.argmin(left.sum(axis=0)))
        centres.append(features[drawn[chosen]])
        away = left[:, chosen]
    return np.stack(centres)


def _nearest(features: np.ndarray, squares: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre int[N] of each row, and the squared distance Float64[N]."""
    labels, away = np.empty(len(features), dtype=np.int64), np.empty(len(features))
    for place, rows in enumerate(_blocks(features)):
        here = slice(place * BLOCK, place * BLOCK + BLOCK)
        squared = _squared(rows, squares[here], centres)
        labels[here], away[here] = squared.argmin(axis=1), squared.min(axis=1)
    return labels, away


def _squared(rows: np.ndarray, squares: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances Float64[B,k] of rows of the squared lengths `squares`."""
    products = (rows @ centres.T).astype(np.float64)
    products *= -2
    products += squares[:, None]
    products += np.einsum("ij,ij->i", centres, centres, dtype=np.float64)
    return np.maximum(products, 0, out=products)


def _means(features: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Float32[k,D]"""
    sums = np.zeros((len(counts), features.shape[1]))
    for place, rows in enumerate(_blocks(features)):
        member = labels[place * BLOCK : place * BLOCK + BLOCK] == np.arange(len(counts))[:, None]
        sums += member.astype(np.float32) @ rows
    return (sums / counts[:, None]).astype(np.float32)


def _variance(features: np.ndarray) -> float:
    """The mean variance of a dimension."""
    mean = features.mean(axis=0, dtype=np.float64)
    return float(sum(((rows - mean) ** 2).sum() for rows in _blocks(features)) / features.size)


def _blocks(features: np.ndarray) -> list[np.ndarray]:
    return [features[start : start + BLOCK] for start in range(0, len(features), BLOCK)]
