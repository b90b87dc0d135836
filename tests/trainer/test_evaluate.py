"""Evaluation of a method on a split: resizing, baselines, and the record."""

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.trainer.factories import class_table, tiny_run
from trainer.batch import IGNORE, Domain, LabelMap, Photo
from trainer.commands.evaluate import table
from trainer.data.dataset import Dataset, Sample, resized
from trainer.data.selection.selection import Selection
from trainer.errors import UserError
from trainer.methods.base import Method
from trainer.metrics.distribution import Extractor
from trainer.metrics.evaluate import Scope, baselines, evaluate_to_label, evaluate_to_photo
from trainer.metrics.judge import Judge
from trainer.metrics.predict import evaluating, predict_labels, predict_photos
from trainer.metrics.record import Evaluation, evaluate_and_record
from trainer.metrics.segmentation import Confusion

CLASSES = class_table(
    [
        (3, "dark", (0, 0, 0), False),
        (8, "bright", (255, 255, 255), False),
        (1, "void", (9, 9, 9), True),
        (5, "absent", (255, 0, 0), False),
    ]
)
SIZE = (8, 12)
VAL = Scope("val", SIZE)


@dataclass(frozen=True)
class InMemory(Dataset):
    """A dataset whose samples are arrays."""

    arrays: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def read_photo(self, sample: Sample) -> np.ndarray:
        return self.arrays[sample.name][0]

    def read_label(self, sample: Sample) -> np.ndarray:
        return self.arrays[sample.name][1]


def dataset_of(arrays: dict[str, tuple[np.ndarray, np.ndarray]], *, label_domain: Domain | None = None) -> InMemory:
    samples = tuple(Sample(name, name, name) for name in arrays)
    alone = Sample("alone", "alone", None)
    return InMemory(
        name="little",
        root=None,
        label_domain=label_domain or Domain("classes", CLASSES),
        terms="ours",
        splits=MappingProxyType({"train": samples[:2], "val": (*samples, alone), "empty": (alone,)}),
        arrays=arrays,
    )


def little_dataset() -> InMemory:
    """Four samples of different sizes; the label is 1 where the photo is bright, with noise and void."""
    generator = np.random.default_rng(5)
    arrays = {}
    for index, (height, width) in enumerate([(20, 30), (17, 24), (8, 12), (33, 31)]):
        label = np.kron(generator.integers(0, 2, (5, 5)), np.ones((7, 7)))[:height, :width].astype(np.uint8)
        photo = np.repeat(np.where(label == 1, 200, 40).astype(np.uint8)[..., None], 3, axis=2)
        label = np.where(generator.random(label.shape) < 0.1, 1 - label, label).astype(np.uint8)
        label[generator.random(label.shape) < 0.1] = IGNORE
        arrays[f"s{index}"] = (photo, label)
    return dataset_of(arrays)


@dataclasses.dataclass(frozen=True)
class NoChoices:
    """The config of a method without choices."""


class Threshold(Method):
    """Bright pixels are class 1; class 1 is painted white. Knows whether it was called as it should be."""

    directions = frozenset({"to_label", "to_photo"})

    def __init__(self, label_domain: Domain | None = None) -> None:
        super().__init__(NoChoices(), label_domain=label_domain or Domain("classes", CLASSES), size=SIZE, seed=0)
        self.layer = nn.Dropout(0.9)
        self.held = nn.Dropout(0.9).eval()
        self.sizes: list[tuple[int, ...]] = []

    def to_label(self, photo: Photo) -> LabelMap | Photo:
        assert not self.layer.training
        assert torch.is_inference_mode_enabled()
        assert photo.dtype == torch.float32
        self.sizes.append(tuple(photo.shape))
        return -photo if self.label_domain.kind == "picture" else (photo.mean(1) > 0).long()

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        shade = torch.where(label == 1, 0.6, -0.6)
        return torch.stack([shade, shade, shade], dim=1) + (
            0 if noise is None else noise.mean(dim=(1, 2, 3), keepdim=True)
        )


RUN = dataclasses.replace(tiny_run("supervised"), method="threshold", recipe="tiny-threshold", steps=100, seed=7)


def recorded(
    folder: Path,
    *,
    method: Method | None = None,
    dataset: InMemory | None = None,
    pairs: tuple[Sample, ...] = (),
    unpaired: tuple[Sample, ...] = (),
    scope: Scope = VAL,
    **metrics: Any,
) -> Evaluation:
    """Evaluate and record a method that was trained on these samples."""
    dataset = dataset or little_dataset()
    selection = Selection(dataset, pairs, unpaired, (), rule="random", pool_rule="random", seed=0)
    method = method or Threshold()
    about: dict[str, Any] = {"run": RUN, "step": 80, "checkpoint": "best", "weights": "averaged"}
    return evaluate_and_record(method, dataset, selection, scope, folder=folder, **about, **metrics)


class ByLight(Judge):
    """Tells bright from dark by the red channel."""

    def __init__(self) -> None:
        super().__init__(None, name="by-light", sha256="ab12", classes=CLASSES, size=SIZE)

    def label(self, photo: np.ndarray) -> np.ndarray:
        return (photo[..., 0] > 127).astype(np.uint8)


BY_LIGHT = ByLight()
COLOURS = Extractor("colours", lambda pictures: (pictures.mean(axis=(1, 2)) / 255).astype(np.float32), "cd34")


def test_the_figures_are_those_of_pillow_bicubic_then_the_method_then_pillow_nearest_pixel_by_pixel() -> None:
    dataset = little_dataset()
    hits = counted = 0
    intersection, union = np.zeros(2), np.zeros(2)
    for photo, label in dataset.arrays.values():
        small = (
            np.asarray(Image.fromarray(photo).resize((12, 8), Image.Resampling.BICUBIC)).astype(np.float64).mean(axis=2)
        )
        decoded = (small > 127.5).astype(np.uint8)
        large = np.asarray(Image.fromarray(decoded).resize((label.shape[1], label.shape[0]), Image.Resampling.NEAREST))
        for y in range(label.shape[0]):
            for x in range(label.shape[1]):
                t, p = int(label[y, x]), int(large[y, x])
                if t == 255:
                    continue
                counted += 1
                hits += t == p
                for c in (0, 1):
                    intersection[c] += t == c and p == c
                    union[c] += t == c or p == c
    report = evaluate_to_label(Threshold(), dataset, VAL)
    assert report.figures["pixel_accuracy"] == pytest.approx(hits / counted)
    assert report.figures["mean_iou"] == pytest.approx((intersection / union).mean())
    assert report.figures["samples"] == 4


def test_evaluating_restores_the_mode_of_every_module() -> None:
    method = Threshold().train()
    method.held.eval()
    with evaluating(method, "cpu"):
        assert not method.training
    assert method.training
    assert method.layer.training
    assert not method.held.training


def test_evaluation_runs_in_fp32_even_inside_an_autocast() -> None:
    seen: list[torch.dtype] = []

    class Half(Threshold):
        def to_label(self, photo: Photo) -> LabelMap:
            seen.append(torch.nn.functional.conv2d(photo, torch.ones(1, 3, 1, 1)).dtype)
            return torch.zeros(photo.shape[0], *photo.shape[2:], dtype=torch.long)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        predict_labels(Half(), [np.zeros((8, 12, 3), np.uint8)], size=SIZE)
    assert seen == [torch.float32]


def test_the_ranking_runs_from_the_worst_to_the_best_sample_by_its_own_mean_iou() -> None:
    dataset = little_dataset()
    photo, label = dataset.arrays["s2"]
    dataset.arrays["s2"] = (photo, np.where(label == IGNORE, IGNORE, 1 - label).astype(np.uint8))
    report = evaluate_to_label(Threshold(), dataset, VAL)
    scores = [one.score for one in report.ranking]
    assert scores == sorted(scores)
    assert report.extremes() == {"worst": report.ranking[0], "median": report.ranking[2], "best": report.ranking[3]}
    assert report.ranking[0].name == "s2"


def test_a_limit_takes_samples_spread_over_the_split_and_keeps_its_ends() -> None:
    report = evaluate_to_label(Threshold(), little_dataset(), dataclasses.replace(VAL, limit=2))
    assert {one.name for one in report.ranking} == {"s0", "s3"}


def test_a_split_without_pairs_is_refused() -> None:
    with pytest.raises(UserError, match="split empty of little has no sample with both a photo and a label"):
        evaluate_to_label(Threshold(), little_dataset(), Scope("empty", SIZE))


def test_the_baselines_are_the_commonest_class_of_the_pairs_and_the_commonest_at_each_pixel() -> None:
    left_bright = np.zeros((8, 12), np.uint8)
    left_bright[:, :4] = 1
    all_dark = np.zeros((8, 12), np.uint8)
    half_bright = left_bright.copy()
    half_bright[:, 4:6] = 1
    half_bright[0] = IGNORE
    photo = np.zeros((8, 12, 3), np.uint8)
    dataset = dataset_of(
        {"a": (photo, left_bright), "b": (photo, left_bright), "c": (photo, half_bright), "d": (photo, all_dark)}
    )
    found = baselines(dataset, VAL, pairs=dataset.samples("train"))
    truths = [left_bright, left_bright, half_bright, all_dark]
    counted = sum(int((truth != IGNORE).sum()) for truth in truths)
    dark = sum(int((truth == 0).sum()) for truth in truths)
    assert found["commonest_class"]["pixel_accuracy"] == pytest.approx(dark / counted)
    assert found["commonest_class"]["mean_iou"] == pytest.approx(dark / counted / 2)
    right = sum(int((truth == left_bright).sum()) for truth in truths)
    assert found["commonest_class_per_pixel"]["pixel_accuracy"] == pytest.approx(right / counted)


def test_label_to_photo_is_measured_in_levels_at_the_network_s_resolution() -> None:
    dataset = little_dataset()
    distances = []
    for photo, label in dataset.arrays.values():
        truth = np.asarray(Image.fromarray(photo).resize((12, 8), Image.Resampling.BICUBIC)).astype(np.float64)
        small = np.asarray(Image.fromarray(label).resize((12, 8), Image.Resampling.NEAREST))
        painted = np.where(small == 1, 204.0, 51.0)[..., None]
        distances.append(np.abs(truth - painted).mean())
    figures = evaluate_to_photo(Threshold(), dataset, VAL).figures
    assert figures["photo_l1_levels"] == pytest.approx(np.mean(distances))
    assert figures["photo_l1"] == pytest.approx(np.mean(distances) / 127.5)
    assert isinstance(figures["photo_psnr"], float)


def test_a_method_that_takes_noise_gets_the_same_noise_for_the_same_sample_each_time() -> None:
    method = Threshold()
    method.noise_shape = (2, 3, 4)
    label = np.zeros((8, 12), np.uint8)
    first, again, other = (predict_photos(method, [label], size=SIZE, draws=[draw])[0] for draw in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_labels_that_are_pictures_are_evaluated_by_the_maps_accuracy() -> None:
    domain = Domain("picture")
    photo = np.full((8, 12, 3), 100, np.uint8)
    near, far = np.full((8, 12, 3), 155 - 19, np.uint8), np.full((8, 12, 3), 155 - 20, np.uint8)
    dataset = dataset_of({"near": (photo, near), "far": (photo, far)}, label_domain=domain)
    report = evaluate_to_label(Threshold(domain), dataset, VAL)
    assert report.figures == {"picture_accuracy": 0.5, "picture_l1_levels": 19.5, "samples": 2}
    assert report.ranking[0].name == "far"


def test_an_evaluation_is_written_with_all_that_it_depends_on_and_with_a_grid(tmp_path: Path) -> None:
    found = recorded(tmp_path / "evaluation", pairs=little_dataset().samples("train"))
    assert sorted(path.name for path in found.path.parent.iterdir()) == [
        "val-best-averaged.json",
        "val-best-averaged.png",
    ]
    written = json.loads(found.path.read_text())
    facts = {"dataset": "little", "split": "val", "size": [8, 12], "pairs": 2, "unpaired": 0, "limit": None}
    facts |= {"method": "threshold", "recipe": "tiny-threshold", "steps": 100, "step": 80, "seed": 7}
    facts |= {"checkpoint": "best", "weights": "averaged", "judge": "labels of the dataset"}
    assert {name: written[name] for name in facts} == facts
    assert written["figures"] == found.figures
    assert {"mean_iou", "photo_psnr", "samples"} <= written["figures"].keys()
    assert set(written["baselines"]) == {"commonest_class", "commonest_class_per_pixel"}
    assert set(written["samples"]["to_label"]) == {"worst", "median", "best"}
    with Image.open(found.grid) as page:
        page.load()


def test_a_judge_and_an_extractor_see_every_generated_photo_beside_the_real_one_and_are_written_down(
    tmp_path: Path,
) -> None:
    dataset = little_dataset()
    found = recorded(tmp_path, judge=BY_LIGHT, features=COLOURS)
    generated, real = Confusion(CLASSES), Confusion(CLASSES)
    for photo, label in dataset.arrays.values():
        small = (
            np.asarray(Image.fromarray(label).resize((12, 8), Image.Resampling.NEAREST)) == 1
        )  # painted 204, the others 51
        generated.add(label, resized(small.astype(np.uint8), label.shape))
        seen = np.asarray(Image.fromarray(photo).resize((12, 8), Image.Resampling.BICUBIC))[..., 0] > 127
        real.add(label, resized(seen.astype(np.uint8), label.shape))
    assert found.figures["judge_mean_iou"] == generated.mean_iou
    assert found.figures["judge_on_real_mean_iou"] == real.mean_iou
    assert found.figures["judge_mean_iou"] != found.figures["judge_on_real_mean_iou"]
    assert found.figures["fid[colours]"] > 0
    written = json.loads(found.path.read_text())
    assert written["figures"] == found.figures
    assert written["photo_judge"] == {"name": "by-light", "sha256": "ab12"}
    assert (written["distribution"]["extractor"], written["distribution"]["photos"]) == ("colours", 4)
    assert written["cautions"] == found.cautions != []


def test_the_printed_table_has_a_line_per_figure_and_columns_for_real_photos_and_baselines(tmp_path: Path) -> None:
    found = recorded(tmp_path, pairs=little_dataset().samples("train"), judge=BY_LIGHT, features=COLOURS)
    heading, *lines = table(found.figures, found.baselines).splitlines()
    assert re.fullmatch(
        r" *this run \(seen in training\) +real photos +commonest class +commonest class per pixel", heading
    )
    cells = {line[0]: line[1:] for line in (re.split(r"  +", line.strip()) for line in lines)}
    figures, baseline = found.figures, found.baselines["commonest_class"]
    assert cells["judge mean iou"] == [f"{figures[name]:.4g}" for name in ("judge_mean_iou", "judge_on_real_mean_iou")]
    assert cells["mean iou"][:2] == [f"{each['mean_iou']:.4g}" for each in (figures, baseline)]
    assert cells["kid[colours]"] == [f"{figures['kid[colours]']:.4g}"]
    assert cells["samples"][0] == "4"
    assert cells["iou absent"] == ["-", "-", "-"]
    assert cells["judge iou dark"][0] == f"{figures['judge_per_class_iou']['dark']:.4g}"


def test_figures_on_photos_that_were_trained_on_are_marked_in_the_output_and_in_the_record(tmp_path: Path) -> None:
    dataset = little_dataset()
    samples = tuple(sample for sample in dataset.samples("val") if sample.complete)
    new = recorded(tmp_path / "new")
    assert "seen_in_training" not in new.figures
    assert "seen in training" not in table(new.figures, new.baselines)
    seen = recorded(tmp_path / "seen", pairs=samples[:1], unpaired=samples[:3])
    assert seen.figures["seen_in_training"] == 3
    assert "this run (seen in training)" in table(seen.figures, seen.baselines)
    written = json.loads(seen.path.read_text())
    assert written["figures"]["seen_in_training"] == 3
    assert "3 of 4 evaluated photos were seen in training (1 as pairs)" in written["cautions"][0]


def test_evaluations_by_a_judge_or_an_extractor_have_files_of_their_own(tmp_path: Path) -> None:
    for given in ({}, {"judge": BY_LIGHT}, {"judge": BY_LIGHT, "features": COLOURS}):
        recorded(tmp_path, **given)
    names = ["val-best-averaged-by-light-colours", "val-best-averaged-by-light", "val-best-averaged"]
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == sorted(names)


def test_a_method_without_photos_is_refused_a_judge_before_any_work(tmp_path: Path) -> None:
    method = Threshold()
    method.directions = frozenset({"to_label"})
    for option, given in (("judge", {"judge": BY_LIGHT}), ("features", {"features": COLOURS})):
        with pytest.raises(
            UserError, match=f"--{option} .* evaluates generated photos, but this method makes label maps"
        ):
            recorded(tmp_path / "e", method=method, **given)
    assert not (tmp_path / "e").exists()
    assert method.sizes == []
