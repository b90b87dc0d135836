"""Rare-class sampling: the paper's formula on examples done by hand."""

import numpy as np
import pytest

from trainer.batch import IGNORE
from trainer.data.rare_classes import class_pixels, class_shares, sampling_probabilities
from trainer.errors import UserError


def test_pixels_are_counted_by_class_without_void() -> None:
    one = np.array([[0, 0, 2], [IGNORE, 2, 2]], dtype=np.uint8)
    other = np.full((2, 3), IGNORE, dtype=np.uint8)
    pixels = class_pixels([one, other], 4)
    assert pixels.tolist() == [[2, 0, 3, 0], [0, 0, 0, 0]]
    assert class_shares(pixels).tolist() == [0.4, 0, 0.6, 0]
    assert class_pixels([], 4).shape == (0, 4)


def test_every_class_that_occurs_has_the_same_mass_and_the_probabilities_sum_to_one() -> None:
    # class 0 everywhere alike, class 1 absent, class 2 in the last pair only
    pixels = np.array([[90, 0, 0], [90, 0, 0], [90, 0, 1]])
    probabilities = sampling_probabilities(pixels)
    assert probabilities == pytest.approx([1 / 6, 1 / 6, (1 / 3 + 1) / 2])
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 50, (20, 7)) * (generator.random((20, 7)) < 0.4)
    drawn[:, 3] = 0
    probabilities = sampling_probabilities(drawn)
    slow = [sum(row[c] / drawn[:, c].sum() for c in range(7) if drawn[:, c].sum() and row[c]) for row in drawn]
    assert probabilities == pytest.approx(np.array(slow) / 6)  # six classes occur
    assert probabilities.sum() == pytest.approx(1)


def test_pairs_without_a_labelled_pixel_cannot_be_sampled_by_class() -> None:
    with pytest.raises(UserError, match="2 pairs hold no labelled pixel"):
        sampling_probabilities(np.zeros((2, 3), dtype=np.int64))
