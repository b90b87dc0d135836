"""Rare-class sampling of the semi-paired method: how likely each pair is drawn (Eskandar et al., section 2.3)."""

from collections.abc import Iterable

import numpy as np

from trainer.batch import IGNORE
from trainer.errors import UserError


def class_pixels(labels: Iterable[np.ndarray], count: int) -> np.ndarray:
    """How many pixels of each class each label map holds, Int64[N,count]; void is left out.

    labels: uint8[H,W] class indices or IGNORE, at the training resolution.
    """
    rows = [np.bincount(label[label != IGNORE].ravel(), minlength=count) for label in labels]
    return np.stack(rows).astype(np.int64) if rows else np.zeros((0, count), dtype=np.int64)


def class_shares(pixels: np.ndarray) -> np.ndarray:
    """Each class's share of the labelled pixels of all pairs, Float64[count]."""
    total = pixels.sum(0)
    return total / max(1, total.sum())


def sampling_probabilities(pixels: np.ndarray) -> np.ndarray:
    """p_i = p'_i / sum p', with p'_i = sum over the classes c in pair i of n_i^c / n^c, Float64[N] that sum to 1.

    Every class that occurs adds the same mass, spread over its pairs by how many of its pixels each holds; so pairs with a rare class are
    drawn more often. pixels: Int[N,count], see `class_pixels`. For draws with replacement in the first half of the training; uniform after.

    Raises UserError where no pair holds a labelled pixel.
    """
    total = pixels.sum(0)
    if not total.any():
        raise UserError(
            f"the {len(pixels)} pairs hold no labelled pixel: there is no class to sample by; label more pairs or sample evenly"
        )
    present = total > 0
    shares = (pixels[:, present] / total[present]).sum(1)
    return shares / shares.sum()
