"""Evaluating again: what stays of the evaluation before, and what is set aside instead of being lost."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.trainer.test_evaluate import BY_LIGHT, COLOURS, PROVENANCE, ByLight, Threshold, little_dataset
from trainer.batch import LabelMap, Photo
from trainer.methods.base import Method
from trainer.metrics.distribution import Extractor
from trainer.metrics.record import Evaluation, evaluate_and_record


class Darker(Threshold):
    """Other weights: other photos."""

    def to_photo(self, label: LabelMap | Photo, noise: torch.Tensor | None = None) -> Photo:
        return super().to_photo(label, noise) - 0.1


def evaluated(folder: Path, method: Method | None = None, *, step: int = 80, **witnesses: Any) -> Evaluation:
    about = dataclasses.replace(PROVENANCE, step=step)
    return evaluate_and_record(method or Threshold(), little_dataset(), folder=folder, provenance=about, train_samples=(), **witnesses)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_what_is_not_asked_for_again_stays_with_its_maker_and_its_cautions_and_is_said(tmp_path: Path) -> None:
    first = evaluated(tmp_path, judge=BY_LIGHT, features=COLOURS)
    before = read(first.path)
    again = evaluated(tmp_path)
    assert read(again.path) == before
    assert again.figures == first.figures
    assert again.cautions == first.cautions != ()
    assert again.notes == (
        "the figures of --judge by-light are those of the evaluation before, of the same photos",
        "the figures of --features colours are those of the evaluation before, of the same photos",
    )
    assert first.notes == ()
    assert not (tmp_path / "former").exists()


def test_a_judge_and_an_extractor_may_come_one_after_the_other(tmp_path: Path) -> None:
    together = evaluated(tmp_path / "together", judge=BY_LIGHT, features=COLOURS)
    evaluated(tmp_path / "apart", judge=BY_LIGHT)
    apart = evaluated(tmp_path / "apart", features=COLOURS)
    assert apart.figures == together.figures
    assert read(apart.path) == read(together.path)


def test_other_photos_take_nothing_over_and_the_former_evaluation_is_set_aside(tmp_path: Path) -> None:
    for number, changed in enumerate(({"method": Darker()}, {"step": 90}), 1):
        folder = tmp_path / str(number)
        before = read(evaluated(folder, judge=BY_LIGHT).path)
        now = evaluated(folder, **changed)
        assert not any(name.startswith("judge_") for name in now.figures)
        assert read(now.path)["photo_judge"] is None
        aside = folder / "former" / "val-best-averaged-1.json"
        assert read(aside) == before
        assert any(str(aside) in note for note in now.notes)
        assert sorted(folder.glob("*.json")) == [now.path]


def test_another_judge_takes_the_place_of_the_former_one_whose_file_is_set_aside(tmp_path: Path) -> None:
    class Dark(ByLight):
        def label(self, photo: np.ndarray) -> np.ndarray:
            return np.zeros(photo.shape[:2], np.uint8)

    dark = Dark()
    dark.name, dark.sha256 = "dark", "ef56"
    first = evaluated(tmp_path, judge=BY_LIGHT, features=COLOURS)
    second = evaluated(tmp_path, judge=dark)
    assert read(second.path)["photo_judge"] == {"name": "dark", "sha256": "ef56"}
    assert second.figures["judge_mean_iou"] != first.figures["judge_mean_iou"]
    assert second.figures["fid[colours]"] == first.figures["fid[colours]"]
    third = evaluated(tmp_path, judge=BY_LIGHT)
    names = [read(path)["photo_judge"]["name"] for path in sorted((tmp_path / "former").iterdir())]
    assert names == ["by-light", "dark"]
    assert third.figures == first.figures


def test_another_extractor_s_figures_do_not_mix_with_the_former_one_s(tmp_path: Path) -> None:
    evaluated(tmp_path, features=COLOURS)
    other = evaluated(tmp_path, features=Extractor("shades", COLOURS.of_pictures, "0101"))
    assert {name for name in other.figures if "[" in name} == {f"{name}[shades]" for name in ("fid", "kid", "precision", "recall")}
    assert "fid[colours]" in read(tmp_path / "former" / "val-best-averaged-1.json")["figures"]


def test_the_same_judge_again_or_none_before_sets_nothing_aside(tmp_path: Path) -> None:
    evaluated(tmp_path)
    evaluated(tmp_path, Darker())
    evaluated(tmp_path, Darker(), judge=BY_LIGHT)
    assert evaluated(tmp_path, Darker(), judge=BY_LIGHT).notes == ()
    assert not (tmp_path / "former").exists()


def test_a_file_from_before_the_parts_had_cautions_of_their_own_is_taken_over_too(tmp_path: Path) -> None:
    first = evaluated(tmp_path, judge=BY_LIGHT, features=COLOURS)
    older = read(first.path)
    del older["distribution"]["cautions"], older["diversity"], older["perceptual_diversity"]
    first.path.write_text(json.dumps(older))
    again = evaluated(tmp_path)
    assert again.figures == first.figures
    assert again.cautions == first.cautions


def test_a_file_that_is_no_evaluation_is_replaced(tmp_path: Path) -> None:
    for content in ("{", "[]", "{}"):
        (tmp_path / "val-best-averaged.json").write_text(content)
        assert "figures" in read(evaluated(tmp_path).path)
