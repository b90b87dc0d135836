"""`fewpair compare` through the command line: what stands in each cell, and what is refused with which sentence."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.factories import tiny_folder, tiny_run
from tests.trainer.noisy import Config, Noisy
from trainer.__main__ import main
from trainer.data import scenes
from trainer.data.catalogue import open_dataset
from trainer.data.loader import photo_to_uint8, prepare_label, prepare_photo
from trainer.data.pairs import select
from trainer.methods import METHODS
from trainer.metrics.evaluate import labelled, predict_label, predict_photo
from trainer.metrics.pictures import colourise, sheet
from trainer.recipes import Run
from trainer.rundir import build_method, create_run, load_method

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def noisy_is_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "noisy", Noisy)


def saved(path: Path, run: Run, *, checkpoint: str = "best") -> Path:
    """A run's folder with a checkpoint of its first weights."""
    dataset = open_dataset(run.data, Path(run.root) if run.root else None)
    folder = create_run(path, run, select(dataset, k=run.pairs, unpaired=run.unpaired, seed=run.seed))
    method = build_method(run, dataset.photo_domain, dataset.label_domain)
    folder.save(checkpoint, {"step": 4, "method": method.state_dict(), "averaged": {}, "own": [{"method": {}}]})
    return path


def noisy_run(**changes: object) -> Run:
    return dataclasses.replace(tiny_run("hybrid", config=Config()), method="noisy", recipe="tiny-noisy", **changes)


def shown(path: Path) -> np.ndarray:
    with Image.open(path) as page:
        return np.asarray(page.convert("RGB"))


def compared(*words: str | Path) -> int:
    return main(["compare", *map(str, words), "--split", "val", "--device", "cpu"])


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert compared(*words) == 2
    return capsys.readouterr().err


def samples(count: int) -> list[tuple[int, str, np.ndarray, np.ndarray]]:
    """Place, name, photo and label of the samples that a sheet of `count` rows shows."""
    dataset = open_dataset("scenes", None)
    every = labelled(dataset, "val")
    places = np.linspace(0, len(every) - 1, count).round().astype(int)
    return [(int(n), every[n].name, dataset.read_photo(every[n]), dataset.read_label(every[n])) for n in places]


def small(photo: np.ndarray) -> np.ndarray:
    return photo_to_uint8(prepare_photo(photo, SIZE))


def painted(label: np.ndarray) -> np.ndarray:
    return colourise(prepare_label(label, SIZE).numpy().astype(np.uint8), scenes.CLASSES)


def test_the_sheet_shows_each_label_in_a_row_and_each_run_in_a_column_with_as_many_photos_as_seeds_where_noise_goes_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hybrid, noisy = saved(tmp_path / "hybrid", tiny_run("hybrid")), saved(tmp_path / "noisy", noisy_run(seed=5))
    out = tmp_path / "sheets" / "both.png"
    assert compared(hybrid, noisy, "--out", out, "--names", "ours", "theirs", "--samples", "3", "--seeds", "2") == 0
    assert capsys.readouterr().out.strip() == f"written to {out}"
    methods = [load_method(path)[0] for path in (hybrid, noisy)]
    rows = [
        [
            painted(label),
            small(photo),
            predict_photo(methods[0], label, size=SIZE),
            predict_photo(methods[1], label, size=SIZE, draw=place),
            predict_photo(methods[1], label, size=SIZE, draw=place, stream="comparison-1"),
        ]
        for place, _, photo, label in samples(3)
    ]
    assert all((row[3] != row[4]).any() for row in rows)
    every = len(labelled(open_dataset("scenes", None), "val"))
    caption = (
        f"label -> photo on scenes val, 32x48: 3 of {every} samples, spread evenly\n"
        "ours: tiny-hybrid, 2 pairs + 4 unpaired, step 4 of 6, seed 0, best checkpoint, averaged weights\n"
        "theirs: tiny-noisy, 2 pairs + 4 unpaired, step 4 of 6, seed 5, best checkpoint, averaged weights"
    )
    headings = ["label", "true photo", "ours", "theirs, seed 0", "theirs, seed 1"]
    expected = sheet(headings, rows, scale=4, names=[name for _, name, _, _ in samples(3)], caption=caption)
    assert (shown(out) == np.asarray(expected)).all()


def test_runs_that_make_label_maps_only_stand_beside_the_truth_under_their_folders_names(tmp_path: Path) -> None:
    paths = [saved(tmp_path / name, tiny_run(name), checkpoint="last") for name in ("supervised", "judge")]
    out = tmp_path / "labels.png"
    assert compared(*paths, "--out", out, "--samples", "2", "--checkpoint", "last", "--weights", "raw") == 0
    methods = [load_method(path, checkpoint="last", weights="raw")[0] for path in paths]
    rows = [
        [
            small(photo),
            painted(label),
            *(colourise(predict_label(method, photo, size=SIZE), scenes.CLASSES) for method in methods),
        ]
        for _, _, photo, label in samples(2)
    ]
    every = len(labelled(open_dataset("scenes", None), "val"))
    lines = [f"photo -> label on scenes val, 32x48: 2 of {every} samples, spread evenly"]
    lines += [
        f"{name}: tiny-{name}, 2 pairs + 4 unpaired, step 4 of 6, seed 0, last checkpoint, raw weights" for name in ("supervised", "judge")
    ]
    expected = sheet(
        ["photo", "truth", "supervised", "judge"], rows, scale=4, names=[name for _, name, _, _ in samples(2)], caption="\n".join(lines)
    )
    assert (shown(out) == np.asarray(expected)).all()


def test_runs_are_compared_in_the_direction_that_all_offer_or_in_the_one_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {name: saved(tmp_path / name, tiny_run(name)) for name in ("hybrid", "supervised")}
    runs["noisy"] = saved(tmp_path / "noisy", noisy_run())
    out = ("--out", tmp_path / "sheet.png", "--samples", "1")
    assert compared(runs["hybrid"], runs["supervised"], *out) == 0
    common = shown(tmp_path / "sheet.png")
    assert compared(runs["hybrid"], runs["supervised"], *out, "--direction", "to_label") == 0
    assert (shown(tmp_path / "sheet.png") == common).all()
    said = refusal(capsys, runs["hybrid"], runs["supervised"], *out, "--direction", "to_photo")
    assert "cannot stand on one sheet of to_photo: hybrid offers to_label and to_photo; supervised offers to_label" in said
    assert "supervised offers to_label; noisy offers to_photo" in refusal(capsys, runs["supervised"], runs["noisy"], *out)
    assert "--seeds 2: this sheet shows label maps" in refusal(capsys, runs["supervised"], *out, "--seeds", "2")


def test_runs_of_another_size_or_another_dataset_are_refused_with_both_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = saved(tmp_path / "first", noisy_run())
    larger = saved(tmp_path / "larger", noisy_run(size=(64, 48)))
    root = tiny_folder(tmp_path / "mine")
    elsewhere = saved(tmp_path / "elsewhere", noisy_run(data="folders", root=str(root)))
    out = tmp_path / "sheet.png"
    assert f"{first} was trained at 32x48, and {larger} at 64x48" in refusal(capsys, first, larger, "--out", out)
    said = refusal(capsys, first, elsewhere, "--out", out)
    assert f"{first} was trained on scenes, and {elsewhere} on folders in {root}: only runs of one dataset compare" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "sheet.jpg"), "--out sheet.jpg: a sheet is a .png file"),
        (("--names", "a"), "--names a: 1 names for 2 runs; give one each"),
        (("--names", "a", "a"), "the name a is given twice"),
        (("--seeds", "0"), "--seeds 0: give 1 or more"),
        (("--samples", "0"), "--samples 0 leaves the sheet without rows: give 1 or more"),
        (("--checkpoint", "step-000100"), "holds no checkpoint called step-000100; it holds best"),
    ],
)
def test_what_makes_no_sheet_is_refused_with_the_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    paths = [saved(tmp_path / name, noisy_run()) for name in ("one", "other")]
    out = () if "--out" in words else ("--out", tmp_path / "sheet.png")
    assert said in refusal(capsys, *paths, *out, *words)
    assert not list(tmp_path.glob("*.png"))


def test_a_run_given_twice_is_refused_and_folders_of_one_name_are_told_apart_by_their_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = saved(tmp_path / "a" / "run", noisy_run()), saved(tmp_path / "b" / "run", noisy_run())
    out = ("--out", tmp_path / "sheet.png", "--samples", "1")
    assert f"the run {one} is given twice" in refusal(capsys, one, one, *out)
    assert compared(one, other, *out) == 0
    by_path = shown(tmp_path / "sheet.png")
    assert compared(one, other, *out, "--names", str(one), str(other)) == 0
    assert (shown(tmp_path / "sheet.png") == by_path).all()


def test_no_run_at_all_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "name the runs to compare" in refusal(capsys, "--out", tmp_path / "sheet.png")
