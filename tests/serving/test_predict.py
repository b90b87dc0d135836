"""`predict` over files and folders, here and through a server."""

import asyncio
import re

import numpy as np
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as raised

from serving.asked import SegmentOptions, SynthesizeOptions
from serving.batch import Picture
from serving.errors import Refusal
from serving.operations import Operations
from serving.predict import predict
from serving.settings import Settings
from serving.shelf import fill
from serving.translator import ExportedModel
from tests.serving.factory import write_blurring_model
from tests.serving.pictures import file_of, noise, pixels_of, ramp, stripes
from tests.serving.process import launch
from tests.serving.test_translator import brightness_ids


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "street.jpg").write_bytes(file_of(ramp(), "JPEG", quality=100))
    (folder / "deep" / "er" / "other.png").write_bytes(file_of(noise()))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_becomes_a_folder_of_label_maps_with_the_same_sub_folders(models, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict([str(models / "tiny"), str(photos), "--out", str(out), "--direction", "to_label", "--output", "ids"]) == 0
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["deep/er/other.png", "street.png"]
    assert np.array_equal(pixels_of((out / "deep/er/other.png").read_bytes()), brightness_ids(noise()))
    assert "2 of 2 files" in capsys.readouterr().out


def test_a_broken_file_is_reported_at_the_end_and_the_rest_goes_on(models, photos, tmp_path, capsys):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    assert predict(["labels-only", str(photos), "--models", str(models), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "2 of 3 files" in said.out
    assert "broken.png: the uploaded" in said.err
    assert (tmp_path / "out" / "street.png").is_file()


@pytest.mark.parametrize(
    "failure", [MemoryError(), raised.Fail("bad"), raised.RuntimeException("no memory"), RuntimeError("std::bad_alloc")]
)
def test_a_file_the_model_cannot_be_run_on_is_reported_at_the_end_and_the_rest_goes_on(
    models, photos, tmp_path, capsys, monkeypatch, failure
):
    run = ExportedModel.to_label

    def run_the_small_ones(model, photo):
        if len(photo) == 100:
            raise failure
        return run(model, photo)

    (photos / "large.png").write_bytes(file_of(noise(100, 30)))
    monkeypatch.setattr(ExportedModel, "to_label", run_the_small_ones)
    assert predict(["labels-only", str(photos), "--models", str(models), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "2 of 3 files" in said.out
    assert f"{photos / 'large.png'}: the model could not be run on it: {type(failure).__name__}" in said.err
    assert (tmp_path / "out" / "street.png").is_file()


def test_label_maps_become_photos_and_the_seed_decides(models, tmp_path):
    label = tmp_path / "label.png"
    label.write_bytes(file_of(stripes()))
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        options = ["--direction", "to_photo", "--seed", seed, "--format", "png", "--out", str(tmp_path / name)]
        assert predict([str(models / "tiny"), str(label), *options]) == 0
    a, b, c = ((tmp_path / name / "label.png").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("seed", ["-1", "1.5", "4294967296", "x"])
def test_a_seed_outside_the_range_is_refused(models, photos, tmp_path, capsys, seed):
    with pytest.raises(SystemExit, match="2"):
        predict([str(models / "tiny"), str(photos), "--out", str(tmp_path / "out"), f"--seed={seed}"])
    assert f"{seed} is no whole number from 0 to 4294967295" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--opacity", "1.5"), ("--opacity", "nan"), ("--opacity", "x"), ("--min-area", "0")])
def test_an_opacity_or_area_outside_its_range_is_refused(models, photos, tmp_path, capsys, option, value):
    with pytest.raises(SystemExit, match="2"):
        predict([str(models / "tiny"), str(photos), "--out", str(tmp_path / "out"), option, value])
    assert f"{value} is no" in capsys.readouterr().err


def test_inputs_are_never_overwritten(models, photos, tmp_path):
    before = (photos / "deep/er/other.png").read_bytes()
    same = launch(tmp_path, "predict", str(models / "labels-only"), str(photos), "--out", str(photos))
    assert same.returncode == 2
    assert "is also --out" in same.stderr
    assert predict([str(models / "labels-only"), str(photos / "deep/er/other.png"), "--out", str(photos / "deep/er")]) == 0
    assert (photos / "deep/er/other.png").read_bytes() == before
    assert (photos / "deep/er/other.png.png").is_file()


def test_two_inputs_of_one_stem_both_get_an_answer(models, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.png"):
        (tmp_path / "in" / name).write_bytes(file_of(ramp(), "JPEG" if name == "a.jpg" else "PNG"))
    assert predict([str(models / "labels-only"), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_model_that_is_not_there_names_those_that_are(models, photos, tmp_path):
    process = launch(tmp_path, "predict", "nope", str(photos), "--models", str(models), "--out", str(tmp_path / "out"))
    assert process.returncode == 2
    assert "Models there: 123, labels-only, tiny" in process.stderr
    assert "Traceback" not in process.stderr


def test_a_model_of_both_directions_asks_which(models, photos, tmp_path):
    process = launch(tmp_path, "predict", str(models / "tiny"), str(photos), "--out", str(tmp_path / "out"))
    assert process.returncode == 2
    assert "--direction to_label for photos" in process.stderr


@pytest.mark.parametrize("output", ["colours", "overlay", "confidence", "polygons", "json"])
def test_a_server_gives_the_same_files(models, photos, server, tmp_path, output):
    options = ["--direction", "to_label", "--output", output, "--opacity", "0.3", "--min-area", "5"]
    assert predict([str(models / "tiny"), str(photos), "--out", str(tmp_path / "here"), *options]) == 0
    assert predict(["tiny", str(photos), "--out", str(tmp_path / "there"), "--server", server.url, *options]) == 0
    ending = {"overlay": ".jpg", "polygons": ".json", "json": ".json"}.get(output, ".png")
    for name in (f"street{ending}", f"deep/er/other{ending}"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """A model that shrinks what it is given to 48x48, unless it is run in tiles of that size."""
    resize = {"rule": "exact", "height": 48, "width": 48, "filter": "bicubic"}
    return write_blurring_model(tmp_path_factory.mktemp("tiled") / "shrinking", side=48, resize=resize)


@pytest.mark.parametrize("tiles", [None, "auto", "always", "never"])
def test_a_large_picture_is_run_in_tiles_where_the_server_would_run_it_in_tiles(tiled, photos, tmp_path, tiles):
    (photos / "large.png").write_bytes(file_of(noise(100, 131)))
    (photos / "label.png").write_bytes(file_of((np.arange(100 * 131).reshape(100, 131) // 700 % 4).astype(np.uint8)))
    operations = Operations(fill(Settings(models=tiled.parent, device="cpu", threads=1)), Settings(models=tiled.parent))
    said = {} if tiles is None else {"tiles": tiles}
    for name, direction, options, act in (
        ("large.png", "to_label", SegmentOptions(output="confidence", **said), operations.segment),
        ("label.png", "to_photo", SynthesizeOptions(seed=0, format="png", **said), operations.synthesize),
    ):
        asked = ["--direction", direction, "--output", "confidence", "--format", "png", *(["--tiles", tiles] if tiles else [])]
        assert predict([str(tiled), str(photos / name), "--out", str(tmp_path / "out"), *asked]) == 0
        served = asyncio.run(act([Picture(name, (photos / name).read_bytes)], options))
        assert served.headers["X-Tiling"] == ("4x3" if tiles == "always" else "none")
        assert (tmp_path / "out" / name).read_bytes() == served.body


def test_tiles_that_the_model_forbids_or_that_are_none_are_refused(models, photos, tmp_path, capsys):
    asked = [str(models / "tiny"), str(photos), "--out", str(tmp_path / "out"), "--direction", "to_label", "--tiles"]
    with pytest.raises(Refusal, match=r"model tiny cannot be run in tiles: .* Say --tiles auto: "):
        predict([*asked, "always"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match="2"):
        predict([*asked, "some"])
    said = capsys.readouterr().err
    assert [choice in said for choice in ("invalid choice: 'some'", "auto", "never", "always")] == [True] * 4


def test_a_server_is_told_whether_tiles_are_wanted(photos, server, tmp_path, capsys):
    asked = ["tiny", str(photos / "street.jpg"), "--out", str(tmp_path / "out"), "--server", server.url, "--direction", "to_label"]
    assert predict([*asked, "--tiles", "never"]) == 0
    assert predict([*asked, "--tiles", "always"]) == 1
    assert re.search("model tiny cannot be run in tiles: .* Say --tiles auto: ", capsys.readouterr().err)


def test_what_to_do_is_said_in_flags_and_where_the_classes_are_told_is_named(models, server, tmp_path, capsys):
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[0] = 1, 2, 3
    (tmp_path / "label.png").write_bytes(file_of(colours))
    asked = [str(tmp_path / "label.png"), "--out", str(tmp_path / "out"), "--direction", "to_photo"]
    assert predict([str(models / "tiny"), *asked]) == 1
    assert predict(["tiny", *asked, "--server", server.url]) == 1
    here, there = capsys.readouterr().err.splitlines()
    said = "Give a PNG in the class colours, which {} shows (JPEG smears them), or say --snap to take the nearest."
    assert here.endswith(said.format(models / "tiny" / "manifest.json"))
    assert there.endswith(said.format(f"{server.url}/v1/models/tiny/legend"))


def test_a_server_that_is_not_there_is_said_in_a_sentence(photos, tmp_path):
    process = launch(tmp_path, "predict", "tiny", str(photos), "--out", str(tmp_path / "out"), "--server", "http://127.0.0.1:9")
    assert process.returncode == 2
    assert "does not answer" in process.stderr
    assert "Traceback" not in process.stderr
