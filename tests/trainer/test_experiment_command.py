"""`fewpair experiment` by the command line: what it refuses before anything is trained."""

import re

import pytest

from tests.trainer.extractors import write_extractor
from tests.trainer.papers import small_file, small_material
from tests.trainer.test_experiment_runs import Inline
from trainer.__main__ import main
from trainer.experiment import page, runner

JUDGED = '{ heading = "FCN", figure = "judge_mean_iou" }'
COMPARED = '{ heading = "FID", figure = "fid*" }'


@pytest.mark.parametrize(
    ("metric", "words", "said"),
    [
        (JUDGED, [], "small judges photos by a segmenter: give one with --judge"),
        (JUDGED, ["--judge", "nowhere.onnx"], "--judge nowhere.onnx: there is no such judge"),
        (COMPARED, [], "small compares sets of photos: give a feature extractor with --features"),
        (COMPARED, ["--features", "nowhere.onnx"], "--features nowhere.onnx: there is no such file"),
        (COMPARED, ["--features", "README.md"], "--features README.md: neither weights of Inception (.pth) nor an extractor (.onnx)"),
    ],
)
def test_a_judge_or_an_extractor_that_cannot_be_used_is_refused_before_training(metric, words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "spawn", lambda *_, **__: pytest.fail("a run was begun"))
    path, material = small_file(tmp_path, "none"), small_material(tmp_path)
    path.write_text(re.sub(r"metrics = .*", f"metrics = [{metric}]", path.read_text()).replace('["0.1", "0.1"]', '["0.1"]'))
    assert main(["experiment", str(path), "--root", str(material.root), "--out", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_who_asks_what_is_missing_is_told_first_that_photos_are_looked_at(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "spawn", lambda *_, **__: pytest.fail("a run was begun"))
    path, material = small_file(tmp_path, "one"), small_material(tmp_path)
    path.write_text(path.read_text().replace('rule = "random"', 'rule = "kcenter"'))
    extractor = write_extractor(tmp_path / "extractor.onnx")
    asked = ["experiment", str(path), "--root", str(material.root), "--out", str(tmp_path / "out"), "--dry-run", "--device", "cpu"]
    assert main([*asked, "--features", str(extractor)]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = next(place for place, line in enumerate(lines) if line.startswith("looking at the photos of folders in "))
    assert any("one" in line and "missing" in line for line in lines[told + 1 :])


def test_runs_on_another_dataset_than_the_setting_s_are_told_as_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "spawn", Inline)
    monkeypatch.setattr(page, "draw", lambda *_: [])  # a second of work, and not what this is about
    path, material = small_file(tmp_path, "one"), small_material(tmp_path)
    path.write_text(path.read_text().replace('data = "folders"', 'data = "camvid"'))
    out = tmp_path / "out"
    assert main(["experiment", str(path), "--data", "folders", "--root", str(material.root), "--out", str(out), "--device", "cpu"]) == 0
    assert "(setting `compact`): folders, " in (out / "small.md").read_text()
    report = ["report", str(path), "--results", str(out / "small.jsonl"), "--out"]
    assert main([*report, str(tmp_path / "told"), "--data", "folders"]) == 0
    assert (tmp_path / "told" / "small.md").read_text() == (out / "small.md").read_text()
    assert main([*report, str(tmp_path / "not told")]) == 0
    assert "Not run: one." in (tmp_path / "not told" / "small.md").read_text()
