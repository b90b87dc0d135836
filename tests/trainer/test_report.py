"""report.html, what it says to do next, and cross-validation where no photos were set aside."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.trainer.factories import tiny_folder, tiny_run
from trainer.__main__ import main
from trainer.commands.session import start
from trainer.data.catalogue import open_dataset
from trainer.data.selection.choose import select
from trainer.metrics import quick
from trainer.report.advice import advice
from trainer.run import Run
from trainer.training.checkpointing import RunDir


def trained(path: Path, root: Path, *, seed: int = 0, pairs: int = 3) -> RunDir:
    """A short run of a small segmenter on picture files."""
    run = tiny_run("mean_teacher", data="folders", root=str(root), steps=4, evaluate_every=2, seed=seed, pairs=pairs)
    dataset = open_dataset("folders", root)
    return start(path, run, dataset, select(dataset, k=pairs, unpaired=None, seed=seed), device="cpu")


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))


def test_the_report_of_a_run_and_of_two_is_one_file_with_pictures_curves_figures_and_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny_folder(tmp_path / "mine")
    one, two = trained(tmp_path / "one", root), trained(tmp_path / "two", root, seed=5)
    for folder in (one, two):
        assert main(["evaluate", str(folder.path), "--device", "cpu"]) == 0
    assert f"and {one.path / 'report.html'}" in capsys.readouterr().out
    assert main(["report", str(one.path), str(two.path)]) == 0
    alone, both = (one.path / "report.html").read_text(), (one.path / "report-two.html").read_text()
    for page, runs in ((alone, 1), (both, 2)):
        assert len(page) < 3_000_000
        assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*', page) == []  # all that a browser loads is in the file
        assert not re.search(r"<script|@import|<link|url\((?!#)", page)
        assert page.count("data:image/webp") == runs * 4  # two sample grids, the evaluation's, the labelled photos
        assert page.count("<svg") == 2
        text = words(page)
        for expected in (
            "losses of the segmenter",
            "figures on val",
            "mean IoU",
            "Confusion",
            "on mine",
            "3 pairs, 3 other photos, 3 other label maps",
            "test_efficientnet",
        ):
            assert expected in text, expected
    assert re.findall(r"<tr class=differs><th>(seed|method|lr)<", both) == ["seed"]
    assert "class=differs" not in alone
    record = json.loads(next(one.evaluations.glob("val*.json")).read_text())
    confusion = np.array(record["confusion"])
    assert confusion.shape == (11, 11)
    for index, iou in enumerate(record["figures"]["per_class_iou"].values()):
        union = confusion[index].sum() + confusion[:, index].sum() - confusion[index, index]
        assert iou is None or iou == pytest.approx(confusion[index, index] / union)


def test_only_one_table_is_reported_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "s0-t1", "s0-t2", "--results", "results.jsonl"]) == 2
    assert "name one table" in capsys.readouterr().err


def run_of(**changes: object) -> Run:
    return dataclasses.replace(tiny_run("mean_teacher", steps=100), **changes)


def test_what_to_do_next_follows_from_the_figures() -> None:
    rising = [{"step": step, "val/mean_iou": value} for step, value in ((30, 0.3), (60, 0.4), (100, 0.5))]
    fallen = [{"step": step, "val/mean_iou": value} for step, value in ((30, 0.5), (60, 0.45), (100, 0.4))]
    pixels = pd.DataFrame({"road": [900, 900, 900, 900], "bus": [0, 0, 0, 40], "pole": [30] * 4, "van": [90] * 4})
    record = {
        "size": [32, 48],
        "figures": {"per_class_iou": {"road": 0.9, "bus": 0.1, "pole": 0.2, "van": 0.25}},
        "iou_at_size": {"road": 1.0, "bus": 0.95, "pole": 0.4, "van": 0.9},
        "confusion": [[90, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 6, 0, 4]],
        "photos_of_classes": {"bus": ["seven", "nine"]},
        "split": "val",
    }
    crossed = {"split": "cross-validation in 4 folds", "figures": {"per_class_iou": {"road": 0.9, "bus": 0, "pole": 0}}}
    crossed["confusion"] = [[90, 0, 0], [2, 0, 0], [2, 0, 0]]
    own = record | {"split": "train", "figures": record["figures"] | {"seen_in_training": 4}}
    assert advice(run_of(), [], [crossed, own], pixels) == [
        "bus, IoU 0.00 in the cross-validation: 0.97 % of the labelled pixels, in 1 of 4 photos: label these photos "
        "next: seven, nine.",
        "pole, IoU 0.00 in the cross-validation: 100 % of it is taken for road: label both by one rule.",
        "Keep some labelled photos apart, in val/: these were seen in training.",
    ]
    assert advice(run_of(), rising, [record], pixels) == [
        "mean IoU on val is still rising, 0.400 to 0.500: train longer, --steps 200.",
        "bus, IoU 0.10: 0.97 % of the labelled pixels, in 1 of 4 photos: label these photos next: seven, nine.",
        "pole, IoU 0.20: too small, as perfect label maps of 32x48 have 0.40: train at a larger --size.",
        "van, IoU 0.25: 60 % of it is taken for bus: label both by one rule.",
    ]
    assert advice(run_of(recipe="judge"), [], [], pixels)[0].startswith("The run had 100 steps, its recipe has 2400")
    assert advice(run_of(), fallen, [], pixels) == [
        "mean IoU on val fell from 0.500 at step 30 to 0.400: label more photos, or stop there.",
        "Measure the run with fewpair evaluate.",
    ]


def test_without_val_evaluate_cross_validates_on_the_pairs_and_marks_figures_of_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_folder(tmp_path / "mine")
    shutil.rmtree(root / "val")
    folder = trained(tmp_path / "run", root)
    monkeypatch.setattr(quick, "STEPS", 3)
    found = []
    for _ in range(2):
        assert main(["evaluate", str(folder.path), "--device", "cpu"]) == 0
        found.append((folder.evaluations / "cross-validation.json").read_bytes())
    assert found[0] == found[1]
    record = json.loads(found[0])
    assert record["split"] == "cross-validation in 3 folds of the pairs"
    labelled = sum(48 * 64 for _ in range(3))
    assert np.sum(record["confusion"]) == labelled  # each pair is predicted once
    said = capsys.readouterr().out
    assert "cross-validation: 3 small segmenters, each trained without a part of the pairs" in said
    assert re.search(r"this run \(seen in training\) +cross validation", said)
    page = words((folder.path / "report.html").read_text())
    assert page.index("cross-validation in 3 folds") < page.index("photos seen in training")


def test_photos_that_are_moved_to_val_after_the_training_count_as_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny_folder(tmp_path / "mine")
    folder = trained(tmp_path / "run", root)
    shutil.rmtree(root / "val")
    name = folder.selection(folder.dataset()).pairs[0].name
    for file in (f"photos/{name}.jpg", f"labels/{name}.png"):
        (root / "val" / file).parent.mkdir(parents=True)
        (root / "train" / file).rename(root / "val" / file)
    assert main(["evaluate", str(folder.path), "--device", "cpu", "--split", "val"]) == 0
    assert "1 of 1 evaluated photos were seen in training (1 as pairs)" in capsys.readouterr().out
    record = json.loads((folder.evaluations / "val-best-averaged.json").read_text())
    assert (record["pairs"], record["figures"]["seen_in_training"]) == (3, 1)


def test_a_run_is_not_read_with_another_class_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny_folder(tmp_path / "mine")
    folder = trained(tmp_path / "run", root)
    table = root / "classes.csv"
    first, *rows = table.read_text().splitlines()
    table.write_text("\n".join([first, *reversed(rows)]) + "\n")
    for words in (["evaluate"], ["export", "--force"], ["train", "--resume"]):
        assert main([*words, str(folder.path)]) == 2
        assert "was trained with another class table: put " in capsys.readouterr().err
    shutil.copy(folder.path / "classes.csv", table)
    assert main(["evaluate", str(folder.path), "--device", "cpu"]) == 0
