"""`fewpair predict` over files and folders, in its own process and through a server."""

import io
import json
import sys

import numpy as np
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as raised
from PIL import Image

from serving.__main__ import main
from serving.client import Client
from serving.errors import Refusal, ServingError
from serving.models.model import ExportedModel
from serving.predict import predict
from tests.serving.factory import write_blurring_model
from tests.serving.pictures import file_of, noise, pixels_of, ramp, stripes
from tests.serving.test_translator import brightness_ids


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "street.jpg").write_bytes(file_of(ramp(), "JPEG", quality=100))
    (folder / "deep" / "er" / "other.png").write_bytes(file_of(noise()))
    return folder


def test_a_folder_becomes_a_folder_of_label_maps_with_the_same_sub_folders(models, photos, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--out", str(out), "--direction", "to_label", "--output", "ids"]
    assert predict([str(models / "tiny"), str(photos), *options]) == 0
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["deep/er/other.png", "street.png"]
    assert np.array_equal(pixels_of((out / "deep/er/other.png").read_bytes()), brightness_ids(noise()))
    said = capsys.readouterr()
    assert "2 of 2 files" in said.out
    assert "ignored" not in said.err


def test_a_folder_becomes_one_document_of_a_labelling_tool(models, photos, tmp_path):
    options = ["--as", "coco", "--min-area", "5", "--out", str(tmp_path / "out")]
    assert predict([str(models / "tiny"), str(photos), *options]) == 0
    document = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["deep/er/other.png", "street.jpg"]
    assert min(annotation["area"] for annotation in document["annotations"]) >= 5


@pytest.mark.parametrize("tool", ["labelme", "voc", "yolo"])
def test_annotations_of_a_photo_do_not_overwrite_those_of_another_with_the_same_stem(
    models, photos, tmp_path, capsys, tool
):
    (photos / "street.png").write_bytes(file_of(noise()))
    assert predict([str(models / "tiny"), str(photos), "--as", tool, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "2 of 3 files" in said.out
    assert f"{photos / 'street.png'}: {tmp_path / 'out'}" in said.err
    assert "would overwrite the annotations of another photo" in said.err


def test_ignored_files_are_counted_by_type(models, photos, tmp_path, capsys):
    for name in ("a.CR2", "b.cr2", "c.heic", "README", ".hidden"):
        (photos / name).write_bytes(b"")
    assert predict([str(models / "labels-only"), str(photos), "--out", str(tmp_path / "out")]) == 0
    line = "ignored 2 .cr2, 1 without an ending, 1 .heic (install pillow-heif to read HEIC without --server)"
    assert line in capsys.readouterr().err
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.cr2").write_bytes(b"")
    with pytest.raises(ServingError, match=r"holds no image .* Other files there: 1 \.cr2\."):
        predict([str(models / "labels-only"), str(tmp_path / "raw"), "--out", str(tmp_path / "out")])


def test_heic_is_read_where_its_plugin_is_installed(models, photos, tmp_path, monkeypatch, heif_plugin):
    monkeypatch.setitem(sys.modules, "pillow_heif", heif_plugin)
    monkeypatch.delitem(Image.OPEN, "PNG")
    (photos / "phone.HEIC").write_bytes(file_of(noise()))
    assert predict([str(models / "labels-only"), str(photos), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "phone.png").is_file()


def fail_on_100_rows(monkeypatch, failure):
    """Have models fail on a picture of 100 rows, which are padded to a multiple of 16."""
    run = ExportedModel.run_batch

    def run_small(model, direction, pixels, **options):
        if pixels.shape[1] == 112:
            raise failure
        return run(model, direction, pixels, **options)

    monkeypatch.setattr(ExportedModel, "run_batch", run_small)


@pytest.mark.parametrize("failure", [None, MemoryError(), raised.Fail("bad")])
def test_a_file_that_cannot_be_translated_is_reported_at_the_end_and_the_others_are_written(
    models, photos, tmp_path, capsys, monkeypatch, failure
):
    fail_on_100_rows(monkeypatch, failure)
    (photos / "bad.png").write_bytes(file_of(noise(100, 30)) if failure else b"\x89PNG\r\n\x1a\nhalf")
    assert predict(["labels-only", str(photos), "--models", str(models), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "2 of 3 files" in said.out
    reason = f"the model could not be run on it: {type(failure).__name__}" if failure else "the file is not an image"
    assert f"{photos / 'bad.png'}: {reason}" in said.err
    assert (tmp_path / "out" / "street.png").is_file()


def test_label_maps_become_photos_and_the_seed_decides(models, tmp_path):
    label = tmp_path / "label.png"
    label.write_bytes(file_of(stripes()))
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        options = ["--direction", "to_photo", "--seed", seed, "--format", "png", "--out", str(tmp_path / name)]
        assert predict([str(models / "tiny"), str(label), *options]) == 0
    a, b, c = ((tmp_path / name / "label.png").read_bytes() for name in "abc")
    assert a == b != c


def test_a_photo_gives_its_style_to_the_photos_here_and_on_a_server(models, server, tmp_path):
    label, photo = tmp_path / "label.png", tmp_path / "photo.png"
    label.write_bytes(file_of(stripes()))
    photo.write_bytes(file_of(ramp()))
    options = ["--direction", "to_photo", "--style", str(photo), "--format", "png", "--out"]
    assert predict([str(models / "tiny"), str(label), *options, str(tmp_path / "here")]) == 0
    assert predict(["tiny", str(label), "--server", server.url, *options, str(tmp_path / "there")]) == 0
    here, there = ((tmp_path / name / "label.png").read_bytes() for name in ("here", "there"))
    assert here == there


def test_each_new_picture_of_a_watched_folder_is_translated_once_it_is_whole(models, photos, tmp_path, monkeypatch):
    late, whole, out = photos / "late.png", file_of(noise()), tmp_path / "out"
    steps = [
        lambda: late.write_bytes(whole[:100]),
        lambda: late.write_bytes(whole),
        lambda: None,
        lambda: sorted(path.name for path in out.rglob("*.png")),
    ]
    seen = []

    def sleep(_seconds):
        if not steps:
            raise KeyboardInterrupt
        seen.append(steps.pop(0)())

    monkeypatch.setattr("serving.predict.time.sleep", sleep)
    assert predict([str(models / "labels-only"), "--watch", str(photos), "--out", str(out)]) == 0
    assert seen[-1] == ["late.png", "other.png", "street.png"]


def test_one_picture_comes_from_standard_input_and_its_answer_goes_to_standard_output(
    models, photos, tmp_path, monkeypatch, capsysbinary
):
    file = photos / "street.jpg"
    assert predict([str(models / "labels-only"), str(file), "--out", str(tmp_path)]) == 0
    capsysbinary.readouterr()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert predict([str(models / "labels-only"), "-"]) == 0
    assert capsysbinary.readouterr().out == (tmp_path / "street.png").read_bytes()


def test_a_model_that_cannot_be_run_on_the_picture_of_standard_input_says_so(models, monkeypatch):
    fail_on_100_rows(monkeypatch, raised.RuntimeException("no memory"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file_of(noise(100, 30)))))
    with pytest.raises(ServingError, match="the model could not be run on it: no memory"):
        predict([str(models / "labels-only"), "-"])


@pytest.mark.parametrize(
    "wrong",
    [["-", "--out", "out"], ["-", "--watch"], ["photos"], ["photos", "--out", "out", "--watch", "--as", "coco"]],
)
def test_options_that_contradict_each_other_are_refused(models, photos, monkeypatch, wrong):
    monkeypatch.chdir(photos.parent)
    with pytest.raises(SystemExit, match="2"):
        predict([str(models / "labels-only"), *wrong])


@pytest.mark.parametrize(
    "more", [["--as", "coco"], ["--direction", "to_label"], ["--style", "no-such.png"], ["--seed", "1"]]
)
def test_a_style_of_label_maps_or_of_no_photo_is_refused(models, photos, tmp_path, capsys, more):
    style = ["--style", str(next(photos.glob("*.*")))]
    with pytest.raises(SystemExit, match="2"):
        predict([str(models / "tiny"), str(photos), "--out", str(tmp_path / "out"), *style, *more])
    assert "--style" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(ServingError, match="to_photo is not offered"):
        predict([str(models / "labels-only"), str(photos), "--out", str(tmp_path / "out"), *style])


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", "1.5"), ("--seed", "4294967296"), ("--opacity", "nan"), ("--min-area", "0"), ("--tiles", "some")],
)
def test_options_outside_their_range_are_refused(models, photos, tmp_path, capsys, option, value):
    with pytest.raises(SystemExit, match="2"):
        predict([str(models / "tiny"), str(photos), "--out", str(tmp_path / "out"), f"{option}={value}"])
    error = capsys.readouterr().err
    assert f"argument {option}: " in error
    assert value in error.splitlines()[-1]


def test_inputs_and_other_answers_are_never_overwritten(models, photos, tmp_path):
    before = (photos / "deep/er/other.png").read_bytes()
    with pytest.raises(ServingError, match="is also --out"):
        predict([str(models / "labels-only"), str(photos), "--out", str(photos)])
    file = photos / "deep/er/other.png"
    assert predict([str(models / "labels-only"), str(file), "--out", str(file.parent)]) == 0
    assert file.read_bytes() == before
    assert (photos / "deep/er/other.png.png").is_file()
    (photos / "street.png").write_bytes(file_of(ramp()))
    assert predict([str(models / "labels-only"), str(photos), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"street.png", "street.png.png", "deep"}


def test_what_is_missing_is_one_sentence(models, photos, tmp_path, capsys):
    for arguments, sentence in (
        (["nope", str(photos), "--models", str(models)], "labels-only, tiny"),
        ([str(models / "tiny"), str(photos)], "--direction to_label for photos"),
        (["tiny", str(photos), "--server", "http://127.0.0.1:9"], "does not answer"),
    ):
        assert main(["predict", *arguments, "--out", str(tmp_path / "out")]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("output", ["colours", "overlay", "polygons"])
def test_a_server_gives_the_same_files(models, photos, server, tmp_path, output):
    options = ["--direction", "to_label", "--output", output, "--opacity", "0.3", "--min-area", "5"]
    assert predict([str(models / "tiny"), str(photos), "--out", str(tmp_path / "here"), *options]) == 0
    assert predict(["tiny", str(photos), "--out", str(tmp_path / "there"), "--server", server.url, *options]) == 0
    ending = {"overlay": ".jpg", "polygons": ".json", "json": ".json"}.get(output, ".png")
    for name in (f"street{ending}", f"deep/er/other{ending}"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_tiles_are_run_where_they_are_asked_for(models, server, photos, tmp_path, capsys):
    resize = {"rule": "exact", "height": 48, "width": 48, "filter": "bicubic"}
    model = write_blurring_model(tmp_path / "models" / "shrinking", side=48, resize=resize)
    (photos / "large.png").write_bytes(file_of(noise(100, 131)))
    answers = {}
    for tiles in ("auto", "never", "always"):
        options = ["--direction", "to_label", "--output", "confidence", "--tiles", tiles]
        assert predict([str(model), str(photos / "large.png"), "--out", str(tmp_path / tiles), *options]) == 0
        answers[tiles] = (tmp_path / tiles / "large.png").read_bytes()
    assert answers["auto"] == answers["never"] != answers["always"]
    forbidden = [str(photos), "--out", str(tmp_path / "out"), "--direction", "to_label", "--tiles", "always"]
    with pytest.raises(Refusal, match=r"model tiny cannot be run in tiles: .* Set tiles to auto"):
        predict([str(models / "tiny"), *forbidden])
    assert predict(["tiny", *forbidden, "--server", server.url]) == 1
    assert "model tiny cannot be run in tiles" in capsys.readouterr().err


def test_frames_in_a_row_are_not_made_by_a_server(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Client, "model", lambda _, name: {"directions": ["to_photo"], "classes": [], "previous": True})
    with pytest.raises(ServingError, match="walk makes each frame after the one before it"):
        predict(["walk", str(photos), "--out", str(tmp_path / "there"), "--server", "http://127.0.0.1:9"])


@pytest.mark.parametrize("folder", ["labels", "labels/north", "val/labels", "photos"])
def test_the_labels_and_photos_of_a_project_are_not_written_over(folder, models, tmp_path):
    (tmp_path / "mine" / folder).mkdir(parents=True)
    (tmp_path / "mine" / "classes.csv").touch()
    with pytest.raises(ServingError, match="of a project, which answers would replace"):
        predict([str(models / "tiny"), str(tmp_path), "--out", str(tmp_path / "mine" / folder)])
