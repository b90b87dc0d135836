"""`fewpair evaluate`: figures beside the floors, and pictures, written into the run's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from trainer.commands.arguments import parse, use_threads
from trainer.errors import UserError
from trainer.machine import device_named
from trainer.metrics.distribution import SETS, open_extractor
from trainer.metrics.diversity import ON_REAL, Diversity, open_perceptual
from trainer.metrics.evaluate import classes_of
from trainer.metrics.judge import open_judge
from trainer.metrics.record import evaluate_and_record
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
    judge: Path | None = None
    """A segmenter that scores generated photos: a folder that `fewpair export` wrote, or an .onnx file under its contract."""
    features: str | None = None
    """FID, KID, precision and recall of the generated photos, by `inception`, its weights (.pth) or an extractor (.onnx)."""
    seeds: int = 4
    """Photos from one label map whose distances are the diversity of a method that takes noise; 0: leave it out."""
    perceptual: str | None = None
    """The diversity also in VGG-19's features: `torchvision`, or a file of its weights (.pth)."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; the judge and the extractor run there too, or say that they cannot."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""
    skip_broken: bool = False
    """Go on past files that cannot be read, count and name them."""


DESCRIPTION = (
    "Judge a run on a split; figures and pictures go to RUN/evaluation. Figures by a judge, an extractor or seeds that are not asked for "
    "again stay in the file while the photos are the same; a file that they would be lost from goes to RUN/evaluation/former."
)


def evaluate(arguments: list[str]) -> int:
    """`fewpair evaluate RUN --split val`: figures beside the floors, written into the run's folder."""
    asked = parse(EvaluateOptions, "evaluate", arguments, DESCRIPTION)
    use_threads(asked.threads)
    device = device_named(asked.device)
    folder = open_run(asked.run)
    dataset = folder.dataset()
    selection = folder.selection(dataset)
    method, _, step = load_method(asked.run, checkpoint=asked.checkpoint, weights=asked.weights)
    result = evaluate_and_record(
        method,
        dataset,
        folder=folder.evaluations,
        provenance=folder.provenance(
            selection, split=asked.split, step=step, checkpoint=asked.checkpoint, weights=asked.weights, limit=asked.limit
        ),
        train_samples=selection.streams(dataset).pairs,
        device=device,
        progress=True,
        skip_broken=asked.skip_broken,
        judge=None if asked.judge is None else open_judge(asked.judge, classes_of(dataset.label_domain), device=device),
        features=None if asked.features is None else open_extractor(asked.features, device=device),
        diversity=diversity_asked(asked.seeds, asked.perceptual, device=device),
    )
    for reason in result.skipped:
        print(f"skipped: {reason}")
    print(table(result.figures, result.floors))
    for caution in result.cautions:
        print(f"caution: {caution}")
    for note in result.notes:
        print(f"note: {note}")
    print(f"written to {result.path} with {', '.join(path.name for path in result.pictures)}")
    return 0


def diversity_asked(seeds: int, perceptual: str | None, *, device: str | torch.device) -> Diversity | None:
    """What `--seeds` and `--perceptual` ask for; None for no seeds. Raises UserError where they do not go together."""
    if seeds == 0:
        if perceptual is not None:
            raise UserError(f"--perceptual {perceptual} compares photos of several seeds, but --seeds 0 makes none: leave one out")
        return None
    return Diversity(seeds=seeds, perceptual=None if perceptual is None else open_perceptual(perceptual, device=device))


PAPER, JUDGE, JUDGE_ON_REAL, DIVERSITY = "paper_decoding_", "judge_", "judge_on_real_", "diversity_"


def table(figures: Mapping[str, Any], floors: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as lines: this run's and each floor's; what a judge saw; how far photos of one label map and sets of them lie apart."""
    apart = (PAPER, JUDGE, DIVERSITY)
    own = {name: value for name, value in figures.items() if not name.startswith(apart) and name.partition("[")[0] not in SETS}
    decoded = _without(PAPER, figures)
    parts = [
        _columns(
            {"this run": own}
            | ({"decoded as in the paper": decoded} if decoded else {})
            | {name.replace("_", " "): values for name, values in floors.items()}
        )
    ]
    real = _without(JUDGE_ON_REAL, figures)
    if real:
        parts.append(_columns({"the judge on generated photos": _without(JUDGE, figures), "on the real ones": real}, names=list(real)))
    between = _without(DIVERSITY, figures)
    if between:
        made = {name: value for name, value in between.items() if ON_REAL not in name}
        others = {name.replace(ON_REAL, ""): value for name, value in between.items() if ON_REAL in name}
        parts.append(_columns({"mean distance of photos of one label map": made, "of real photos": others}, digits=".4g"))
    sets = {name: value for name, value in figures.items() if name.partition("[")[0] in SETS}
    if sets:
        parts.append(_columns({f"{figures['samples']} generated against {figures['samples']} real photos": sets}, digits=".4g"))
    return "\n\n".join(parts)


def _without(prefix: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}


def _columns(columns: Mapping[str, Mapping[str, Any]], *, names: Sequence[str] | None = None, digits: str = ".3f") -> str:
    """One line a figure, one column a set of them; the figures of single classes come last."""
    first = next(iter(columns.values()))
    names = [name for name in names or first if not isinstance(first[name], dict)]
    rows = [("", *columns)]
    rows += [(_spoken(name), *(_figure(values.get(name), digits) for values in columns.values())) for name in names]
    rows += [
        (f"  IoU {name}", *(_figure((values.get("per_class_iou") or {}).get(name), digits) for values in columns.values()))
        for name in first.get("per_class_iou") or {}
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns) + 1)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def _spoken(name: str) -> str:
    """A figure's name in words; an extractor's in brackets stays as it is."""
    return name if "[" in name else name.replace("_", " ")


def _figure(value: Any, digits: str) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:{digits}}"
