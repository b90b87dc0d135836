"""Labels that are probably wrong: regions are ranked, and `fewpair check --with RUN` lists them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.folders import TINY
from trainer.__main__ import main
from trainer.batch import IGNORE
from trainer.data.class_table import class_rows
from trainer.data.synthetic import scenes
from trainer.metrics.suspects import Region, regions, suspects

WHOLE = np.ones((1, 1), bool)


def test_regions_are_connected_pixels_of_a_class_with_the_mean_prediction():
    label = np.full((4, 8), IGNORE, np.uint8)
    label[:2, :2], label[:2, 4:], label[3] = 1, 1, 0
    probabilities = np.zeros((2, 2, 4), np.float32)
    probabilities[1, 0] = [0.25, 0.5, 0.75, 1]
    found = list(regions(7, label, probabilities))
    assert [(region.place, region.label, region.box) for region in found] == [
        (7, 0, (0, 0.75, 1, 1)),
        (7, 1, (0, 0, 0.25, 0.5)),
        (7, 1, (0.5, 0, 1, 0.5)),
    ]
    assert [region.predicted[1] for region in found] == pytest.approx([0, 0.25, 0.875])


def test_a_prediction_is_suspicious_unless_the_model_makes_it_for_the_whole_class():
    sky, road, pole = range(3)
    seen = {sky: [0.9, 0.05, 0.05], road: [0.05, 0.9, 0.05], pole: [0.8, 0.1, 0.1]}  # poles are taken for sky
    found = [
        Region(0, 1, (0, 0, 1, 1), WHOLE, each, np.array(seen[each])) for each in (sky, road, pole) for _ in range(20)
    ]
    wrong = Region(1, 1, (0, 0, 1, 1), WHOLE, road, np.array(seen[sky]))
    (only,) = suspects([*found, wrong])
    assert only.region is wrong
    assert only.likelier == sky


def test_a_folder_without_regions_has_no_suspects():
    assert suspects([]) == []


def drawn(root: Path, *, count: int) -> Path:
    """Scenes as photos and label maps; in the first the sky is labelled as road."""
    ids = scenes.CLASSES.index_to_id()
    names = list(scenes.CLASSES.names)
    for index in range(count):
        photo, label = scenes.draw(index, height=96, width=128, split="train")
        if index == 0:
            label = np.where(label == names.index("sky"), names.index("road"), label).astype(np.uint8)
        for folder, picture in (("photos", photo), ("labels", ids[label])):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / folder / f"{index}.png")
    (root / "classes.csv").write_text(class_rows(scenes.CLASSES))
    return root


def test_check_with_a_run_finds_a_wrong_label_that_the_run_learned_from(capsys, tmp_path):
    root, run, sheet = drawn(tmp_path / "mine", count=12), tmp_path / "run", tmp_path / "sheet.png"
    words = ["train", "supervised-compact", "--data", "folders", "--root", str(root), "--pairs", "12"]
    assert main([*words, "--unpaired", "0", "--steps", "1", *TINY, "--out", str(run)]) == 0
    assert main(["check", str(root), "--with", str(run), "--out", str(sheet)]) == 0
    said = capsys.readouterr().out
    assert "learned from these labels: two small segmenters judge them" in said
    assert re.search(r"\n   1  labels/0.png  x \d+ to \d+, y 0 to \d+: road, the model says \w+\n", said)
    with Image.open(sheet) as picture:
        assert picture.width > 3 * 320


def test_check_with_a_run_that_did_not_see_the_labels_uses_the_run(capsys, tmp_path):
    root, run = drawn(tmp_path / "mine", count=3), tmp_path / "run"
    words = ["train", "supervised-compact", "--data", "scenes", "--pairs", "2", "--unpaired", "0", "--steps", "1"]
    assert main([*words, *TINY, "--out", str(run)]) == 0
    assert main(["check", str(root), "--with", str(run)]) == 0
    said = capsys.readouterr().out
    assert "learned from" not in said
    assert "probably labelled wrongly" in said
