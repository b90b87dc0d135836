"""Judging a method on a split: what is resized how, what the floors are, and what is written down."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.trainer.folders import TABLE, make_folders, open_folders
from trainer.batch import IGNORE, Domain, LabelMap, Photo, class_table
from trainer.data.catalogue import Dataset, Sample
from trainer.data.decode import BrokenFile
from trainer.errors import UserError
from trainer.methods.base import Method
from trainer.metrics.evaluate import evaluate_to_label, evaluate_to_photo, floors, judging, predict_label, predict_photo
from trainer.metrics.record import Provenance, evaluate_and_record

CLASSES = class_table(
    [
        (3, "dark", (0, 0, 0), False),
        (8, "bright", (255, 255, 255), False),
        (1, "void", (9, 9, 9), True),
        (5, "absent", (255, 0, 0), False),
    ]
)
SIZE = (8, 12)


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
        photo_domain=Domain("picture"),
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


class Threshold(Method):
    """Bright pixels are class 1; class 1 is painted white. Knows whether it was called as it should be."""

    directions = frozenset({"to_label", "to_photo"})

    def __init__(self, label_domain: Domain | None = None) -> None:
        super().__init__(None, photo_domain=Domain("picture"), label_domain=label_domain or Domain("classes", CLASSES), seed=0)
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
        return torch.stack([shade, shade, shade], dim=1) + (0 if noise is None else noise.mean(dim=(1, 2, 3), keepdim=True))


def test_the_figures_are_those_of_pillow_bicubic_then_the_method_then_pillow_nearest_pixel_by_pixel() -> None:
    dataset = little_dataset()
    hits = counted = 0
    intersection, union = np.zeros(2), np.zeros(2)
    for photo, label in dataset.arrays.values():
        small = np.asarray(Image.fromarray(photo).resize((12, 8), Image.Resampling.BICUBIC)).astype(np.float64).mean(axis=2)
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
    report = evaluate_to_label(Threshold(), dataset, split="val", size=SIZE)
    assert report.figures["pixel_accuracy"] == pytest.approx(hits / counted)
    assert report.figures["mean_iou"] == pytest.approx((intersection / union).mean())
    assert report.figures["samples"] == 4


def test_every_sample_is_judged_alone_so_that_batch_mates_cannot_change_it() -> None:
    method = Threshold()
    evaluate_to_label(method, little_dataset(), split="val", size=SIZE)
    assert method.sizes == [(1, 3, 8, 12)] * 4


def test_judging_leaves_every_part_of_the_method_in_the_mode_it_was_in() -> None:
    method = Threshold().train()
    method.held.eval()
    with judging(method, "cpu"):
        assert not method.training
    assert method.training
    assert method.layer.training
    assert not method.held.training


def test_judging_runs_in_fp32_even_inside_an_autocast() -> None:
    seen: list[torch.dtype] = []

    class Half(Threshold):
        def to_label(self, photo: Photo) -> LabelMap:
            seen.append(torch.nn.functional.conv2d(photo, torch.ones(1, 3, 1, 1)).dtype)
            return torch.zeros(photo.shape[0], *photo.shape[2:], dtype=torch.long)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        predict_label(Half(), np.zeros((8, 12, 3), np.uint8), size=SIZE)
    assert seen == [torch.float32]


def test_the_ranking_runs_from_the_worst_to_the_best_sample_by_its_own_mean_iou() -> None:
    dataset = little_dataset()
    photo, label = dataset.arrays["s2"]
    dataset.arrays["s2"] = (photo, np.where(label == IGNORE, IGNORE, 1 - label).astype(np.uint8))
    report = evaluate_to_label(Threshold(), dataset, split="val", size=SIZE)
    scores = [one.score for one in report.ranking]
    assert scores == sorted(scores)
    assert report.worst is not None
    assert report.worst.name == "s2"
    assert report.best == report.ranking[3]
    assert report.median == report.ranking[2]


def test_a_limit_takes_samples_spread_over_the_split_and_keeps_its_ends() -> None:
    report = evaluate_to_label(Threshold(), little_dataset(), split="val", size=SIZE, limit=2)
    assert {one.name for one in report.ranking} == {"s0", "s3"}


def test_a_split_without_pairs_is_refused_because_there_is_nothing_to_judge_by() -> None:
    with pytest.raises(UserError, match="split empty of little has no sample with both a photo and a label"):
        evaluate_to_label(Threshold(), little_dataset(), split="empty", size=SIZE)


def test_the_floors_are_the_commonest_class_of_the_pairs_and_the_commonest_at_each_pixel() -> None:
    left_bright = np.zeros((8, 12), np.uint8)
    left_bright[:, :4] = 1
    all_dark = np.zeros((8, 12), np.uint8)
    half_bright = left_bright.copy()
    half_bright[:, 4:6] = 1
    half_bright[0] = IGNORE
    photo = np.zeros((8, 12, 3), np.uint8)
    dataset = dataset_of({"a": (photo, left_bright), "b": (photo, left_bright), "c": (photo, half_bright), "d": (photo, all_dark)})
    found = floors(dataset, train_samples=dataset.samples("train"), split="val", size=SIZE)
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
    figures = evaluate_to_photo(Threshold(), dataset, split="val", size=SIZE).figures
    assert figures["photo_l1_levels"] == pytest.approx(np.mean(distances))
    assert figures["photo_l1"] == pytest.approx(np.mean(distances) / 127.5)
    assert isinstance(figures["photo_psnr"], float)


def test_a_method_that_takes_noise_gets_the_same_noise_for_the_same_sample_each_time() -> None:
    method = Threshold()
    method.noise_shape = (2, 3, 4)
    label = np.zeros((8, 12), np.uint8)
    first, again, other = (predict_photo(method, label, size=SIZE, draw=draw) for draw in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_labels_that_are_pictures_are_judged_by_the_maps_accuracy() -> None:
    domain = Domain("picture")
    photo = np.full((8, 12, 3), 100, np.uint8)
    near, far = np.full((8, 12, 3), 155 - 19, np.uint8), np.full((8, 12, 3), 155 - 20, np.uint8)
    dataset = dataset_of({"near": (photo, near), "far": (photo, far)}, label_domain=domain)
    report = evaluate_to_label(Threshold(domain), dataset, split="val", size=SIZE)
    assert report.figures == {"picture_accuracy": 0.5, "picture_l1_levels": 19.5, "samples": 2}
    assert report.worst is not None
    assert report.worst.name == "far"


def test_an_evaluation_is_written_with_all_that_an_honest_figure_needs_and_with_pictures(tmp_path: Path) -> None:
    dataset = little_dataset()
    provenance = Provenance(
        dataset="little",
        split="val",
        size=SIZE,
        method="threshold",
        recipe=None,
        pairs=2,
        unpaired=4,
        steps=100,
        step=80,
        seed=7,
        checkpoint="best",
        weights="averaged",
    )
    found = evaluate_and_record(
        Threshold(), dataset, folder=tmp_path / "evaluation", provenance=provenance, train_samples=dataset.samples("train")
    )
    assert found.path.name == "val-best-averaged.json"
    written = json.loads(found.path.read_text())
    honest = {
        "dataset",
        "split",
        "size",
        "pairs",
        "unpaired",
        "steps",
        "step",
        "seed",
        "method",
        "recipe",
        "checkpoint",
        "weights",
        "judge",
    }
    assert honest <= written.keys()
    assert written["judge"] == "labels of the dataset"
    assert written["figures"] == found.figures
    assert {"mean_iou", "photo_psnr", "samples"} <= written["figures"].keys()
    assert set(written["floors"]) == {"commonest_class", "commonest_class_per_pixel"}
    assert set(written["samples"]["to_label"]) == {"worst", "median", "best"}
    assert [path.name for path in found.pictures] == ["val-best-averaged.png", "val-best-averaged-photos.png"]
    for path in found.pictures:
        with Image.open(path) as page:
            page.load()
    assert sorted(path.name for path in found.path.parent.iterdir()) == sorted([found.path.name, *(path.name for path in found.pictures)])


def test_broken_samples_are_left_out_counted_and_named_where_that_is_allowed(tmp_path: Path) -> None:
    make_folders(tmp_path, table=TABLE, count=4)
    whole = open_folders(tmp_path)
    method = Threshold(whole.label_domain)
    photo, label = tmp_path / "photos" / "street1.jpg", tmp_path / "labels" / "street3.png"
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size * 2 // 3])
    label.write_bytes(label.read_bytes()[:60])
    pairs = whole.samples("train")
    readable = dataclasses.replace(whole, splits={"train": (pairs[0], pairs[2])})
    for judge in (evaluate_to_label, evaluate_to_photo):
        with pytest.raises(BrokenFile, match=r"street1\.jpg"):
            judge(method, whole, split="train", size=SIZE)
        report = judge(method, whole, split="train", size=SIZE, skip_broken=True)
        assert report.figures == judge(method, readable, split="train", size=SIZE).figures | {"skipped": 2}
        assert [Path(reason.split()[0]).name for reason in report.skipped] == ["street1.jpg", "street3.png"]
    found = floors(whole, train_samples=pairs, split="train", size=SIZE, skip_broken=True)
    assert found == {
        name: figures | {"skipped": 2}
        for name, figures in floors(readable, train_samples=readable.samples("train"), split="train", size=SIZE).items()
    }
    for path in (tmp_path / "photos").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="every one of the 4 samples to judge by is broken"):
        evaluate_to_label(method, whole, split="train", size=SIZE, skip_broken=True)
