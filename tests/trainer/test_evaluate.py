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
from trainer.commands.evaluate import table
from trainer.data.catalogue import Dataset, Sample
from trainer.data.decode import BrokenFile
from trainer.errors import UserError
from trainer.labels import nearest_class
from trainer.methods.base import Method
from trainer.metrics.decoding import upscaled_then_decoded
from trainer.metrics.distribution import Extractor
from trainer.metrics.evaluate import evaluate_to_label, evaluate_to_photo, floors, judging, predict_label, predict_photo, stretch
from trainer.metrics.judge import Judge, Scale
from trainer.metrics.provenance import Provenance
from trainer.metrics.record import evaluate_and_record
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
        super().__init__(None, photo_domain=Domain("picture"), label_domain=label_domain or Domain("classes", CLASSES), size=SIZE, seed=0)
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


PROVENANCE = Provenance(
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


class ByLight(Judge):
    """Tells bright from dark by the red channel."""

    def __init__(self) -> None:
        super().__init__(None, name="by-light", sha256="ab12", ids=np.arange(256), scale=Scale())

    def label(self, photo: np.ndarray) -> np.ndarray:
        return (photo[..., 0] > 127).astype(np.uint8)


BY_LIGHT = ByLight()
COLOURS = Extractor("colours", lambda pictures: (pictures.mean(axis=(1, 2)) / 255).astype(np.float32), "cd34")


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
    found = evaluate_and_record(
        Threshold(), dataset, folder=tmp_path / "evaluation", provenance=PROVENANCE, train_samples=dataset.samples("train")
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


class Painter(Threshold):
    """Paints its label maps: a colour for each class, a blend between them."""

    def painted_label(self, photo: Photo) -> Photo:
        return photo

    def to_label(self, photo: Photo) -> LabelMap:
        return nearest_class(photo, CLASSES)


def test_the_paper_s_decoding_is_pillow_bilinear_then_the_nearest_colour_pixel_by_pixel() -> None:
    painted = np.random.default_rng(3).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(painted).resize((15, 11), Image.Resampling.BILINEAR))
    expected = [
        [min(range(3), key=lambda c: sum((int(a) - int(b)) ** 2 for a, b in zip(pixel, CLASSES.palette[c], strict=True))) for pixel in row]
        for row in large
    ]
    assert upscaled_then_decoded(painted, (11, 15), CLASSES).tolist() == expected


def test_a_blend_on_the_border_of_two_classes_is_read_as_a_third_one_by_the_paper_s_order_alone() -> None:
    table = class_table([(0, "red", (255, 0, 0), False), (1, "blue", (0, 0, 255), False), (2, "purple", (128, 0, 128), False)])
    painted = np.zeros((2, 4, 3), np.uint8)
    painted[:, :2], painted[:, 2:] = (255, 0, 0), (0, 0, 255)
    assert set(np.unique(upscaled_then_decoded(painted, (16, 32), table))) == {0, 1, 2}


def test_a_method_that_paints_is_also_scored_as_the_paper_decodes_and_only_where_that_is_asked_for() -> None:
    dataset = little_dataset()
    confusion = Confusion(CLASSES)
    for photo, label in dataset.arrays.values():
        small = np.asarray(Image.fromarray(photo).resize((12, 8), Image.Resampling.BICUBIC))
        confusion.add(label, upscaled_then_decoded(small, label.shape, CLASSES))
    plain = evaluate_to_label(Painter(), dataset, split="val", size=SIZE).figures
    both = evaluate_to_label(Painter(), dataset, split="val", size=SIZE, paper_decoding=True).figures
    assert both == plain | {f"paper_decoding_{name}": value for name, value in confusion.figures().items()}
    assert both["paper_decoding_mean_iou"] != both["mean_iou"]
    assert evaluate_to_label(Threshold(), dataset, split="val", size=SIZE, paper_decoding=True).figures.keys() == plain.keys()


def test_a_judge_and_an_extractor_see_every_generated_photo_beside_the_real_one_and_are_written_down(tmp_path: Path) -> None:
    dataset = little_dataset()
    found = evaluate_and_record(
        Threshold(), dataset, folder=tmp_path, provenance=PROVENANCE, train_samples=(), judge=BY_LIGHT, features=COLOURS
    )
    generated, real = Confusion(CLASSES), Confusion(CLASSES)
    for photo, label in dataset.arrays.values():
        small = np.asarray(Image.fromarray(label).resize((12, 8), Image.Resampling.NEAREST)) == 1  # painted 204, the others 51
        generated.add(label, stretch(small.astype(np.uint8), label.shape))
        seen = np.asarray(Image.fromarray(photo).resize((12, 8), Image.Resampling.BICUBIC))[..., 0] > 127
        real.add(label, stretch(seen.astype(np.uint8), label.shape))
    assert found.figures["judge_mean_iou"] == generated.mean_iou
    assert found.figures["judge_on_real_mean_iou"] == real.mean_iou
    assert found.figures["judge_mean_iou"] != found.figures["judge_on_real_mean_iou"]
    assert found.figures["fid[colours]"] > 0
    written = json.loads(found.path.read_text())
    assert written["figures"] == found.figures
    assert written["photo_judge"] == {"name": "by-light", "sha256": "ab12"}
    assert (written["distribution"]["extractor"], written["distribution"]["generated"], written["distribution"]["real"]) == (
        "colours",
        4,
        4,
    )
    assert written["cautions"] == list(found.cautions) != []
    printed = table(found.figures, found.floors).splitlines()
    heading = next(place for place, line in enumerate(printed) if "the judge on generated photos" in line)
    assert "on the real ones" in printed[heading]
    assert printed[heading + 3].split() == ["mean", "iou", f"{generated.mean_iou:.3f}", f"{real.mean_iou:.3f}"]
    iou, iou_on_real = generated.figures()["per_class_iou"], real.figures()["per_class_iou"]
    assert isinstance(iou, dict)
    assert isinstance(iou_on_real, dict)
    by_class = [line.split() for line in printed[heading:] if line.startswith("  IoU ")]
    assert by_class == [
        ["IoU", name, *("-" if figures[name] is None else f"{figures[name]:.3f}" for figures in (iou, iou_on_real))]
        for name in ("dark", "bright", "absent")
    ]
    assert any(line.strip() == "4 generated against 4 real photos" for line in printed)
    assert sum(line.startswith("kid[colours]") for line in printed) == 1
    assert not any("judge" in line for line in printed[:heading])


def test_a_method_without_photos_is_refused_a_judge_before_any_work(tmp_path: Path) -> None:
    method = Threshold()
    method.directions = frozenset({"to_label"})
    for option, given in (("judge", {"judge": BY_LIGHT}), ("features", {"features": COLOURS})):
        with pytest.raises(UserError, match=f"--{option} .* looks at generated photos, but this method makes label maps only"):
            evaluate_and_record(method, little_dataset(), folder=tmp_path / "e", provenance=PROVENANCE, train_samples=(), **given)
    pictures = dataset_of(little_dataset().arrays, label_domain=Domain("picture"))
    with pytest.raises(UserError, match="--judge by-light finds classes in photos, but the labels of little are pictures"):
        evaluate_and_record(
            Threshold(Domain("picture")), pictures, folder=tmp_path / "e", provenance=PROVENANCE, train_samples=(), judge=BY_LIGHT
        )
    assert not (tmp_path / "e").exists()
    assert method.sizes == []


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
