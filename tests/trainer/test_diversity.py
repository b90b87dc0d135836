"""Diversity: the distance between photos of one label map, against slow references, and beside that of real photos."""

import dataclasses
import hashlib
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.factories import tiny_run
from tests.trainer.noisy import Config, Noisy
from tests.trainer.test_evaluate import CLASSES, PROVENANCE, InMemory, Threshold, dataset_of
from tests.trainer.test_perceptual import partial, saved
from trainer.__main__ import main
from trainer.batch import IGNORE, Domain, random
from trainer.commands.evaluate import diversity_asked, table
from trainer.data.catalogue import Sample, open_dataset
from trainer.data.decode import BrokenFile
from trainer.data.pairs import select
from trainer.errors import UserError
from trainer.methods import METHODS
from trainer.metrics.diversity import Diversity, open_perceptual, real_groups
from trainer.metrics.record import evaluate_and_record
from trainer.rundir import build_method, create_run

SIZE = (16, 24)


def noisy(*, loudness: float = 0.2, seed: int = 3) -> Noisy:
    return Noisy(Config(loudness), photo_domain=Domain("picture"), label_domain=Domain("classes", CLASSES), size=SIZE, seed=seed)


def dataset(count: int = 5) -> InMemory:
    """Photos whose levels are all 5 times their number."""
    generator = np.random.default_rng(1)
    arrays = {}
    for number in range(count):
        label = generator.choice([0, 1, IGNORE], SIZE).astype(np.uint8)
        arrays[f"s{number:02d}"] = (np.full((*SIZE, 3), 5 * number, np.uint8), label)
    return dataset_of(arrays)


def levels(place: int, seed: int, *, loudness: float = 0.2) -> tuple[int, int]:
    """What the noisy method paints class 1 and the rest for the label map at this place."""
    shift = loudness * random(3, 0, f"diversity-{seed}", place).standard_normal((1, 2, 3, 4), dtype=np.float32).mean()
    light, dark = (int(np.clip(np.rint((shade + shift + 1) * 127.5), 0, 255)) for shade in (0.3, -0.3))
    return light, dark


def test_diversity_is_the_mean_over_label_maps_of_the_mean_over_pairs_of_seeds_in_levels() -> None:
    found = Diversity(seeds=3).measure(noisy(), dataset(), split="val", size=SIZE).figures
    by_label = []
    for place, (_, label) in enumerate(dataset().arrays.values()):
        light = (label == 1).mean()
        shades = [levels(place, seed) for seed in range(3)]
        distances = [light * abs(one[0] - other[0]) + (1 - light) * abs(one[1] - other[1]) for one, other in combinations(shades, 2)]
        by_label.append(np.mean(distances))
    assert found["diversity_l1_levels"] == pytest.approx(np.mean(by_label), rel=1e-6)
    assert np.mean(by_label) > 1
    assert set(found) == {"diversity_l1_levels", "diversity_l1_levels_on_real"}


def test_a_generator_that_is_deaf_to_its_noise_has_none() -> None:
    found = Diversity(seeds=2).measure(noisy(loudness=0.0), dataset(), split="val", size=SIZE).figures
    assert found["diversity_l1_levels"] == 0
    assert isinstance(found["diversity_l1_levels_on_real"], float)
    assert found["diversity_l1_levels_on_real"] >= 5


def test_at_most_twenty_label_maps_are_taken_spread_evenly_over_the_split() -> None:
    many = dataset(45)
    seen: list[int] = []

    class Watching(Noisy):
        def to_photo(self, label, noise=None):
            seen.append(next(n for n, (_, one) in enumerate(many.arrays.values()) if (one == label[0].numpy()).all()))
            return super().to_photo(label, noise)

    method = Watching(Config(), photo_domain=Domain("picture"), label_domain=many.label_domain, size=SIZE, seed=3)
    spread = Diversity(seeds=2).measure(method, many, split="val", size=SIZE)
    assert seen[::2] == seen[1::2] == sorted(set(seen))
    assert len(seen[::2]) == 20
    assert (seen[0], seen[-1]) == (0, 44)
    assert max(np.diff(seen[::2])) <= 3
    assert spread.described["diversity"] == {"seeds": 2, "label_maps": 20, "real_groups": 20, "cautions": []}
    seen.clear()
    Diversity(seeds=2).measure(method, many, split="val", size=SIZE, limit=3)
    assert seen == [0, 0, 22, 22, 44, 44]


def test_real_photos_come_in_groups_of_different_ones_and_all_of_them_before_any_comes_again() -> None:
    whole = dataset(10)
    groups = list(real_groups(whole, whole.samples("val")[:10], groups=5, photos=4, size=SIZE, skip_broken=False))
    numbers = [[int(photo[0, 0, 0]) // 5 for photo in group] for group in groups]
    assert [len(set(group)) for group in numbers] == [4] * 5
    assert len({*numbers[0], *numbers[1]}) == 8
    assert len({*numbers[2], *numbers[3]}) == 8
    assert numbers[:2] != numbers[2:4]
    expected = np.mean([np.mean([5 * abs(one - other) for one, other in combinations(group, 2)]) for group in numbers])
    real = Diversity(seeds=4).measure(noisy(), whole, split="val", size=SIZE, limit=5).figures["diversity_l1_levels_on_real"]
    assert real == pytest.approx(expected)
    assert real == Diversity(seeds=4).measure(noisy(seed=9), whole, split="val", size=SIZE, limit=5).figures["diversity_l1_levels_on_real"]


def test_a_split_of_fewer_photos_than_seeds_compares_all_of_them_and_one_of_a_single_photo_none() -> None:
    found = Diversity(seeds=4).measure(noisy(), dataset(2), split="val", size=SIZE).figures
    assert found["diversity_l1_levels_on_real"] == 5
    alone = Diversity(seeds=4).measure(noisy(), dataset(1), split="val", size=SIZE).figures
    assert alone["diversity_l1_levels_on_real"] is None
    assert "-" in table({"samples": 1, **alone}, {}).splitlines()[-1].split()


def test_real_photos_that_cannot_be_read_are_passed_over_where_that_is_allowed() -> None:
    class Torn(InMemory):
        def read_photo(self, sample: Sample) -> np.ndarray:
            if sample.name in ("s01", "s02", "s03"):
                raise BrokenFile(f"{sample.name} is torn")
            return super().read_photo(sample)

    torn = Torn(**{each.name: getattr(dataset(5), each.name) for each in dataclasses.fields(InMemory)})
    with pytest.raises(BrokenFile, match="is torn"):
        Diversity(seeds=4).measure(noisy(), torn, split="val", size=SIZE)
    found = Diversity(seeds=4).measure(noisy(), torn, split="val", size=SIZE, skip_broken=True)
    assert found.figures["diversity_l1_levels_on_real"] == 20
    assert found.described["diversity"]["label_maps"] == 2


def test_the_perceptual_distance_is_that_of_unit_vectors_at_each_position_layers_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = partial()
    path = saved(network, tmp_path / "vgg_little.pth")
    perceptual = open_perceptual(str(path))
    photos = [np.random.default_rng(number).integers(0, 256, (20, 28, 3), dtype=np.uint8) for number in range(3)]

    def directions(photo: np.ndarray) -> list[np.ndarray]:
        values, kept = torch.from_numpy(photo.transpose(2, 0, 1)[None].astype(np.float32) / 255), []
        with torch.no_grad():
            for number, layer in enumerate(network):
                values = layer(values)
                if number in (3, 10, 17):
                    features = values[0].double().numpy()
                    kept.append(features / np.maximum(np.sqrt((features**2).sum(axis=0, keepdims=True)), 1e-10))
        return kept

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        layers = zip(directions(one), directions(other), strict=True)
        return float(np.mean([((a - b) ** 2).sum(axis=0).mean() for a, b in layers]))

    expected = np.mean([distance(one, other) for one, other in combinations(photos, 2)])
    assert perceptual.between(photos) == pytest.approx(expected, rel=1e-4)
    assert perceptual.between([photos[0], photos[0]]) == pytest.approx(0, abs=1e-6)
    assert perceptual.name == f"vgg_little-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def test_an_evaluation_holds_the_diversity_with_what_it_rests_on_and_leaves_all_other_figures_alone(tmp_path: Path) -> None:
    perceptual = open_perceptual(str(saved(partial(), tmp_path / "vgg_little.pth")))
    about = dataclasses.replace(PROVENANCE, size=SIZE)

    def evaluated(folder: str, diversity: Diversity | None):
        return evaluate_and_record(noisy(), dataset(), folder=tmp_path / folder, provenance=about, train_samples=(), diversity=diversity)

    plain, both = evaluated("plain", None), evaluated("both", Diversity(seeds=2, perceptual=perceptual))
    name = f"diversity_perceptual[{perceptual.name}]"
    assert both.figures.keys() - plain.figures.keys() == {
        "diversity_l1_levels",
        "diversity_l1_levels_on_real",
        name,
        name.replace("[", "_on_real["),
    }
    assert {each: both.figures[each] for each in plain.figures} == plain.figures
    written = json.loads(both.path.read_text())
    assert written["diversity"]["seeds"] == 2
    assert (written["perceptual_diversity"]["weights"], written["perceptual_diversity"]["sha256"]) == (perceptual.name, perceptual.sha256)
    assert any("LPIPS without its learnt weights" in caution for caution in written["cautions"])
    assert json.loads(plain.path.read_text())["diversity"] is None
    printed = table(both.figures, both.floors).splitlines()
    heading = next(place for place, line in enumerate(printed) if "mean distance of photos of one label map" in line)
    assert "of real photos" in printed[heading]
    first, second = both.figures["diversity_l1_levels"], both.figures["diversity_l1_levels_on_real"]
    assert printed[heading + 1].split() == ["l1", "levels", f"{first:.4g}", f"{second:.4g}"]
    assert printed[heading + 2].split()[0] == f"perceptual[{perceptual.name}]"
    assert not any("diversity" in line for line in printed)


def test_a_method_without_noise_has_no_diversity_and_refuses_what_compares_its_photos(tmp_path: Path) -> None:
    asked = Diversity(seeds=2)
    found = evaluate_and_record(Threshold(), dataset(), folder=tmp_path / "e", provenance=PROVENANCE, train_samples=(), diversity=asked)
    assert not any(name.startswith("diversity") for name in found.figures)
    asked = Diversity(seeds=2, perceptual=open_perceptual(str(saved(partial(), tmp_path / "little.pth"))))
    with pytest.raises(UserError, match=r"--perceptual little-\w{8} compares photos .* this method takes no noise"):
        evaluate_and_record(Threshold(), dataset(), folder=tmp_path / "no", provenance=PROVENANCE, train_samples=(), diversity=asked)
    about = dataclasses.replace(PROVENANCE, size=(8, 24))
    with pytest.raises(UserError, match=r"VGG-19 needs photos of 16x16 or more, but this run's are 8x24"):
        evaluate_and_record(noisy(), dataset(), folder=tmp_path / "no", provenance=about, train_samples=(), diversity=asked)
    assert not (tmp_path / "no").exists()


def test_what_cannot_be_compared_is_refused_with_the_value_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert diversity_asked(0, None, device="cpu") is None
    asked = diversity_asked(4, None, device="cpu")
    assert asked is not None
    assert (asked.seeds, asked.perceptual) == (4, None)
    for seeds in (1, -2):
        with pytest.raises(UserError, match=rf"--seeds {seeds}: a distance needs two photos; give 2 or more, or 0"):
            diversity_asked(seeds, None, device="cpu")
    with pytest.raises(UserError, match=r"--perceptual torchvision .* but --seeds 0 makes none"):
        diversity_asked(0, "torchvision", device="cpu")
    with pytest.raises(UserError, match=r"--perceptual nowhere\.pth: there is no such file; give torchvision, or a file"):
        open_perceptual("nowhere.pth")
    words = tmp_path / "words.pth"
    words.write_text("weights")
    with pytest.raises(UserError, match=r"--perceptual .*words\.pth cannot be read as a file of weights"):
        open_perceptual(str(words))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"--perceptual torchvision: .* cannot be fetched \(no route to host\); give a file of its weights"):
        open_perceptual("torchvision")


def test_the_command_line_measures_the_diversity_of_a_run_and_says_what_it_is_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(METHODS, "noisy", Noisy)
    run = dataclasses.replace(tiny_run("hybrid", config=Config()), method="noisy", recipe="tiny-noisy")
    scenes = open_dataset("scenes", None)
    folder = create_run(tmp_path / "run", run, select(scenes, k=run.pairs, unpaired=run.unpaired, seed=0))
    method = build_method(run, scenes.photo_domain, scenes.label_domain)
    folder.save("best", {"step": 4, "method": method.state_dict(), "averaged": {}, "own": [{"method": {}}]})
    weights = saved(partial(), tmp_path / "vgg_little.pth")
    evaluate = ["evaluate", str(folder.path), "--split", "val", "--limit", "3", "--device", "cpu"]

    assert main([*evaluate, "--seeds", "2", "--perceptual", str(weights)]) == 0
    printed = capsys.readouterr().out
    assert "mean distance of photos of one label map  of real photos" in printed
    assert "caution: diversity_perceptual[vgg_little-" in printed
    written = json.loads((folder.evaluations / "val-best-averaged-3-samples.json").read_text())
    assert written["diversity"]["seeds"] == written["perceptual_diversity"]["seeds"] == 2
    assert written["diversity"]["label_maps"] == 3

    assert main(evaluate) == 0
    printed = capsys.readouterr().out
    assert f"note: the figures of --perceptual {written['perceptual_diversity']['weights']} are those of the evaluation before" in printed
    again = json.loads((folder.evaluations / "val-best-averaged-3-samples.json").read_text())
    assert (again["diversity"]["seeds"], again["perceptual_diversity"]["seeds"]) == (4, 2)

    assert main([*evaluate, "--seeds", "1"]) == 2
    assert "--seeds 1: a distance needs two photos" in capsys.readouterr().err
