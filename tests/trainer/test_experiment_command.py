"""`fewpair experiment` by the command line: what it refuses before anything is trained."""

import re

import pytest

from tests.trainer.extractors import write_extractor
from tests.trainer.papers import small_file, small_material
from tests.trainer.test_experiment_runs import Inline
from trainer import progress
from trainer.__main__ import main
from trainer.commands import experiment
from trainer.data import features
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


def test_a_dry_run_looks_at_no_photo_and_says_what_would_be_looked_at(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "spawn", lambda *_, **__: pytest.fail("a run was begun"))
    path, material = small_file(tmp_path, "one", "two"), small_material(tmp_path)
    path.write_text(path.read_text().replace('rule = "random"', 'rule = "kcenter"', 1))
    extractor, cache = write_extractor(tmp_path / "extractor.onnx"), tmp_path / "out" / "features"
    asked = ["experiment", str(path), "--root", str(material.root), "--out", str(tmp_path / "out"), "--dry-run"]
    asked += ["--features", str(extractor)]
    with monkeypatch.context() as blind:
        blind.setattr(features.FeatureSource, "_run", lambda *_: pytest.fail("features were computed"))
        assert main(asked) == 0
        told = capsys.readouterr().out
        assert re.search(r"two +supervised +2 \+ 4 +4 steps: 1 missing", told)
        assert re.search(rf"not told: one\. .* extractor-\w{{8}} looks first at up to 4 photos of folders in .* kept in {cache}", told)
        assert not (tmp_path / "out").exists()

        samples = [sample for sample in material.dataset.samples("train") if sample.photo is not None]
        blind.undo()
        features.open_features(extractor).features(material.dataset, samples, cache=cache, progress=False)
        kept = {each: each.stat().st_mtime_ns for each in cache.iterdir()}
        with cache.joinpath(next(iter(kept)).name).open("ab") as half_written:
            half_written.write(b"half a record")
        blind.setattr(features.FeatureSource, "_run", lambda *_: pytest.fail("features were computed"))
        length = next(iter(kept)).stat().st_size
        assert main(asked) == 0
        told = capsys.readouterr().out
        assert re.search(r"one +supervised +1 \+ 4 +4 steps: 1 missing", told)
        assert "not told" not in told
        assert next(iter(kept)).stat().st_size == length, "it was mended by one who only asked"


def test_photos_are_looked_at_before_the_first_run_and_that_is_told(tmp_path, monkeypatch, capsys):
    begun = []
    monkeypatch.setattr(experiment, "run_missing", lambda trials, plan: begun.extend(trials) or runner.Outcome())
    monkeypatch.setattr(progress, "FIRST", 0.0)
    path, material = small_file(tmp_path, "one"), small_material(tmp_path)
    path.write_text(path.read_text().replace('rule = "random"', 'rule = "kcenter"'))
    extractor = write_extractor(tmp_path / "extractor.onnx")
    asked = ["experiment", str(path), "--root", str(material.root), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*asked, "--features", str(extractor)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    told = next(place for place, line in enumerate(lines) if line.startswith("looking at the photos of folders in "))
    assert any("one" in line and "missing" in line for line in lines[told + 1 :])
    assert said.err.splitlines() == ["features: 4 of 4 photos, about 0 s left", "features: 4 of 4 photos, done"]
    assert [trial.selection.rule for trial in begun] == ["kcenter"]


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
