"""Rare-class sampling: pairs with rare classes are drawn more often (Eskandar et al., section 2.3)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from trainer.batch import IGNORE, Phase
from trainer.data.dataset import Dataset, Sample
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
        weights = np.array(self.probabilities)
        return int(rng.choice(len(weights), p=weights / weights.sum()))


def sampling_weights(
    dataset: Dataset, pairs: Sequence[Sample], *, when: Phase, steps: int, size: tuple[int, int]
) -> SamplingWeights | None:
    """Count the pairs' classes at the training size and print what the sampling changes; None if it is not used."""
    half, classes = (steps + 1) // 2, dataset.label_domain.classes
    within = {
        "never": range(0),
        "first half": range(half),
        "second half": range(half, steps),
        "throughout": range(steps),
    }[when]
    if not within or not pairs or classes is None:
        return None

    def label(sample: Sample) -> np.ndarray:
        label = Image.fromarray(dataset.read_label(sample))
        return np.asarray(label.resize((size[1], size[0]), Image.Resampling.NEAREST))

    pixels = class_pixels(map(label, pairs), classes.count)
    probabilities = sampling_probabilities(pixels)
    print(summary(classes.names, pixels, probabilities, within=within, steps=steps), flush=True)
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


def summary(names: Sequence[str], pixels: np.ndarray, probabilities: np.ndarray, *, within: range, steps: int) -> str:
    """A table of the classes, the rarest first: shares of pairs, draws and pixels, without and with the sampling."""
    total, holders = pixels.sum(0), (pixels > 0).mean(0)
    drawn, drawn_pixels = probabilities @ (pixels > 0), probabilities @ pixels
    present = [index for index in np.argsort(total, kind="stable") if total[index]]
    lines = [
        f"Rare-class sampling in steps {within.start + 1} to {within.stop} of {steps}",
        f"  {'class':<20}{'pairs with it':>14}{'draws with it':>14}{'pixels':>10}{'drawn pixels':>14}",
    ]
    for index in present:
        shares = (holders[index], drawn[index], total[index] / total.sum(), drawn_pixels[index] / drawn_pixels.sum())
        cells = [f"{100 * share:.3g} %".rjust(width) for share, width in zip(shares, (14, 14, 10, 14), strict=True)]
        lines.append(f"  {names[index]:<20}{''.join(cells)}")
    absent = [name for name, count in zip(names, total, strict=True) if not count]
    return "\n".join([*lines, *([f"  in no pair: {', '.join(absent)}"] if absent else [])])
