"""Diversity: the distance between photos of one label map, against slow references, and beside that of real photos."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.noisy import Config, Noisy
from tests.trainer.test_evaluate import CLASSES, InMemory, dataset_of, recorded
from trainer.__main__ import main
from trainer.batch import IGNORE, Domain, random
from trainer.metrics.evaluate import Scope, diversity

SIZE = (16, 24)
VAL = Scope("val", SIZE)


def noisy(*, loudness: float = 0.2, seed: int = 3) -> Noisy:
    return Noisy(Config(loudness), Domain("classes", CLASSES), size=SIZE, seed=seed)


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
    found = diversity(noisy(), dataset(), VAL, seeds=3)
    by_label = []
    for place, (_, label) in enumerate(dataset().arrays.values()):
        light = (label == 1).mean()
        shades = [levels(place, seed) for seed in range(3)]
        distances = [
            light * abs(one[0] - other[0]) + (1 - light) * abs(one[1] - other[1])
            for one, other in combinations(shades, 2)
        ]
        by_label.append(np.mean(distances))
    assert found["diversity_l1_levels"] == pytest.approx(np.mean(by_label), rel=1e-6)
    assert np.mean(by_label) > 1
    assert set(found) == {"diversity_l1_levels", "diversity_l1_levels_on_real"}


def test_a_generator_that_ignores_its_noise_has_no_diversity() -> None:
    found = diversity(noisy(loudness=0.0), dataset(), VAL, seeds=2)
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

    method = Watching(Config(), many.label_domain, size=SIZE, seed=3)
    diversity(method, many, VAL, seeds=2)
    assert seen[::2] == seen[1::2] == sorted(set(seen))
    assert len(seen[::2]) == 20
    assert (seen[0], seen[-1]) == (0, 44)
    assert max(np.diff(seen[::2])) <= 3
    seen.clear()
    diversity(method, many, Scope("val", SIZE, limit=3), seeds=2)
    assert seen == [0, 0, 22, 22, 44, 44]


def test_a_split_of_fewer_photos_than_seeds_compares_all_of_them_and_one_of_a_single_photo_none() -> None:
    found = diversity(noisy(), dataset(2), VAL, seeds=4)
    assert found["diversity_l1_levels_on_real"] == 5
    alone = diversity(noisy(), dataset(1), VAL, seeds=4)
    assert alone["diversity_l1_levels_on_real"] is None


def test_an_evaluation_holds_the_diversity_and_leaves_all_other_figures_alone(tmp_path: Path) -> None:
    plain = recorded(tmp_path / "plain", method=noisy(), dataset=dataset(), scope=VAL)
    both = recorded(tmp_path / "both", method=noisy(), dataset=dataset(), scope=VAL, seeds=2)
    assert both.figures.keys() - plain.figures.keys() == {"diversity_l1_levels", "diversity_l1_levels_on_real"}
    assert {each: both.figures[each] for each in plain.figures} == plain.figures
    assert json.loads(both.path.read_text())["diversity"] == {"seeds": 2}
    quiet = recorded(tmp_path / "quiet", dataset=dataset(), scope=VAL, seeds=2)
    assert not any(name.startswith("diversity") for name in quiet.figures), "the method takes no noise"


def test_one_photo_per_label_map_has_no_diversity_and_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "--split", "val", "--seeds", "1"]) == 2
    assert "--seeds 1: give 2 or more, or 0 to leave the diversity out" in capsys.readouterr().err
