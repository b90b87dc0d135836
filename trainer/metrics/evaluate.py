"""Judges a method on a split: photo -> label against the true labels, label -> photo against the true photos, beside the floors."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.batch import Classes, Domain, random
from trainer.data.catalogue import Dataset, Sample
from trainer.data.decode import BrokenFile
from trainer.data.loader import photo_to_uint8, prepare_label, prepare_photo
from trainer.errors import UserError
from trainer.methods.base import Method
from trainer.metrics.decoding import upscaled_then_decoded
from trainer.metrics.reconstruction import l1_levels, maps_accuracy, psnr
from trainer.metrics.segmentation import Confusion, Figures
from trainer.progress import told

Size = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True)
class SampleScore:
    """One sample's name and its score: mean IoU (maps accuracy where labels are pictures, PSNR for photos)."""

    name: str
    score: float


@dataclass(frozen=True)
class Report:
    """The figures of one direction on one split, and its samples from the worst to the best."""

    figures: Figures
    ranking: tuple[SampleScore, ...]
    skipped: tuple[str, ...] = ()
    """Why each broken sample was left out, with its path; `figures` counts them where they may be skipped."""

    @property
    def worst(self) -> SampleScore | None:
        return self.ranking[0] if self.ranking else None

    @property
    def median(self) -> SampleScore | None:
        return self.ranking[len(self.ranking) // 2] if self.ranking else None

    @property
    def best(self) -> SampleScore | None:
        return self.ranking[-1] if self.ranking else None


SegmentationReport = Report


class Seen(NamedTuple):
    """What a witness is shown of one sample of label -> photo."""

    generated: np.ndarray
    """uint8[h,w,3], at the network's resolution."""
    real: np.ndarray
    """uint8[h,w,3], the true photo at the same resolution."""
    label: np.ndarray
    """The label as the dataset reads it: uint8[H,W] class indices or IGNORE, or uint8[H,W,3] a picture."""


class Witness(Protocol):
    """Somebody who looks at every generated photo beside the real one, and keeps figures of its own."""

    def see(self, seen: Seen) -> None:
        """Look at one sample."""
        ...


def evaluate_to_label(
    method: Method,
    dataset: Dataset,
    *,
    split: str,
    size: Size,
    device: str | torch.device = "cpu",
    limit: int | None = None,
    progress: bool = False,
    skip_broken: bool = False,
    paper_decoding: bool = False,
) -> SegmentationReport:
    """Photo -> label over a split (or `limit` samples spread evenly over it).

    Classes are decoded at the network's resolution and stretched to the label's own size with nearest, then counted in one
    confusion matrix (methods E.4, E.9). With `paper_decoding` a method that paints its labels in colours is also read the other way
    round (`trainer.metrics.decoding`), for figures called `paper_decoding_...`. Where labels are pictures: the maps accuracy and L1 at
    the network's resolution (A.8.2).
    """
    material = Material(dataset, labelled(dataset, split, limit=limit), skip_broken=skip_broken)
    scores: list[SampleScore] = []
    confusion = Confusion(classes_of(dataset.label_domain)) if dataset.label_domain.kind == "classes" else None
    as_in_the_paper: Confusion | None = None
    accuracies, distances = [], []
    for _, sample, photo, truth in told(material, what=f"photo -> label, {split}", unit="sample", shown=progress):
        prediction = predict_label(method, photo, size=size, device=device)
        if confusion is None:
            truth = photo_to_uint8(prepare_photo(truth, size))
            accuracies.append(maps_accuracy(truth, prediction))
            distances.append(l1_levels(truth, prediction))
            scores.append(SampleScore(sample.name, accuracies[-1]))
            continue
        alone = Confusion(confusion.classes)
        alone.add(truth, stretch(prediction, truth.shape))
        confusion.matrix += alone.matrix
        painted = predict_painting(method, photo, size=size, device=device) if paper_decoding else None
        if painted is not None:
            as_in_the_paper = as_in_the_paper or Confusion(confusion.classes)
            as_in_the_paper.add(truth, upscaled_then_decoded(painted, truth.shape, confusion.classes))
        if alone.mean_iou is not None:
            scores.append(SampleScore(sample.name, alone.mean_iou))
    counts = material.counts()
    figures: Figures
    if confusion is not None:
        figures = confusion.figures()
        if as_in_the_paper is not None:
            figures |= {f"paper_decoding_{name}": value for name, value in as_in_the_paper.figures().items()}
    else:
        figures = {"picture_accuracy": float(np.mean(accuracies)), "picture_l1_levels": float(np.mean(distances))}
    return Report({**figures, **counts}, tuple(sorted(scores, key=lambda one: one.score)), tuple(material.skipped))


def evaluate_to_photo(
    method: Method,
    dataset: Dataset,
    *,
    split: str,
    size: Size,
    device: str | torch.device = "cpu",
    limit: int | None = None,
    progress: bool = False,
    skip_broken: bool = False,
    witnesses: Sequence[Witness] = (),
) -> Report:
    """Label -> photo over a split against the true photos at the network's resolution; every witness sees every sample.

    `photo_l1_levels` is in levels of 0..255, `photo_l1` the same in the networks' range [-1,1]; `photo_psnr` is the mean over images in dB.
    """
    material = Material(dataset, labelled(dataset, split, limit=limit), skip_broken=skip_broken)
    distances, ratios, scores = [], [], []
    for index, sample, photo, label in told(material, what=f"label -> photo, {split}", unit="sample", shown=progress):
        truth = photo_to_uint8(prepare_photo(photo, size))
        prediction = predict_photo(method, label, size=size, device=device, draw=index)
        distances.append(l1_levels(truth, prediction))
        ratios.append(psnr(truth, prediction))
        scores.append(SampleScore(sample.name, ratios[-1]))
        for witness in witnesses:
            witness.see(Seen(prediction, truth, label))
    counts = material.counts()
    levels, ratio = float(np.mean(distances)), float(np.mean(ratios))
    figures: Figures = {
        "photo_l1_levels": levels,
        "photo_l1": levels / 127.5,
        "photo_psnr": ratio if math.isfinite(ratio) else None,
        **counts,
    }
    return Report(figures, tuple(sorted(scores, key=lambda one: one.score)), tuple(material.skipped))


def floors(
    dataset: Dataset, *, train_samples: Sequence[Sample], split: str, size: Size, limit: int | None = None, skip_broken: bool = False
) -> dict[str, Figures]:
    """What two guesses that never look at the photo would reach: a method has learnt something where it clears both.

    `commonest_class` says everywhere the commonest class of the training labels; `commonest_class_per_pixel` says at each pixel what
    is commonest there. Both are counted over the labels of `train_samples` brought to `size` with nearest.
    """
    classes = classes_of(dataset.label_domain)
    votes = np.zeros((classes.count, *size), dtype=np.int64)
    for _, _, _, drawn in Material(dataset, train_samples, skip_broken=skip_broken):
        label = prepare_label(drawn, size).numpy()
        for index in range(classes.count):
            votes[index] += label == index
    if not votes.any():
        raise UserError(f"{dataset.name}: the {len(train_samples)} training pairs hold no labelled pixel: there is no commonest class")
    commonest = int(votes.sum(axis=(1, 2)).argmax())
    per_pixel = np.where(votes.any(axis=0), votes.argmax(axis=0), commonest).astype(np.uint8)
    everywhere = np.full(size, commonest, dtype=np.uint8)
    guesses = {"commonest_class": everywhere, "commonest_class_per_pixel": per_pixel}
    confusions = {name: Confusion(classes) for name in guesses}
    material = Material(dataset, labelled(dataset, split, limit=limit), skip_broken=skip_broken)
    for _, _, _, truth in material:
        for name, guess in guesses.items():
            confusions[name].add(truth, stretch(guess, truth.shape))
    return {name: {**confusion.figures(), **material.counts()} for name, confusion in confusions.items()}


class Material:
    """Samples read one after the other: (place, sample, photo, label); those with a broken side are left out where that is allowed."""

    def __init__(self, dataset: Dataset, samples: Sequence[Sample], *, skip_broken: bool) -> None:
        self.dataset = dataset
        self.samples = samples
        self.skip_broken = skip_broken
        self.skipped: list[str] = []
        """Why each one was left out, with its path."""

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[tuple[int, Sample, np.ndarray, np.ndarray]]:
        self.skipped = []
        for place, sample in enumerate(self.samples):
            try:
                photo, label = self.dataset.read_photo(sample), self.dataset.read_label(sample)
            except BrokenFile as error:
                if not self.skip_broken:
                    raise
                self.skipped.append(error.reason)
                continue
            yield place, sample, photo, label

    def counts(self) -> dict[str, int]:
        """How many were read and, where that is allowed, how many were not. Raises UserError where none was."""
        if len(self.skipped) == len(self.samples):
            raise UserError(f"{self.dataset.place}: every one of the {len(self.samples)} samples to judge by is broken: {self.skipped[0]}")
        return {"samples": len(self.samples) - len(self.skipped)} | ({"skipped": len(self.skipped)} if self.skip_broken else {})


def predict_label(method: Method, photo: np.ndarray, *, size: Size, device: str | torch.device = "cpu") -> np.ndarray:
    """uint8[H,W,3] of any size -> the method's label at the network's `size`: uint8[h,w] class indices, or uint8[h,w,3] a picture."""
    with judging(method, device):
        answer = method.to_label(prepare_photo(photo, size)[None].to(device))[0].cpu()
    if method.label_domain.kind == "picture":
        return photo_to_uint8(answer)
    return answer.numpy().astype(np.uint8)


def predict_painting(method: Method, photo: np.ndarray, *, size: Size, device: str | torch.device = "cpu") -> np.ndarray | None:
    """uint8[H,W,3] of any size -> the label map as the method paints it, uint8[h,w,3] at `size`; None where it does not paint."""
    with judging(method, device):
        painted = method.painted_label(prepare_photo(photo, size)[None].to(device))
    return None if painted is None else photo_to_uint8(painted[0].cpu())


def predict_photo(
    method: Method,
    label: np.ndarray,
    *,
    size: Size,
    device: str | torch.device = "cpu",
    draw: int = 0,
    stream: str = "evaluation",
) -> np.ndarray:
    """A label as the dataset reads it -> the method's photo, uint8[h,w,3] at `size`.

    Of methods that take noise, `draw` and `stream` number the noise: a function of the method's seed and of these alone.
    """
    prepared = prepare_label(label, size)
    noise: Tensor | None = None
    if method.noise_shape is not None:
        values = random(method.seed, 0, stream, draw).standard_normal((1, *method.noise_shape), dtype=np.float32)
        noise = torch.from_numpy(values).to(device)
    with judging(method, device):
        return photo_to_uint8(method.to_photo(prepared[None].to(device), noise)[0].cpu())


@contextmanager
def judging(method: Method, device: str | torch.device) -> Iterator[None]:
    """The method as it is judged: on the device, in eval mode, in fp32 and without gradients; its modes come back afterwards."""
    method.to(device)
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    try:
        with torch.inference_mode(), torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        for module, training in modes:
            module.training = training


def stretch(indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Class indices uint8[h,w] brought to (height, width) with Pillow's nearest."""
    if indices.shape == tuple(shape):
        return indices
    return np.asarray(Image.fromarray(indices).resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def labelled(dataset: Dataset, split: str, *, limit: int | None = None) -> tuple[Sample, ...]:
    """The samples of a split that have both a photo and a label: all, or `limit` of them spread evenly."""
    samples = tuple(sample for sample in dataset.samples(split) if sample.complete)
    if not samples:
        raise UserError(f"split {split} of {dataset.name} has no sample with both a photo and a label: there is nothing to judge by")
    if limit is None or limit >= len(samples):
        return samples
    if limit < 1:
        raise UserError(f"--limit {limit} leaves no sample to judge by: give 1 or more")
    return tuple(samples[index] for index in np.linspace(0, len(samples) - 1, limit).round().astype(int))


def classes_of(domain: Domain) -> Classes:
    """The class table of a label domain that has one."""
    if domain.classes is None:
        raise UserError("the labels of this dataset are pictures, not classes: there are no class figures to compute")
    return domain.classes
