"""`fewpair compare` through the command line: what each cell shows, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.factories import tiny_folder, tiny_run
from tests.trainer.noisy import Config, Noisy
from trainer.__main__ import main
from trainer.data.catalogue import open_dataset
from trainer.data.loader import photo_to_uint8, prepare_label, prepare_photo
from trainer.data.selection.choose import select
from trainer.data.synthetic import scenes
from trainer.grids import sample_grid
from trainer.methods import METHODS
from trainer.metrics.evaluate import labelled
from trainer.metrics.predict import predict_labels, predict_photos
from trainer.run import Run
from trainer.training.checkpointing import build_method, create_run, load_method

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def noisy_is_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "noisy", Noisy)


def saved(path: Path, run: Run, *, checkpoint: str = "best") -> Path:
    """A run's folder with a checkpoint of its first weights."""
    dataset = open_dataset(run.data, Path(run.root) if run.root else None)
    folder = create_run(path, run, select(dataset, k=run.pairs, unpaired=run.unpaired, seed=run.seed))
    method = build_method(run, dataset.label_domain)
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


def test_the_grid_shows_each_sample_in_a_row_and_what_each_run_makes_of_it_in_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hybrid, noisy = saved(tmp_path / "hybrid", tiny_run("hybrid")), saved(tmp_path / "noisy", noisy_run(seed=5))
    out = tmp_path / "grids" / "both.png"
    assert compared(hybrid, noisy, "--out", out, "--samples", "3") == 0
    assert capsys.readouterr().out.strip() == f"wrote {out}"
    dataset = open_dataset("scenes", None)
    every = labelled(dataset, "val")
    places = np.linspace(0, len(every) - 1, 3).round().astype(int)
    methods = {path: load_method(path)[0] for path in (hybrid, noisy)}
    rows = []
    for place in places:
        photo, label = dataset.read_photo(every[place]), dataset.read_label(every[place])
        predicted = predict_labels(methods[hybrid], [photo], size=SIZE)[0]
        rows.append(
            {
                "photo": photo_to_uint8(prepare_photo(photo, SIZE)),
                "label": scenes.CLASSES.index_to_color()[prepare_label(label, SIZE).numpy().astype(np.uint8)],
                f"{hybrid}: label from photo": scenes.CLASSES.index_to_color()[predicted],
                f"{hybrid}: photo from label": predict_photos(methods[hybrid], [label], size=SIZE, draws=[0])[0],
                f"{hybrid}: reconstructed photo": predict_photos(methods[hybrid], [predicted], size=SIZE, draws=[0])[0],
                f"{noisy}: photo from label": predict_photos(methods[noisy], [label], size=SIZE, draws=[place])[0],
            }
        )
    caption = (
        f"scenes val, 32x48: 3 of {len(every)} samples\n"
        f"{hybrid}: tiny-hybrid, step 4 of 6, seed 0, best checkpoint, averaged weights\n"
        f"{noisy}: tiny-noisy, step 4 of 6, seed 5, best checkpoint, averaged weights"
    )
    names = [every[place].name for place in places]
    expected = sample_grid(rows, scale=4, names=names, caption=caption, classes=scenes.CLASSES)
    assert (shown(out) == np.asarray(expected)).all()


def test_runs_of_another_size_or_another_dataset_are_refused_with_both_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = saved(tmp_path / "first", noisy_run())
    larger = saved(tmp_path / "larger", noisy_run(size=(64, 48)))
    root = tiny_folder(tmp_path / "mine")
    elsewhere = saved(tmp_path / "elsewhere", noisy_run(data="folders", root=str(root)))
    out = tmp_path / "grid.png"
    for other, place in ((larger, "scenes, 64x48"), (elsewhere, f"folders in {root}, 32x48")):
        said = refusal(capsys, first, other, "--out", out)
        assert f"the runs have different datasets or sizes ({first}: scenes, 32x48; {other}: {place})" in said
    assert not out.exists()


def test_what_makes_no_grid_is_refused_with_the_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved(tmp_path / "run", noisy_run())
    out = ("--out", tmp_path / "grid.png")
    for words, said in (
        ((run, "--out", "grid.jpg"), "--out grid.jpg: give a .png file"),
        ((run, *out, "--samples", "0"), "--samples 0: give 1 or more"),
        ((run, *out, "--checkpoint", "last"), "has no checkpoint last; it has best: add --checkpoint best"),
        (out, "name the runs to compare"),
    ):
        assert said in refusal(capsys, *words)
    assert not list(tmp_path.glob("*.png"))
