"""Rare-class sampling of the semi-paired method: how likely each pair is drawn (Eskandar et al., section 2.3)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from trainer.batch import IGNORE, Stretch
from trainer.errors import UserError


@dataclass(frozen=True)
class Likelihood:
    """How likely each pair is drawn, with replacement, in a stretch of the steps; outside of it each has its turn once an epoch."""

    probabilities: tuple[float, ...]
    """One a pair, in the order of the pairs; they sum to 1. A pair with 0 is never drawn."""
    steps: range
    """The training steps, counted from 0 and the same for all processes, in which pairs are drawn so."""

    def __post_init__(self) -> None:
        total = sum(self.probabilities)
        if not (abs(total - 1) < 1e-6 and min(self.probabilities) >= 0):
            raise ValueError(
                f"probabilities that sum to {total}, the least {min(self.probabilities, default=None)}: give none below 0, and 1 in all"
            )

    def places(self, numbers: np.random.Generator) -> Iterator[int]:
        """The place of a drawn pair; then of those that stand in for it one after another, each drawn from the others by probability."""
        weights = np.array(self.probabilities)
        while weights.any():
            place = int(numbers.choice(len(weights), p=weights / weights.sum()))
            yield place
            weights[place] = 0


@dataclass(frozen=True, eq=False)
class Census:
    """What the pairs hold of each class, and how often a draw by rare classes will meet it."""

    classes: tuple[str, ...]
    """The names of the C classes, by index."""
    names: tuple[str, ...]
    """The names of the N pairs."""
    pixels: np.ndarray
    """Int64[N,C] at the training resolution, see `class_pixels`; zeros where a pair is broken."""
    broken: tuple[str, ...] = ()
    """Why each of the pairs that cannot be read is broken."""

    @property
    def readable(self) -> int:
        """How many of the pairs are not broken, and so have their turn where pairs are drawn evenly."""
        return len(self.names) - len(self.broken)

    @property
    def probabilities(self) -> np.ndarray:
        """Float64[N], see `sampling_probabilities`."""
        return sampling_probabilities(self.pixels)

    @property
    def holders(self) -> np.ndarray:
        """In how many pairs each class occurs, Int64[C]."""
        return np.count_nonzero(self.pixels, axis=0)

    @property
    def draw_shares(self) -> np.ndarray:
        """The share of the draws whose pair holds each class, Float64[C]; a crop shows less of it."""
        return self.probabilities @ (self.pixels > 0)

    @property
    def drawn_pixel_shares(self) -> np.ndarray:
        """Each class's share of the labelled pixels of all draws, as expected, Float64[C]."""
        drawn = self.probabilities @ self.pixels
        return drawn / drawn.sum()


def stretch_of(when: Stretch, steps: int) -> range:
    """The steps, counted from 0, of a training of `steps` steps; an odd one belongs to the first half."""
    half = (steps + 1) // 2
    return {"never": range(0), "first half": range(half), "second half": range(half, steps), "throughout": range(steps)}[when]


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
