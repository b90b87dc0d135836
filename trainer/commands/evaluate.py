"""`fewpair evaluate`: figures beside the floors, and pictures, written into the run's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from trainer.commands.arguments import parse, use_threads
from trainer.machine import device_named
from trainer.metrics.record import Provenance, evaluate_and_record
from trainer.rundir import load_method, open_run


@dataclass(frozen=True)
class EvaluateOptions:
    """What `fewpair evaluate` takes."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    split: str
    """The split to judge on: val, devtest, test, ..."""
    checkpoint: str = "best"
    """best, last, or step-NNNNNN where the run kept one."""
    weights: Literal["averaged", "raw"] = "averaged"
    """The running average of the weights, or the weights themselves."""
    limit: int | None = None
    """Judge this many samples, spread evenly over the split; None: all."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""
    skip_broken: bool = False
    """Go on past files that cannot be read, count and name them."""


def evaluate(arguments: list[str]) -> int:
    """`fewpair evaluate RUN --split val`: figures beside the floors, written into the run's folder."""
    asked = parse(EvaluateOptions, "evaluate", arguments, "Judge a run on a split; figures and pictures go to RUN/evaluation.")
    use_threads(asked.threads)
    device = device_named(asked.device)
    folder = open_run(asked.run)
    dataset = folder.dataset()
    selection = folder.selection(dataset)
    method, run, step = load_method(asked.run, checkpoint=asked.checkpoint, weights=asked.weights)
    result = evaluate_and_record(
        method,
        dataset,
        folder=folder.evaluations,
        provenance=Provenance(
            dataset=run.data,
            split=asked.split,
            size=run.size,
            method=run.method,
            recipe=run.recipe,
            pairs=len(selection.pairs),
            unpaired=len(selection.unpaired_photos),
            steps=run.steps,
            step=step,
            seed=run.seed,
            checkpoint=asked.checkpoint,
            weights=asked.weights,
            limit=asked.limit,
        ),
        train_samples=selection.streams(dataset).pairs,
        device=device,
        progress=True,
        skip_broken=asked.skip_broken,
    )
    for reason in result.skipped:
        print(f"skipped: {reason}")
    print(table(result.figures, result.floors))
    print(f"written to {result.path} with {', '.join(path.name for path in result.pictures)}")
    return 0


def table(figures: dict[str, Any], floors: dict[str, dict[str, Any]]) -> str:
    """The figures as lines: this run's, and each floor's beside them where it has one."""
    columns = {"this run": figures} | {name.replace("_", " "): values for name, values in floors.items()}
    names = [name for name, value in figures.items() if isinstance(value, int | float)]
    per_class = figures.get("per_class_iou") or {}
    rows = [("", *columns)]
    rows += [(name.replace("_", " "), *(_figure(values.get(name)) for values in columns.values())) for name in names]
    rows += [
        (f"  IoU {name}", *(_figure((values.get("per_class_iou") or {}).get(name)) for values in columns.values())) for name in per_class
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns) + 1)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
