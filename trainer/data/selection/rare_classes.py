"""Rare-class sampling: pairs with rare classes are drawn more often (Eskandar et al., section 2.3)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.batch import IGNORE, Phase
from trainer.data.dataset import Dataset, Sample, resized
from trainer.errors import UserError


@dataclass(frozen=True)
class SamplingWeights:
    """The probability of each pair in a range of training steps; outside of it every pair is drawn once an epoch."""

    probabilities: tuple[float, ...]
    """In the order of the pairs; their sum is 1."""
    steps: range
    """Counted from 0, the same for all processes."""

    def draw(self, rng: np.random.Generator) -> int:
        """The index of a pair, drawn by probability."""
        return int(rng.choice(len(self.probabilities), p=self.probabilities))


def sampling_weights(
    dataset: Dataset, pairs: Sequence[Sample], *, when: Phase, steps: int, size: tuple[int, int]
) -> SamplingWeights | None:
    """Count the pairs' classes at the training size; None if the sampling is not used."""
    classes = dataset.label_domain.classes
    within = range({"never": 0, "first half": (steps + 1) // 2, "throughout": steps}[when])
    if not within or not pairs or classes is None:
        return None

    labels = (resized(dataset.read_label(sample), size) for sample in pairs)
    probabilities = sampling_probabilities(class_pixels(labels, classes.count))
    print(f"Rare-class sampling in steps 1 to {within.stop} of {steps}", flush=True)
    return SamplingWeights(tuple(probabilities.tolist()), within)


def class_pixels(labels: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Pixels of each class in each label map uint8[H,W], without void: Int64[N,count]."""
    return np.stack([np.bincount(label[label != IGNORE].ravel(), minlength=count) for label in labels]).astype(np.int64)


def sampling_probabilities(pixels: np.ndarray) -> np.ndarray:
    """p_i = p'_i / sum p', with p'_i = sum over the classes c of n_i^c / n^c: Float64[N] from Int[N,count].

    Every class that occurs has the same probability, shared by its pairs in proportion to their pixels of it.
    """
    total = pixels.sum(0)
    if not total.any():
        raise UserError(
            f"the {len(pixels)} pairs hold no labelled pixel, so there is no class to sample by: label more pairs"
        )
    shares = (pixels[:, total > 0] / total[total > 0]).sum(1)
    return shares / shares.sum()
