"""`fewpair evaluate RUN --split val`: figures beside the baselines; they and a sample grid go to RUN/evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import tyro

from trainer.commands.arguments import MachineOptions, parse, use_threads
from trainer.device import device_named
from trainer.errors import UserError
from trainer.metrics.distribution import open_extractor
from trainer.metrics.evaluate import Scope, classes_of
from trainer.metrics.judge import open_judge
from trainer.metrics.record import evaluate_and_record
from trainer.training.checkpointing import load_method, open_run


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(MachineOptions):
    """Options of `fewpair evaluate`."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    split: str
    """The split to evaluate: val, devtest, test, ..."""
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
    asked = parse(EvaluateOptions, "evaluate", arguments, "Evaluate a run on a split; results go to RUN/evaluation.")
    if asked.seeds == 1 or asked.seeds < 0:
        raise UserError(f"--seeds {asked.seeds}: give 2 or more, or 0 to leave the diversity out")
    use_threads(asked.threads)
    device = device_named(asked.device)
    folder = open_run(asked.run)
    dataset = folder.dataset()
    method, run, step = load_method(asked.run, checkpoint=asked.checkpoint, weights=asked.weights)
    result = evaluate_and_record(
        method,
        dataset,
        folder.selection(dataset),
        Scope(asked.split, run.size, asked.limit, device, progress=True),
        provenance=folder.provenance(step, checkpoint=asked.checkpoint, weights=asked.weights),
        folder=folder.evaluations,
        judge=None if asked.judge is None else open_judge(asked.judge, classes_of(dataset.label_domain), device=device),
        features=None if asked.features is None else open_extractor(asked.features, device=device),
        seeds=asked.seeds,
    )
    print(table(result.figures, result.baselines))
    for caution in result.cautions:
        print(f"caution: {caution}")
    print(f"wrote {result.path} and {result.grid.name}")
    return 0


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
