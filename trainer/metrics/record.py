"""Writes an evaluation down in a run's folder: the figures with everything that makes them honest, and pictures of the samples."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.data.catalogue import Dataset, Sample
from trainer.data.loader import photo_to_uint8, prepare_photo
from trainer.errors import UserError
from trainer.methods.base import Method
from trainer.metrics.distribution import Extractor, PhotoSets
from trainer.metrics.evaluate import (
    Report,
    SampleScore,
    Size,
    classes_of,
    evaluate_to_label,
    evaluate_to_photo,
    floors,
    labelled,
    predict_label,
    predict_photo,
    stretch,
)
from trainer.metrics.judge import Judge, Verdict
from trainer.metrics.pictures import colourise, overlay, sheet, shrink
from trainer.metrics.segmentation import Figures

CELL = 384
"""Width in pixels of a picture on an evaluation's sheet."""


@dataclass(frozen=True)
class Provenance:
    """What a figure is a figure of."""

    dataset: str
    split: str
    size: Size
    method: str
    recipe: str | None
    pairs: int
    unpaired: int
    steps: int
    step: int
    """The step the checkpoint was saved at; `steps` is what the run was planned for."""
    seed: int
    checkpoint: str
    weights: str
    limit: int | None = None

    @property
    def stem(self) -> str:
        """The name of the files of this evaluation."""
        return "-".join([self.split, self.checkpoint, self.weights, *([f"{self.limit}-samples"] if self.limit is not None else [])])


@dataclass(frozen=True)
class Evaluation:
    """What was found, and where it was written."""

    figures: Figures
    floors: dict[str, Figures]
    path: Path
    pictures: tuple[Path, ...]
    skipped: tuple[str, ...] = ()
    """Why each broken sample was left out, with its path."""
    cautions: tuple[str, ...] = ()
    """Why not to trust some figures too far."""


def evaluate_and_record(
    method: Method,
    dataset: Dataset,
    *,
    folder: Path,
    provenance: Provenance,
    train_samples: Sequence[Sample],
    device: str | torch.device = "cpu",
    progress: bool = False,
    skip_broken: bool = False,
    judge: Judge | None = None,
    features: Extractor | None = None,
) -> Evaluation:
    """Judge every direction the method offers and write `<split>-<checkpoint>-<weights>.json` and its pictures into `folder`.

    `train_samples` are the training pairs: the floors are counted over their labels (none, as for cyclegan: no floors).
    With `skip_broken` samples that cannot be read are left out, counted and named. Of generated photos a `judge` adds the figures
    `judge_...` and, for the real photos, `judge_on_real_...`; `features` adds fid, kid, precision and recall.
    """
    _refuse_witnesses_without_a_photo(method, dataset, judge=judge, features=features)
    split, size, limit = provenance.split, provenance.size, provenance.limit
    folder.mkdir(parents=True, exist_ok=True)
    figures: Figures = {}
    rankings: dict[str, dict[str, object]] = {}
    beside: dict[str, Figures] = {}
    written: list[Path] = []
    skipped: dict[str, None] = {}
    if "to_label" in method.directions:
        report = evaluate_to_label(
            method,
            dataset,
            split=split,
            size=size,
            device=device,
            limit=limit,
            progress=progress,
            skip_broken=skip_broken,
            paper_decoding=True,
        )
        figures.update(report.figures)
        skipped |= dict.fromkeys(report.skipped)
        rankings["to_label"] = _extremes(report)
        if dataset.label_domain.kind == "classes" and train_samples:
            beside = floors(dataset, train_samples=train_samples, split=split, size=size, limit=limit, skip_broken=skip_broken)
        page = label_sheet(method, dataset, report, provenance=provenance, device=device)
        written.append(_save(page, folder / f"{provenance.stem}.png"))
    verdict = None if judge is None else Verdict(judge, classes_of(dataset.label_domain))
    sets = None if features is None else PhotoSets(features)
    if "to_photo" in method.directions:
        report = evaluate_to_photo(
            method,
            dataset,
            split=split,
            size=size,
            device=device,
            limit=limit,
            progress=progress,
            skip_broken=skip_broken,
            witnesses=[witness for witness in (verdict, sets) if witness is not None],
        )
        figures.update(report.figures)
        for witness in (verdict, sets):
            figures.update({} if witness is None else witness.figures())
        skipped |= dict.fromkeys(report.skipped)
        rankings["to_photo"] = _extremes(report)
        page = photo_sheet(method, dataset, report, provenance=provenance, device=device)
        written.append(_save(page, folder / f"{provenance.stem}-photos.png"))
    cautions = [] if sets is None else sets.cautions()
    path = folder / f"{provenance.stem}.json"
    document = {
        "format": 1,
        **asdict(provenance),
        "judge": "labels of the dataset" if dataset.label_domain.kind == "classes" else "pictures of the dataset",
        "figures": figures,
        "photo_judge": None if judge is None else {"name": judge.name, "sha256": judge.sha256},
        "distribution": None if sets is None else sets.described(),
        "cautions": cautions,
        "floors": beside,
        "samples": rankings,
        "skipped": list(skipped),
    }
    _replace(path, json.dumps(document, indent=2, allow_nan=False) + "\n")
    return Evaluation(figures, beside, path, tuple(written), tuple(skipped), tuple(cautions))


def label_sheet(
    method: Method, dataset: Dataset, report: Report, *, provenance: Provenance, device: str | torch.device = "cpu"
) -> Image.Image:
    """The worst, the median and the best sample: photo, truth, prediction, and the prediction laid over the photo."""
    by_name = {sample.name: sample for sample in labelled(dataset, provenance.split)}
    kind = "mean IoU" if dataset.label_domain.kind == "classes" else "accuracy"
    rows, names = [], []
    for word, one in _three(report):
        sample = by_name[one.name]
        photo, truth = dataset.read_photo(sample), dataset.read_label(sample)
        prediction = predict_label(method, photo, size=provenance.size, device=device)
        if dataset.label_domain.kind == "classes":
            classes = classes_of(dataset.label_domain)
            prediction = colourise(stretch(prediction, photo.shape[:2]), classes)
            truth = colourise(truth, classes)
        else:
            prediction = np.asarray(Image.fromarray(prediction).resize((photo.shape[1], photo.shape[0]), Image.Resampling.BICUBIC))
        laid = overlay(shrink(photo, CELL), shrink(prediction, CELL, ids=True))
        rows.append([shrink(photo, CELL), shrink(truth, CELL, ids=True), shrink(prediction, CELL, ids=True), laid])
        names.append(f"{word}: {one.name}, {kind} {one.score:.3f}")
    return sheet(["photo", "truth", "prediction", "overlay"], rows, names=names, caption=caption(provenance, report))


def photo_sheet(
    method: Method, dataset: Dataset, report: Report, *, provenance: Provenance, device: str | torch.device = "cpu"
) -> Image.Image:
    """The worst, the median and the best sample by PSNR: label, the method's photo, and the true photo at the network's resolution."""
    samples = labelled(dataset, provenance.split, limit=provenance.limit)
    order = {sample.name: (index, sample) for index, sample in enumerate(samples)}
    rows, names = [], []
    for word, one in _three(report):
        index, sample = order[one.name]
        label = dataset.read_label(sample)
        photo = predict_photo(method, label, size=provenance.size, device=device, draw=index)
        truth = photo_to_uint8(prepare_photo(dataset.read_photo(sample), provenance.size))
        coloured = colourise(label, classes_of(dataset.label_domain)) if dataset.label_domain.kind == "classes" else label
        rows.append([shrink(coloured, CELL, ids=True), photo, truth])
        names.append(f"{word}: {one.name}, PSNR {one.score:.1f} dB")
    return sheet(["label", "photo from the label", "true photo"], rows, names=names, caption=caption(provenance, report))


def caption(provenance: Provenance, report: Report) -> str:
    """Two lines under a sheet: what was judged, and what came out."""
    height, width = provenance.size
    figures = ", ".join(
        f"{name} {value:.3f}"
        for name, value in report.figures.items()
        if isinstance(value, float) and not name.startswith("paper_decoding")
    )
    return (
        f"{provenance.recipe or provenance.method} on {provenance.dataset} {provenance.split}, {height}x{width}, "
        f"{provenance.pairs} pairs + {provenance.unpaired} unpaired, step {provenance.step} of {provenance.steps}, "
        f"seed {provenance.seed}, {provenance.checkpoint} checkpoint, {provenance.weights} weights\n"
        f"{report.figures['samples']} samples: {figures}"
    )


def _refuse_witnesses_without_a_photo(method: Method, dataset: Dataset, *, judge: Judge | None, features: Extractor | None) -> None:
    """Before any work: what only generated photos can be judged by."""
    if "to_photo" not in method.directions:
        for option, given in (("judge", judge), ("features", features)):
            if given is not None:
                raise UserError(f"--{option} {given.name} looks at generated photos, but this method makes label maps only: leave it out")
    if judge is not None and dataset.label_domain.kind != "classes":
        raise UserError(f"--judge {judge.name} finds classes in photos, but the labels of {dataset.name} are pictures: leave it out")


def _three(report: Report) -> list[tuple[str, SampleScore]]:
    three = [("worst", report.worst), ("median", report.median), ("best", report.best)]
    return [(word, one) for word, one in three if one is not None]


def _extremes(report: Report) -> dict[str, object]:
    return {word: {"name": one.name, "score": one.score if math.isfinite(one.score) else None} for word, one in _three(report)}


def _save(page: Image.Image, path: Path) -> Path:
    page.save(path, optimize=True)
    return path


def _replace(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
