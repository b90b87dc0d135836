"""Evaluates a method on a split against the true labels and photos, and baselines."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, cycle, islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from trainer.batch import IGNORE, Classes, Domain, random
from trainer.data.dataset import Dataset, Sample, resized
from trainer.errors import UserError
from trainer.methods.base import Method
from trainer.metrics.predict import Size, predict_labels, predict_photos
from trainer.metrics.segmentation import Confusion, Figures
from trainer.progress import progress_bar

BATCH, SEARCHED, ENOUGH = 8, 40, 0.002
"""Samples per forward pass (no network mixes them in eval mode), the most photos searched for rare classes, and the
share of a photo's pixels from which on it is named."""
DIVERSE = 20
"""The most label maps whose photos' diversity is measured."""


@dataclass(frozen=True)
class Scope:
    """Which samples are evaluated, and how."""

    split: str
    size: Size
    """Height and width of the network's resolution."""
    limit: int | None = None
    """This many samples spread evenly over the split; None: all."""
    device: str | torch.device = "cpu"
    progress: bool = False


class SampleScore(NamedTuple):
    """A sample's score (mean IoU, maps accuracy for pictures, or PSNR for photos), its place in the split, its name."""

    score: float
    place: int
    name: str


@dataclass(frozen=True)
class Report:
    """The figures of one direction on one split."""

    figures: Figures
    ranking: tuple[SampleScore, ...]
    """The samples from the lowest score to the highest."""
    details: dict[str, Any] = field(default_factory=dict)
    """Of label maps: `confusion` counts, and `iou_at_size`, each class's IoU if all is right at the network's size."""

    def extremes(self) -> dict[str, SampleScore]:
        """Return the worst, the median and the best sample; none if nothing was scored."""
        places = {"worst": 0, "median": len(self.ranking) // 2, "best": -1}
        return {word: self.ranking[place] for word, place in places.items()} if self.ranking else {}


class PhotoMetric(Protocol):
    """A metric of generated photos that collects them one by one."""

    def add(self, generated: np.ndarray, real: np.ndarray, label: np.ndarray) -> None:
        """Take a generated and the real photo, uint8[h,w,3] at the network's size, and their label as it is read."""

    def figures(self) -> Figures:
        """Return the figures over all photos."""


def evaluate_to_label(method: Method, dataset: Dataset, scope: Scope) -> Report:
    """Evaluate photo -> label on a split.

    Classes are decoded at the network's resolution, resized to the label's own size with nearest, and counted in one
    confusion matrix. Where labels are pictures: the maps accuracy and L1 at the network's resolution.
    """
    classes = dataset.label_domain.classes
    confusion = None if classes is None else Confusion(classes)
    at_size = None if classes is None else Confusion(classes)
    distances: list[float] = []
    scores: list[SampleScore] = []
    samples = labelled(dataset, scope.split, limit=scope.limit)
    for batch in _batches(dataset, samples, scope, what="photo -> label"):
        photos = [photo for _, _, photo, _ in batch]
        predictions = predict_labels(method, photos, size=scope.size, device=scope.device)
        for prediction, (index, sample, _, label) in zip(predictions, batch, strict=True):
            score: float | None
            if confusion is None or at_size is None:
                truth = resized(label, scope.size)
                distances.append(l1_levels(truth, prediction))
                score = maps_accuracy(truth, prediction)
            else:
                alone = Confusion(confusion.classes)
                alone.add(label, resized(prediction, label.shape))
                confusion.matrix += alone.matrix
                kept = resized(resized(label, scope.size), label.shape)
                at_size.add(np.where(kept == IGNORE, IGNORE, label), kept)
                score = alone.mean_iou
            if score is not None:
                scores.append(SampleScore(score, index, sample.name))
    if confusion is not None and at_size is not None:
        details = {"confusion": confusion.matrix.tolist(), "iou_at_size": at_size.figures()["per_class_iou"]}
        return Report(confusion.figures() | {"samples": len(samples)}, tuple(sorted(scores)), details)
    accuracy = float(np.mean([each.score for each in scores]))
    figures: Figures = {"picture_accuracy": accuracy, "picture_l1_levels": float(np.mean(distances))}
    return Report(figures | {"samples": len(samples)}, tuple(sorted(scores)))


def evaluate_to_photo(method: Method, dataset: Dataset, scope: Scope, *, metrics: Sequence[PhotoMetric] = ()) -> Report:
    """Evaluate label -> photo on a split against the true photos at the network's resolution.

    `photo_l1_levels` is in levels of 0..255, `photo_l1` in the networks' range [-1,1], `photo_psnr` the mean over
    photos in dB. Further figures come from `metrics`.
    """
    distances: list[float] = []
    scores: list[SampleScore] = []
    samples = labelled(dataset, scope.split, limit=scope.limit)
    for batch in _batches(dataset, samples, scope, what="label -> photo"):
        indices, labels = [index for index, *_ in batch], [label for *_, label in batch]
        predictions = predict_photos(method, labels, size=scope.size, draws=indices, device=scope.device)
        for prediction, (index, sample, photo, label) in zip(predictions, batch, strict=True):
            truth = resized(photo, scope.size)
            distances.append(l1_levels(truth, prediction))
            scores.append(SampleScore(psnr(truth, prediction), index, sample.name))
            for metric in metrics:
                metric.add(prediction, truth, label)
    levels, ratio = float(np.mean(distances)), float(np.mean([each.score for each in scores]))
    figures: Figures = {
        "photo_l1_levels": levels,
        "photo_l1": levels / 127.5,
        "photo_psnr": ratio if math.isfinite(ratio) else None,
    }
    for metric in metrics:
        figures |= metric.figures()
    return Report(figures | {"samples": len(samples)}, tuple(sorted(scores)))


def baselines(dataset: Dataset, scope: Scope, *, pairs: Sequence[Sample]) -> dict[str, Figures]:
    """Evaluate two predictions that do not look at the photo, from the labels of the training `pairs`.

    `commonest_class` predicts the most frequent class everywhere, `..._per_pixel` that of each pixel.
    """
    classes = classes_of(dataset.label_domain)
    votes = np.zeros((classes.count, *scope.size), dtype=np.int64)
    for sample in pairs:
        votes += resized(dataset.read_label(sample), scope.size) == np.arange(classes.count)[:, None, None]
    if not votes.any():
        raise UserError(f"{dataset.place}: the labels of the {len(pairs)} training pairs are void everywhere")
    commonest = int(votes.sum(axis=(1, 2)).argmax())
    guesses = {
        "commonest_class": np.full(scope.size, commonest, dtype=np.uint8),
        "commonest_class_per_pixel": np.where(votes.any(axis=0), votes.argmax(axis=0), commonest).astype(np.uint8),
    }
    confusions = {name: Confusion(classes) for name in guesses}
    samples = labelled(dataset, scope.split, limit=scope.limit)
    for truth in map(dataset.read_label, samples):
        for name, guess in guesses.items():
            confusions[name].add(truth, resized(guess, truth.shape))
    return {name: {**confusion.figures(), "samples": len(samples)} for name, confusion in confusions.items()}


def diversity(method: Method, dataset: Dataset, scope: Scope, *, seeds: int) -> Figures:
    """Return the mean distance in levels between `seeds` photos of one label map, over at most 20 label maps.

    `..._on_real` is the same mean over as many groups of real photos; None if the split has only one photo.
    """
    every = labelled(dataset, scope.split)
    samples = spread(every, min(scope.limit or DIVERSE, DIVERSE))
    bar = progress_bar(samples, what=f"diversity, {scope.split}", unit="sample", shown=scope.progress)
    generated = []
    for index, sample in enumerate(bar):
        labels = [dataset.read_label(sample)]
        made = partial(predict_photos, method, labels, size=scope.size, draws=[index], device=scope.device)
        generated.append(mean_distance(made(stream=f"diversity-{seed}")[0] for seed in range(seeds)))
    order = random(0, 0, "real photos").permutation(len(every))[: len(generated) * seeds]
    photos = [resized(dataset.read_photo(every[place]), scope.size) for place in order]
    size, endless = min(seeds, len(photos)), cycle(photos)
    real = [mean_distance(list(islice(endless, size))) for _ in generated] if size > 1 else []
    return {
        "diversity_l1_levels": float(np.mean(generated)),
        "diversity_l1_levels_on_real": float(np.mean(real)) if real else None,
    }


def _batches(
    dataset: Dataset, samples: Sequence[Sample], scope: Scope, *, what: str
) -> Iterator[list[tuple[int, Sample, np.ndarray, np.ndarray]]]:
    """Yield lists of up to BATCH places, samples, photos uint8[H,W,3] and labels, with a progress bar."""
    bar = progress_bar(samples, what=f"{what}, {scope.split}", unit="sample", shown=scope.progress)
    read = ((place, each, dataset.read_photo(each), dataset.read_label(each)) for place, each in enumerate(bar))
    while batch := list(islice(read, BATCH)):
        yield batch


def photos_of_classes(method: Method, dataset: Dataset, photos: Sequence[Sample], scope: Scope) -> dict[str, list[str]]:
    """Return, for each class, the names of up to 3 of the photos where the method predicts most of it, and enough."""
    names, shown = classes_of(dataset.label_domain).names, spread(photos, SEARCHED)
    read = ([dataset.read_photo(sample)] for sample in shown)
    made = (predict_labels(method, photo, size=scope.size, device=scope.device) for photo in read)
    counts = (np.bincount(label.ravel(), minlength=len(names)) / label.size for label in made)
    pixels = np.array(list(counts)).reshape(-1, len(names))
    order = np.argsort(-pixels, axis=0, kind="stable")[:3].T
    return {
        name: [shown[place].name for place in places if pixels[place, index] >= ENOUGH]
        for index, (name, places) in enumerate(zip(names, order, strict=True))
    }


def labelled(dataset: Dataset, split: str, *, limit: int | None = None) -> tuple[Sample, ...]:
    """Return the samples of a split that have a photo and a label: all, or `limit` of them spread evenly."""
    samples = tuple(sample for sample in dataset.samples(split) if sample.complete)
    if not samples:
        raise UserError(f"split {split} of {dataset.place} has no sample with both a photo and a label")
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: give 1 or more")
    return samples if limit is None else spread(samples, limit)


def spread(samples: Sequence[Any], count: int) -> tuple[Any, ...]:
    """Return `count` of the samples spread evenly, or all if there are fewer."""
    places = np.linspace(0, len(samples) - 1, min(count, len(samples)))
    return tuple(samples[place] for place in places.round().astype(int))


def classes_of(domain: Domain) -> Classes:
    """Return the class table of a label domain. Raises UserError where labels are pictures."""
    if domain.classes is None:
        raise UserError("the labels of this dataset are pictures, not classes: there are no class figures to compute")
    return domain.classes


def l1_levels(truth: np.ndarray, picture: np.ndarray) -> float:
    """Return the mean absolute difference of two pictures uint8[H,W,3] in levels of 0..255."""
    return float(np.abs(truth.astype(np.int16) - picture.astype(np.int16)).mean())


def mean_distance(pictures: Iterable[np.ndarray]) -> float:
    """Return the mean of `l1_levels` over all pairs of pictures."""
    return float(np.mean([l1_levels(one, other) for one, other in combinations(pictures, 2)]))


def psnr(truth: np.ndarray, picture: np.ndarray) -> float:
    """Return 10 log10(255^2 / mean squared difference) of two pictures uint8[H,W,3], in dB; inf if equal."""
    error = float(np.square(truth.astype(np.float64) - picture.astype(np.float64)).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def maps_accuracy(truth: np.ndarray, picture: np.ndarray) -> float:
    """Return the share of pixels whose channels differ by less than 20 levels (Shukla et al., section 6, maps)."""
    difference = np.abs(truth.astype(np.int16) - picture.astype(np.int16)).max(axis=-1)
    return float((difference < 20).mean())
