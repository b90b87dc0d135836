"""Evaluates a checkpoint and records it: a JSON file of figures and what they depend on, and a grid of samples."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.data.dataset import Dataset
from trainer.data.selection.selection import Selection
from trainer.errors import UserError
from trainer.grids import sample_grid
from trainer.methods.base import Method
from trainer.metrics.distribution import DistributionMetric, Extractor
from trainer.metrics.evaluate import (
    PhotoMetric,
    Report,
    Scope,
    baselines,
    classes_of,
    diversity,
    evaluate_to_label,
    evaluate_to_photo,
    labelled,
    photos_of_classes,
)
from trainer.metrics.judge import FcnScore, Judge
from trainer.metrics.predict import translations
from trainer.metrics.segmentation import Figures
from trainer.run import Run


@dataclass(frozen=True)
class Evaluation:
    """The figures of an evaluation, and the files that were written."""

    figures: Figures
    baselines: dict[str, Figures]
    cautions: list[str]
    path: Path
    grid: Path


def evaluate_and_record(
    method: Method,
    dataset: Dataset,
    selection: Selection,
    scope: Scope,
    *,
    run: Run,
    step: int,
    checkpoint: str,
    weights: Literal["averaged", "raw"],
    folder: Path,
    judge: Judge | None = None,
    features: Extractor | None = None,
    seeds: int = 0,
) -> Evaluation:
    """Evaluate every direction of the method and write a JSON file and a grid of samples into `folder`.

    `step` is the checkpoint's. `selection` is what the run was trained on: baselines come from the labels of its pairs,
    and evaluated photos in it are counted as `seen_in_training`. For generated photos, `judge` adds the FCN score,
    `features` FID, KID, precision and recall, and `seeds` the diversity of so many photos of one label map.
    """
    for option, given in (("judge", judge), ("features", features)):
        if given is not None and "to_photo" not in method.directions:
            raise UserError(f"--{option} {given.name} evaluates generated photos, but this method makes label maps")
    figures: Figures = {}
    parts: dict[str, dict[str, Any]] = {}
    details: dict[str, Any] = {}
    reports: dict[str, Report] = {}
    found: dict[str, Figures] = {}
    if "to_label" in method.directions:
        reports["to_label"] = evaluate_to_label(method, dataset, scope)
        if dataset.label_domain.kind == "classes" and selection.pairs:
            found = baselines(dataset, scope, pairs=selection.pairs)
            others = [sample for sample in selection.unpaired_photos if sample not in set(selection.pairs)]
            details["photos_of_classes"] = photos_of_classes(method, dataset, others, scope)
    if "to_photo" in method.directions:
        score = None if judge is None else FcnScore(judge, classes_of(dataset.label_domain))
        sets = None if features is None else DistributionMetric(features)
        metrics: list[PhotoMetric] = [metric for metric in (score, sets) if metric is not None]
        reports["to_photo"] = evaluate_to_photo(method, dataset, scope, metrics=metrics)
        if judge is not None:
            parts["photo_judge"] = {"name": judge.name, "sha256": judge.sha256}
        if sets is not None:
            parts["distribution"] = sets.described()
    for report in reports.values():
        figures.update(report.figures)
        details.update(report.details)
    if method.noise_shape is not None and seeds:
        figures.update(diversity(method, dataset, scope, seeds=seeds))
        parts["diversity"] = {"seeds": seeds}
    cautions = _seen_in_training(figures, dataset, scope, selection)
    cautions += [caution for part in parts.values() for caution in part.get("cautions", ())]
    document = {
        "format": 2,
        "dataset": dataset.name,
        "split": scope.split,
        "size": scope.size,
        "limit": scope.limit,
        "pairs": len(selection.pairs),
        "unpaired": len(selection.unpaired_photos),
        "method": run.method,
        "recipe": run.recipe,
        "steps": run.steps,
        "step": step,
        "seed": run.seed,
        "checkpoint": checkpoint,
        "weights": weights,
        "judge": "labels of the dataset" if dataset.label_domain.kind == "classes" else "pictures of the dataset",
        "figures": figures,
        **parts,
        **details,
        "baselines": found,
        "samples": {direction: _extremes(report) for direction, report in reports.items()},
        "cautions": cautions,
    }
    count = [] if scope.limit is None else [f"{scope.limit}-samples"]
    made_by = [each.name for each in (judge, features) if each is not None]
    stem = "-".join([scope.split, checkpoint, weights, *count, *made_by])
    folder.mkdir(parents=True, exist_ok=True)
    path, grid = folder / f"{stem}.json", folder / f"{stem}.png"
    written = path.with_suffix(".part")
    written.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    written.replace(path)
    about = f"step {step} of {run.steps}, seed {run.seed}, {checkpoint} checkpoint, {weights} weights"
    _write_grid(grid, method, dataset, scope, next(iter(reports.values())), caption=f"{run.recipe}, {about}")
    return Evaluation(figures, found, cautions, path, grid)


def _seen_in_training(figures: Figures, dataset: Dataset, scope: Scope, selection: Selection) -> list[str]:
    """Count the evaluated photos that were trained on as `seen_in_training`, and return a caution if there are any."""
    evaluated = labelled(dataset, scope.split, limit=scope.limit)
    pairs = {sample.photo for sample in selection.pairs}
    trained = pairs | {sample.photo for sample in selection.unpaired_photos}
    seen = [sample for sample in evaluated if sample.photo in trained]
    if not seen:
        return []
    figures["seen_in_training"] = len(seen)
    paired = sum(sample.photo in pairs for sample in seen)
    return [
        f"{len(seen)} of {len(evaluated)} evaluated photos were seen in training ({paired} as pairs): the figures do "
        "not show how the model performs on new photos"
    ]


def _extremes(report: Report) -> dict[str, object]:
    return {
        word: {"name": each.name, "score": each.score if math.isfinite(each.score) else None}
        for word, each in report.extremes().items()
    }


def _write_grid(path: Path, method: Method, dataset: Dataset, scope: Scope, report: Report, *, caption: str) -> None:
    """Write a grid of the worst, the median and the best sample of the first direction."""
    samples = labelled(dataset, scope.split, limit=scope.limit)
    rows, names = [], []
    for word, each in report.extremes().items():
        sample = samples[each.place]
        photo, label = dataset.read_photo(sample), dataset.read_label(sample)
        rows.append(translations(method, dataset, photo, label, size=scope.size, device=scope.device, draw=each.place))
        names.append(f"{word}: {each.name}, {each.score:.3f}")
    sample_grid(rows, names=names, caption=caption, classes=dataset.label_domain.classes).save(path, optimize=True)
