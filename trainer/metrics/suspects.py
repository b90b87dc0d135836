"""Labelled regions that are probably wrong, by the predictions of a model that did not learn from them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from trainer.batch import IGNORE
from trainer.data.dataset import resized

SIDE, SMALLEST = 512, 1e-3
"""Label maps are read at this many pixels a side at most; smaller regions, as a share of the picture, are left out."""
LEAST = 1.0
"""The log odds from which a region is suspicious."""


class Region(NamedTuple):
    """Pixels of one class that touch along an edge."""

    place: int
    """Of its sample among those that are checked."""
    share: float
    """Of the picture."""
    box: tuple[float, float, float, float]
    """left, top, right, bottom as shares of the picture."""
    mask: np.ndarray
    """bool[h,w]: its pixels within the box, at the scale at which the map was read."""
    label: int
    predicted: np.ndarray
    """Float[C]: the mean over its pixels of the model's probabilities."""


class Suspect(NamedTuple):
    """A region and what the model takes it for."""

    score: float
    region: Region
    likelier: int


def regions(place: int, label: np.ndarray, probabilities: np.ndarray) -> Iterator[Region]:
    """The regions of a label map uint8[H,W] with the mean of the probabilities Float32[C,h,w] of any other size."""
    scale = min(1, SIDE / max(label.shape))
    label = resized(label, [max(1, round(side * scale)) for side in label.shape])
    height, width = label.shape
    rows, columns = (np.arange(n) * m // n for n, m in zip(label.shape, probabilities.shape[1:], strict=True))
    for index in np.setdiff1d(label, [IGNORE]).tolist():
        numbers, _ = ndimage.label(label == index)
        for number, box in enumerate(ndimage.find_objects(numbers), 1):
            inside = numbers[box] == number
            share = float(inside.sum()) / label.size
            if share >= SMALLEST:
                predicted = probabilities[:, rows[box[0]]][:, :, columns[box[1]]][:, inside].mean(1)
                (top, bottom), (left, right) = ((side.start, side.stop) for side in box)
                corners = (left / width, top / height, right / width, bottom / height)
                yield Region(place, share, corners, inside, index, predicted)


def suspects(found: Sequence[Region]) -> list[Suspect]:
    """The regions for which another class is likelier than the label, the most suspicious first.

    The model's errors are taken into account: with T[c] the mean prediction for regions labelled c and p the region's
    own, the log odds are max_c' 1/2 log P(c') + sum_d p_d log T[c',d] minus the same for the label. A pole that the
    model takes for the wall behind it, as it does with most poles, is not suspicious. Odds weigh by the region's share
    of its picture to the power of .2; powers of it and of the prior were chosen on CamVid (docs/results/check.md).
    """
    if not found:
        return []
    labels, predicted = np.array([region.label for region in found]), np.stack([region.predicted for region in found])
    count, own = predicted.shape[1], (np.arange(len(labels)), labels)
    sums = np.stack([predicted[labels == index].sum(0) for index in range(count)]) + 1 / count
    prior = np.log((np.bincount(labels, minlength=count) + 1) / (len(labels) + count))
    likelihood = predicted @ np.log(sums / sums.sum(1, keepdims=True)).T + prior / 2
    odds = likelihood.max(1) - likelihood[own]
    scores = odds * np.array([region.share for region in found]) ** 0.2
    predicted[own] = 0
    return [
        Suspect(float(scores[row]), found[row], int(predicted[row].argmax()))
        for row in np.argsort(-scores, kind="stable")
        if odds[row] > LEAST
    ]
