"""The half of the command line that needs torch: one function a command, its arguments read by tyro."""

import dataclasses
import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from trainer.arguments import EvaluateOptions, ExportOptions, PairsOptions, ResumeOptions, TrainOptions
from trainer.data.catalogue import CATALOGUE, Dataset, open_dataset
from trainer.data.pairs import RULES, Selection, select
from trainer.errors import UserError
from trainer.loop import resume, start
from trainer.machine import device_named
from trainer.metrics.record import Provenance, evaluate_and_record
from trainer.recipes import RECIPES, Run
from trainer.rundir import RunDir, begin_with_given_weights, build_method, load_method, open_run

SMALLEST = 32
"""The least height and width to train at: below it a discriminator of three strides has no more than one value a channel to normalise."""


def pairs(arguments: list[str]) -> int:
    """`fewpair pairs`: choose which k photos to label."""
    asked = _parse(PairsOptions, "pairs", arguments, f"Datasets: {', '.join(CATALOGUE)}. Rules: {', '.join(RULES)}.")
    if asked.out.exists():
        raise UserError(f"{asked.out} exists: name another file with --out, or remove it")
    _refuse_seed(asked.seed)
    dataset = _opened(asked.data, asked.root)
    selection = select(dataset, k=asked.k, unpaired=_count(asked.unpaired), rule=asked.rule, seed=asked.seed, to_label=asked.unlabelled)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(selection.to_json())
    for entry in selection.pairs:
        print(entry.photo if entry.label else f"{entry.photo}  (to be labelled)")
    pool = f"{len(selection.unpaired_photos)} photos and {len(selection.unpaired_labels)} label maps unpaired"
    print(f"{len(selection.pairs)} pairs, {pool}, of {dataset.place}: written to {asked.out}")
    if any(entry.label is None for entry in selection.pairs):
        print(f"Next: save the label map of each photo marked above under its name; then: fewpair train RECIPE --pairs {asked.out} ...")
    return 0


def train(arguments: list[str]) -> int:
    """`fewpair train RECIPE ...` or `fewpair train --resume RUN`."""
    if any(word.partition("=")[0] == "--resume" for word in arguments):
        again = _parse(ResumeOptions, "train", arguments, "Continue a run from its last checkpoint.")
        _use(again.threads)
        return _trained(resume(open_run(again.resume), device=again.device, skip_broken=again.skip_broken))
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(recipes(), end="")
        return 0 if arguments else 2
    recipe = _recipe(arguments[0])
    asked = _parse(
        TrainOptions[type(recipe.config)],  # type: ignore[misc]
        f"train {recipe.recipe}",
        arguments[1:],
        f"Train {recipe.method}. Expected: {recipe.expected}. Datasets: {', '.join(CATALOGUE)}.",
        default=TrainOptions(out=tyro.MISSING, **_spelled(recipe)),
    )
    _use(asked.threads)
    device_named(asked.device)
    _refuse_seed(asked.seed)
    dataset = _opened(asked.data, asked.root)
    if isinstance(asked.pairs, Path):
        selection = _read_pairs(asked.pairs, dataset, arguments)
    else:
        selection = select(dataset, k=asked.pairs, unpaired=_count(asked.unpaired), seed=asked.seed)
    run = dataclasses.replace(
        recipe,
        **{field.name: getattr(asked, field.name) for field in dataclasses.fields(Run) if hasattr(asked, field.name)}
        | {
            "root": None if asked.root is None else str(asked.root.resolve()),
            "label_weights": None if asked.label_weights is None else str(asked.label_weights.resolve()),
            "photo_weights": None if asked.photo_weights is None else str(asked.photo_weights.resolve()),
            "pairs": len(selection.pairs),
            "unpaired": max(len(selection.unpaired_photos), len(selection.unpaired_labels)),
        },
    )
    _refuse_what_cannot_run(run, dataset, selection)
    return _trained(start(asked.out, run, dataset, selection, device=asked.device, skip_broken=asked.skip_broken))


def evaluate(arguments: list[str]) -> int:
    """`fewpair evaluate RUN --split val`: figures beside the floors, written into the run's folder."""
    asked = _parse(EvaluateOptions, "evaluate", arguments, "Judge a run on a split; figures and pictures go to RUN/evaluation.")
    _use(asked.threads)
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


def export(arguments: list[str]) -> int:
    """`fewpair export RUN`: ONNX under the manifest's contract, refused where it differs from torch."""
    from trainer.export import export as write  # brings onnx and onnxruntime, which training does without

    asked = _parse(ExportOptions, "export", arguments, "Write a run to OUT/NAME/ as ONNX, proven equal to torch in onnxruntime.")
    _use(asked.threads)
    written = write(
        asked.run,
        asked.out,
        name=asked.name,
        checkpoint=asked.checkpoint,
        weights=asked.weights,
        half=asked.half,
        description=asked.description,
    )
    for path in sorted(written.iterdir()):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    print(f"Next: fewpair serve --models {asked.out}")
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


def recipes() -> str:
    """What `fewpair train --help` prints."""
    rows = [
        (run.recipe, run.method, run.data, f"{run.pairs} + {run.unpaired or 'all'}", f"{run.size[0]}x{run.size[1]}", str(run.steps))
        for run in RECIPES.values()
    ]
    rows.insert(0, ("recipe", "method", "data", "pairs + unpaired", "size", "steps"))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = "".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)
    return (
        "usage: fewpair train RECIPE --out RUN [options]      train a recipe; `fewpair train RECIPE --help` lists its options\n"
        "       fewpair train --resume RUN                    continue a run from its last checkpoint\n\n"
        f"{lines}"
    )


def _parse(kind: Any, command: str, arguments: Sequence[str], description: str, *, default: Any = tyro.MISSING) -> Any:
    given = {} if default is tyro.MISSING else {"default": default}
    plain = (tyro.conf.FlagCreatePairsOff,)  # --flag alone, no --no-flag
    return tyro.cli(kind, prog=f"fewpair {command}", args=list(arguments), description=description, config=plain, **given)


def _recipe(name: str) -> Run:
    if name in RECIPES:
        return RECIPES[name]
    if name.startswith("-"):
        raise UserError(f"name a recipe before {name}: fewpair train RECIPE {name} ...; the recipes are {', '.join(RECIPES)}")
    near = difflib.get_close_matches(name, RECIPES, n=1)
    raise UserError(f"there is no recipe {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(RECIPES)}"))


def _spelled(recipe: Run) -> dict[str, Any]:
    """A recipe's values as the command line spells them."""
    shared = {field.name for field in dataclasses.fields(TrainOptions)} & {field.name for field in dataclasses.fields(Run)}
    values = {name: getattr(recipe, name) for name in shared}
    return values | {
        "root": None if recipe.root is None else Path(recipe.root),
        "unpaired": "all" if recipe.unpaired is None else recipe.unpaired,
    }


def _count(unpaired: int | Literal["all"]) -> int | None:
    return None if unpaired == "all" else unpaired


def _opened(data: str, root: Path | None) -> Dataset:
    dataset = open_dataset(data, root)
    for note in dataset.notes:
        print(f"{dataset.place}: {note}")
    return dataset


def _read_pairs(path: Path, dataset: Dataset, arguments: Sequence[str]) -> Selection:
    if any(word.partition("=")[0] == "--unpaired" for word in arguments):
        raise UserError(f"--unpaired beside --pairs {path}: the file names the unpaired pool already; leave --unpaired out")
    if not path.is_file():
        raise UserError(f"--pairs {path}: there is no such file, and it is not a number; write one with `fewpair pairs`")
    selection = Selection.from_json(path.read_text(), dataset, source=str(path))
    for note in selection.notes:
        print(note)
    return selection


def _refuse_what_cannot_run(run: Run, dataset: Dataset, selection: Selection) -> None:
    """Before a folder is made: what the method itself has to say about the run."""
    for name in ("steps", "batch", "evaluate_every", "save_every", "log_every"):
        if getattr(run, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(run, name)}: give 1 or more")
    beyond = [step for step in run.keep if not 1 <= step <= run.steps]
    if beyond:
        raise UserError(f"--keep {beyond[0]}: the run has steps 1 to {run.steps}; name steps among them, or leave --keep out")
    if min(run.size) < SMALLEST:
        raise UserError(f"--size {run.size[0]}x{run.size[1]}: the networks need at least {SMALLEST}x{SMALLEST}")
    _refuse_config(run.config)
    try:
        method = build_method(run, dataset.photo_domain, dataset.label_domain)
        begin_with_given_weights(method, run)
    except ValueError as error:
        raise UserError(str(error)) from error
    height, width = run.size
    if height % method.multiple_of or width % method.multiple_of:
        near = "x".join(str(max(1, round(side / method.multiple_of)) * method.multiple_of) for side in run.size)
        raise UserError(f"--size {height}x{width}: {run.method} needs multiples of {method.multiple_of}; the nearest size is {near}")
    if "pairs" in method.needs() and not selection.pairs:
        raise UserError(f"{run.method} learns from pairs: ask for at least --pairs 1")
    if "unpaired" not in method.needs():
        return
    if not selection.unpaired_photos and not selection.unpaired_labels:
        raise UserError(
            f"{run.method} learns from unpaired samples: ask for --unpaired all, or choose pairs anew with `fewpair pairs --unpaired all`"
        )
    for lacking, pool in (("photos", selection.unpaired_photos), ("label maps", selection.unpaired_labels)):
        if not pool:
            raise UserError(
                f"{run.method} learns from unpaired photos and label maps, but the pool chosen from {dataset.place} holds no {lacking}: "
                f"add some and choose pairs anew with `fewpair pairs`, or take a recipe that learns from pairs alone: {_from_pairs_alone()}"
            )


def _refuse_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}: give a whole number from 0 to {2**63 - 1}")


def _refuse_config(config: Any) -> None:
    """Every number among the method's choices: at least one channel, a learning rate above 0, no negative count or weight."""
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        sound, wanted = {
            "width": (value >= 1, "give 1 or more"),
            "lr": (0 < value < math.inf, "give a number above 0, as in 2e-4"),
            "ema": (0 <= value < 1, "give a number from 0 to below 1, as in 0.999"),
        }.get(name, (0 <= value < math.inf, "give 0 or more"))
        if not sound:
            raise UserError(f"--config.{name.replace('_', '-')} {value}: {wanted}")


def _from_pairs_alone() -> str:
    """The recipes whose method never looks at the unpaired pool."""
    return ", ".join(recipe for recipe, run in RECIPES.items() if run.method in ("supervised", "pix2pix"))


def _use(threads: int | None) -> None:
    if threads is not None:
        if threads < 1:
            raise UserError(f"--threads {threads}: give 1 or more")
        torch.set_num_threads(threads)


def _trained(folder: RunDir) -> int:
    print(f"{folder.path} is trained to step {folder.run.steps}. Next: fewpair evaluate {folder.path} --split {_split_to_judge_on(folder)}")
    return 0


def _split_to_judge_on(folder: RunDir) -> str:
    """`val` where it can be judged on, else any split but `train` that can, else `train`."""
    splits = folder.dataset().splits
    judged = [split for split, samples in splits.items() if any(sample.complete for sample in samples)]
    return next((split for split in ("val", *judged) if split in judged and split != "train"), "train")


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
