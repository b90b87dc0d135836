"""`fewpair evaluate RUN`: figures beside the baselines; they and a sample grid go to RUN/evaluation and report.html."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tyro

from trainer.batch import random
from trainer.commands.arguments import MachineOptions, parse, use_threads
from trainer.commands.own_data import fitted_size
from trainer.data.dataset import resized
from trainer.device import device_named
from trainer.errors import UserError
from trainer.metrics.distribution import open_extractor
from trainer.metrics.evaluate import Scope, classes_of
from trainer.metrics.judge import open_judge
from trainer.metrics.quick import AREA, STEPS, by_other_folds
from trainer.metrics.record import evaluate_and_record
from trainer.metrics.segmentation import Confusion, Figures
from trainer.report.page import write_report
from trainer.training.checkpointing import RunDir, load_method, open_run, write_whole

FOLDS = 5
"""The parts of the pairs in cross-validation."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(MachineOptions):
    """Options of `fewpair evaluate`."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    split: str | None = None
    """The split to evaluate: val, devtest, test, ...; by default val, and without it train and cross-validation."""
    checkpoint: str = "best"
    """best, last, or step-NNNNNN if the run kept one."""
    weights: Literal["averaged", "raw"] = "averaged"
    """The moving average of the weights (EMA), or the weights themselves."""
    limit: int | None = None
    """Evaluate this many samples, spread evenly over the split; by default all."""
    judge: Path | None = None
    """A segmenter that scores generated photos: a folder that `fewpair export` wrote."""
    features: str | None = None
    """FID, KID, precision, recall of generated photos, by `inception`, its weights (.pth) or an extractor (.onnx)."""
    seeds: int = 4
    """Photos per label map for the diversity of methods that take noise; 0: leave it out."""


def evaluate(arguments: list[str]) -> int:
    """Evaluate a checkpoint on a split."""
    options = parse(EvaluateOptions, "evaluate", arguments, "Evaluate a run on a split; results go to RUN/evaluation.")
    if options.seeds == 1 or options.seeds < 0:
        raise UserError(f"--seeds {options.seeds}: give 2 or more, or 0 to leave the diversity out")
    use_threads(options.threads)
    device = device_named(options.device)
    folder = open_run(options.run)
    dataset = folder.dataset()
    selection = folder.selection(dataset)
    for note in selection.notes:
        print(f"{folder.path}: {note}")
    has_val = any(sample.complete for sample in dataset.splits.get("val", ()))
    split = options.split or ("val" if has_val else "train")
    method, run, step = load_method(options.run, checkpoint=options.checkpoint, weights=options.weights)
    result = evaluate_and_record(
        method,
        dataset,
        selection,
        Scope(split, run.size, options.limit, device, progress=True),
        run=run,
        step=step,
        checkpoint=options.checkpoint,
        weights=options.weights,
        folder=folder.evaluations,
        judge=None
        if options.judge is None
        else open_judge(options.judge, classes_of(dataset.label_domain), device=device),
        features=None if options.features is None else open_extractor(options.features, device=device),
        seeds=options.seeds,
    )
    others = dict(result.baselines)
    if options.split is None and not has_val and len(selection.pairs) > 1 and "per_class_iou" in result.figures:
        others = {"cross_validation": cross_validate(folder)} | others
    print(table(result.figures, others))
    for caution in result.cautions:
        print(f"caution: {caution}")
    report = write_report([folder], folder.path / "report.html")
    print(f"wrote {result.path}, {result.grid.name} and {report}")
    return 0


def cross_validate(folder: RunDir) -> Figures:
    """Judge each pair by a small segmenter that learned from the other folds' pairs, and write the figures.

    They are those of one confusion matrix over all pairs, and a function of the run's seed.
    """
    dataset, seed = folder.dataset(), folder.run.seed
    classes, pairs = classes_of(dataset.label_domain), folder.selection(dataset).pairs
    pairs = tuple(pairs[place] for place in random(seed, 0, "folds").permutation(len(pairs)))
    folds = min(FOLDS, len(pairs))
    print(f"cross-validation: {folds} small segmenters, each trained without a part of the pairs", flush=True)
    labels = [dataset.read_label(pair) for pair in pairs]
    size = fitted_size(labels[0].shape, area=AREA, unit=32)
    photos, parts = map(dataset.read_photo, pairs), [Confusion(classes) for _ in range(folds)]
    predicted = by_other_folds(photos, labels, size, classes=classes.count, folds=folds, seed=seed)
    for place, (label, probabilities) in enumerate(zip(labels, predicted, strict=True)):
        parts[place % folds].add(label, resized(probabilities.argmax(0).astype(np.uint8), label.shape))
    total = Confusion(classes)
    total.matrix = sum((part.matrix for part in parts), total.matrix)
    deviation = float(np.std([part.mean_iou for part in parts if part.mean_iou is not None]))  # None: all is void
    figures = total.figures() | {"samples": len(pairs), "mean_iou_sd_of_folds": deviation}
    about = {"split": f"cross-validation in {folds} folds of the pairs", "checkpoint": "small segmenter's"}
    record = about | {"step": STEPS, "figures": figures, "confusion": total.matrix.tolist(), "baselines": {}}
    write_whole(folder.evaluations / "cross-validation.json", json.dumps(record, indent=2) + "\n")
    return figures


def table(figures: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the figures of a run beside those of real photos and of the baselines, one line per figure."""
    title = "this run (seen in training)" if "seen_in_training" in figures else "this run"
    columns: dict[str, dict[str, str]] = {title: {}}
    for name, value in _flat(figures).items():
        column = columns.setdefault("real photos", {}) if "_on_real" in name else columns[title]
        column[name.replace("_on_real", "")] = value
    columns |= {name.replace("_", " "): _flat(values) for name, values in baselines.items()}
    frame = pd.DataFrame(columns).reindex(list(columns[title])).fillna("")
    frame.index = pd.Index([name if "[" in name else name.replace("_", " ") for name in frame.index])
    return str(frame.to_string())


def _flat(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the figures as text, those of single classes last."""
    by_class = {
        name.replace("per_class_iou", f"iou_{one}"): value
        for name, values in figures.items()
        if isinstance(values, dict)
        for one, value in values.items()
    }
    flat = {name: value for name, value in figures.items() if not isinstance(value, dict)} | by_class
    return {
        name: "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4g}"
        for name, value in flat.items()
    }
