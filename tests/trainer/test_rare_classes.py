"""Rare-class sampling: the paper's formula on small examples, what is printed, and when it ends."""

from pathlib import Path

import numpy as np
import pytest

from tests.trainer.factories import material_for, tiny_folder, tiny_run
from trainer.batch import IGNORE
from trainer.data.selection.rare_classes import class_pixels, sampling_probabilities
from trainer.errors import UserError
from trainer.methods.segmentation import Supervised
from trainer.training.batches import make_loader
from trainer.training.checkpointing import build_method


def test_pixels_are_counted_by_class_without_void() -> None:
    one = np.array([[0, 0, 2], [IGNORE, 2, 2]], dtype=np.uint8)
    other = np.full((2, 3), IGNORE, dtype=np.uint8)
    assert class_pixels([one, other], 4).tolist() == [[2, 0, 3, 0], [0, 0, 0, 0]]


def test_every_class_that_occurs_has_the_same_mass_and_the_probabilities_sum_to_one() -> None:
    # class 0 everywhere alike, class 1 absent, class 2 in the last pair only
    probabilities = sampling_probabilities(np.array([[90, 0, 0], [90, 0, 0], [90, 0, 1]]))
    assert probabilities == pytest.approx([1 / 6, 1 / 6, (1 / 3 + 1) / 2])
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 50, (20, 7)) * (generator.random((20, 7)) < 0.4)
    pixels[:, 3] = 0
    slow = [sum(row[c] / pixels[:, c].sum() for c in range(7) if pixels[:, c].sum() and row[c]) for row in pixels]
    assert sampling_probabilities(pixels) == pytest.approx(np.array(slow) / 6)  # six classes occur
    with pytest.raises(UserError, match="2 pairs hold no labelled pixel"):
        sampling_probabilities(np.zeros((2, 3), dtype=np.int64))


def test_a_run_says_what_the_sampling_that_its_method_asks_for_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Supervised, "rare_classes", "first half")
    run = tiny_run("supervised", data="folders", root=str(tiny_folder(tmp_path / "data")), steps=5, pairs=4)
    dataset, selection = material_for(run)
    method = build_method(run, dataset.label_domain)
    assert make_loader(run, method, dataset, selection).weights.steps == range(3)
    assert "Rare-class sampling in steps 1 to 3 of 5" in capsys.readouterr().out
