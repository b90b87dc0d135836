"""Rare-class sampling: the paper's formula on examples done by hand, what a run tells of it, and when it ends."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.factories import SIZE, material_for, tiny_folder, tiny_run
from tests.trainer.folders import make_folders, open_folders
from tests.trainer.test_loop import Killed, differences
from trainer.batch import IGNORE, Batch, Stretch
from trainer.data.catalogue import open_dataset
from trainer.data.loader import Loader
from trainer.data.rare_classes import Census, Likelihood, class_pixels, class_shares, sampling_probabilities, stretch_of
from trainer.data.rare_report import report, told
from trainer.data.rare_sampling import likelihood_of, take_census
from trainer.errors import UserError
from trainer.loop import train
from trainer.methods.supervised import Supervised
from trainer.rundir import create_run


def test_pixels_are_counted_by_class_without_void() -> None:
    one = np.array([[0, 0, 2], [IGNORE, 2, 2]], dtype=np.uint8)
    other = np.full((2, 3), IGNORE, dtype=np.uint8)
    pixels = class_pixels([one, other], 4)
    assert pixels.tolist() == [[2, 0, 3, 0], [0, 0, 0, 0]]
    assert class_shares(pixels).tolist() == [0.4, 0, 0.6, 0]
    assert class_pixels([], 4).shape == (0, 4)


def test_every_class_that_occurs_has_the_same_mass_and_the_probabilities_sum_to_one() -> None:
    # class 0 everywhere alike, class 1 absent, class 2 in the last pair only
    pixels = np.array([[90, 0, 0], [90, 0, 0], [90, 0, 1]])
    probabilities = sampling_probabilities(pixels)
    assert probabilities == pytest.approx([1 / 6, 1 / 6, (1 / 3 + 1) / 2])
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 50, (20, 7)) * (generator.random((20, 7)) < 0.4)
    drawn[:, 3] = 0
    probabilities = sampling_probabilities(drawn)
    slow = [sum(row[c] / drawn[:, c].sum() for c in range(7) if drawn[:, c].sum() and row[c]) for row in drawn]
    assert probabilities == pytest.approx(np.array(slow) / 6)  # six classes occur
    assert probabilities.sum() == pytest.approx(1)


def test_pairs_without_a_labelled_pixel_cannot_be_sampled_by_class() -> None:
    with pytest.raises(UserError, match="2 pairs hold no labelled pixel"):
        sampling_probabilities(np.zeros((2, 3), dtype=np.int64))


def test_every_class_has_equal_mass_however_common_it_is() -> None:
    generator = np.random.default_rng(1)
    apart = np.zeros((12, 4), dtype=np.int64)  # each pair holds one class, and the classes are of most unequal size
    apart[np.arange(12), [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3]] = generator.integers(1, 9, 12) * 10 ** generator.integers(0, 5, 12)
    probabilities = sampling_probabilities(apart)
    assert [probabilities[apart[:, each] > 0].sum() for each in range(4)] == pytest.approx([1 / 4] * 4)

    mixed = generator.integers(0, 90, (12, 5)) * (generator.random((12, 5)) < 0.5)
    assert sampling_probabilities(mixed * [1, 10, 1000, 7, 300]) == pytest.approx(sampling_probabilities(mixed))


@pytest.mark.parametrize(
    ("when", "steps", "expected"),
    [
        ("never", 7, []),
        ("first half", 7, [0, 1, 2, 3]),
        ("second half", 7, [4, 5, 6]),
        ("first half", 6, [0, 1, 2]),
        ("second half", 6, [3, 4, 5]),
        ("throughout", 2, [0, 1]),
        ("first half", 1, [0]),
        ("second half", 1, []),
    ],
)
def test_halves_meet_and_an_odd_step_belongs_to_the_first(when: Stretch, steps: int, expected: list[int]) -> None:
    assert list(stretch_of(when, steps)) == expected


def test_a_draw_by_probability_has_the_others_stand_in_for_it_once_each() -> None:
    likelihood = Likelihood((0.7, 0.0, 0.2, 0.1), range(3))
    orders = [list(likelihood.places(np.random.default_rng(seed))) for seed in range(300)]
    assert {tuple(sorted(order)) for order in orders} == {(0, 2, 3)}
    assert [order[0] for order in orders].count(0) == pytest.approx(210, abs=40)
    after = [order[1] for order in orders if order[0] == 0]
    assert after.count(2) / len(after) == pytest.approx(2 / 3, abs=0.12)


def test_pairs_are_counted_at_the_training_resolution_by_nearest(tmp_path: Path) -> None:
    dataset = open_dataset("folders", tiny_folder(tmp_path / "data"))
    pairs = dataset.samples("train")
    census = take_census(dataset, pairs, size=SIZE, skip_broken=False)
    classes = dataset.label_domain.classes
    assert classes is not None
    slow = np.zeros((len(pairs), classes.count), dtype=int)
    for place, sample in enumerate(pairs):
        small = Image.fromarray(dataset.read_label(sample)).resize(SIZE[::-1], Image.Resampling.NEAREST)
        for index in np.asarray(small).ravel():
            if index != IGNORE:
                slow[place, index] += 1
    assert census.pixels.tolist() == slow.tolist()
    assert census.names == tuple(sample.name for sample in pairs)
    assert 0 < slow.sum() <= len(pairs) * SIZE[0] * SIZE[1]


def test_a_run_tells_at_its_start_what_rare_class_sampling_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = open_dataset("folders", tiny_folder(tmp_path / "data"))
    pairs = dataset.samples("train")
    asked = {"when": "first half", "steps": 9, "size": SIZE, "skip_broken": False, "report_in": tmp_path}
    likelihood = likelihood_of(dataset, pairs, **asked)
    assert likelihood is not None
    assert likelihood.steps == range(5)
    p, pixels = np.array(likelihood.probabilities), take_census(dataset, pairs, size=SIZE, skip_broken=False).pixels

    with (tmp_path / "rare-classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classes = dataset.label_domain.classes
    assert classes is not None
    assert [row["class"] for row in rows] == list(classes.names)
    for index, row in enumerate(rows):
        holding = [place for place in range(len(pairs)) if pixels[place, index]]
        assert int(row["pixels"]) == sum(pixels[:, index])
        assert int(row["pairs"]) == len(holding)
        assert float(row["pixel_share"]) == pytest.approx(pixels[:, index].sum() / pixels.sum(), abs=1e-6)
        assert float(row["pair_share"]) == pytest.approx(len(holding) / len(pairs), abs=1e-6)
        assert float(row["draw_share"]) == pytest.approx(sum(p[place] for place in holding), abs=1e-6)
        drawn = sum(p[place] * pixels[place, index] for place in range(len(pairs)))
        assert float(row["drawn_pixel_share"]) == pytest.approx(
            drawn / sum(p[place] * pixels[place].sum() for place in range(len(pairs))), abs=1e-6
        )

    with Image.open(tmp_path / "rare-classes.png") as chart:
        assert chart.format == "PNG"
        assert chart.size[0] > 1000
    printed = capsys.readouterr().out
    assert "in steps 1 to 5 of 9" in printed
    likeliest, rarest = int(p.argmax()), int(np.where(pixels.sum(0) > 0, pixels.sum(0), 1 << 30).argmin())
    assert f"most likely: {pairs[likeliest].name} {p[likeliest]:.4f}" in printed
    assert printed.splitlines()[2].split()[0] == classes.names[rarest]
    assert not list(tmp_path.glob("*.part"))

    assert likelihood_of(dataset, pairs, **asked) == likelihood
    assert capsys.readouterr().out == "", "a resumed run tells nothing twice"


def test_a_broken_pair_is_never_drawn_by_class_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = open_folders(make_folders(tmp_path, count=4))
    pairs = dataset.samples("train")
    (tmp_path / "photos" / "street1.jpg").write_bytes(b"not a picture")
    (tmp_path / "labels" / "street2.png").write_bytes(b"not a picture")
    asked = {"when": "throughout", "steps": 3, "size": (16, 24), "report_in": tmp_path}
    likelihood = likelihood_of(dataset, pairs, skip_broken=True, **asked)
    assert likelihood is not None
    assert [probability > 0 for probability in likelihood.probabilities] == [True, False, False, True]
    rest = likelihood_of(dataset, (pairs[0], pairs[3]), skip_broken=True, **(asked | {"report_in": None}))
    assert rest is not None
    assert [likelihood.probabilities[0], likelihood.probabilities[3]] == pytest.approx(rest.probabilities)
    printed = capsys.readouterr().out
    assert "never drawn: 2 of the 4 pairs" in printed
    assert "street1.jpg" in printed
    assert "street2.png" in printed
    assert "(evenly: 0.5000)" in printed
    with pytest.raises(UserError, match=r"street2\.png"):
        likelihood_of(dataset, pairs, skip_broken=False, **asked)
    with pytest.raises(UserError, match="every one of the 2 pairs is broken"):
        likelihood_of(dataset, pairs[1:3], skip_broken=True, **asked)


def test_of_many_classes_the_rarest_are_printed_and_absent_ones_named() -> None:
    pixels = np.arange(80).reshape(2, 40) * (np.arange(40) > 2)
    census = Census(tuple(f"class{index}" for index in range(40)), ("one", "other"), pixels)
    lines = told(census, Likelihood(tuple(census.probabilities.tolist()), range(2)), steps=4).splitlines()
    assert [line.split()[0] for line in lines[2:26]] == [f"class{index}" for index in range(3, 27)]
    assert lines[26:28] == ["  and 13 more common classes: see rare-classes.csv", "  in no pair: class0, class1, class2"]


def test_a_name_that_looks_like_a_formula_is_drawn_as_it_stands(tmp_path: Path) -> None:
    census = Census(("road", r"$\frac{$"), ("one", "other"), np.array([[9, 1], [9, 0]]))
    report(tmp_path, census, Likelihood((0.75, 0.25), range(2)), steps=4)
    assert (tmp_path / "rare-classes.png").stat().st_size > 5000


def test_a_method_asks_for_it_a_run_obeys_to_the_step_and_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Supervised, "rare_classes", "first half")
    made: list[Loader] = []
    prefetch = Loader.prefetch

    def watched(self: Loader, start: int, stop: int) -> Iterator[Batch]:
        made.append(self)
        return prefetch(self, start, stop)

    monkeypatch.setattr(Loader, "prefetch", watched)
    run = tiny_run("supervised", data="folders", root=str(tiny_folder(tmp_path / "data")), steps=5, pairs=4, save_every=2)
    dataset, selection = material_for(run)

    def cut(step: int) -> None:
        if step == 3:
            raise Killed

    unbroken, broken = (create_run(tmp_path / name, run, selection) for name in ("unbroken", "broken"))
    train(unbroken, dataset, selection, device="cpu", progress=False, fused=False)
    with pytest.raises(Killed):
        train(broken, dataset, selection, device="cpu", progress=False, fused=False, after_step=cut)
    assert capsys.readouterr().out.count("in steps 1 to 3 of 5") == 2
    train(broken, dataset, selection, device="cpu", progress=False, fused=False)
    assert "drawn by the classes" not in capsys.readouterr().out

    assert [None if loader.likelihood is None else loader.likelihood.steps for loader in made] == [range(3)] * 3
    assert made[0].likelihood == made[2].likelihood
    assert differences(unbroken.load("last"), broken.load("last")) == []
    for name in ("rare-classes.csv", "rare-classes.png"):
        assert (broken.path / name).is_file()


def test_without_a_method_that_asks_pairs_are_drawn_evenly_and_nothing_is_told(tmp_path: Path) -> None:
    dataset = open_folders(make_folders(tmp_path / "data"))
    asked = {"steps": 4, "size": (16, 24), "skip_broken": False, "report_in": tmp_path}
    assert likelihood_of(dataset, dataset.samples("train"), when="never", **asked) is None
    assert likelihood_of(dataset, (), when="throughout", **asked) is None
    assert not list(tmp_path.glob("rare-classes*"))
