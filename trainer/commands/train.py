"""`fewpair train RECIPE` and `fewpair train --resume RUN`."""

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import tyro

from trainer.commands.arguments import PairsOf, Size, count, extractor, opened, parse, refuse_seed, use_threads
from trainer.data.borrowed import borrow, open_source, spelling
from trainer.data.catalogue import CATALOGUE, Dataset
from trainer.data.pairs import Selection, select
from trainer.data.soundness import refuse_unsound
from trainer.errors import UserError
from trainer.loop import refuse_unbalanced, resume, start
from trainer.machine import device_named
from trainer.recipes import RECIPES, Run
from trainer.rundir import RunDir, begin_with_given_weights, build_method, open_run

Config = TypeVar("Config")

SMALLEST = 32
"""The least height and width to train at: below it a discriminator of three strides has no more than one value a channel to normalise."""


@dataclass(frozen=True)
class TrainOptions(Generic[Config]):
    """What `fewpair train RECIPE` takes; the defaults are the recipe's."""

    out: Path
    """The new run's folder."""
    config: Config
    """The method's own choices."""
    data: str
    """The dataset: one of the catalogue."""
    root: Path | None
    """The dataset's folder; the built-in scenes have none."""
    pairs: PairsOf
    """How many pairs are drawn at random, or the pairs.json that names them."""
    unpaired: int | Literal["all"]
    """How many training samples the unpaired pool holds; the pairs are chosen among them."""
    rule: str
    """How the pairs are chosen when --pairs is a number: random, kmeans-medoid, kcenter or pam."""
    pool_rule: str
    """How the unpaired pool is chosen when --unpaired is a number, by the same names."""
    features: Path | None
    """What the rules look at: a .onnx extractor or a state dict of torchvision's resnet50; None: torchvision's ResNet-50, fetched once."""
    unpaired_labels: str | None
    """DATASET:FOLDER whose label maps are the unpaired ones instead (labels:data/carla, for a folder of label maps alone)."""
    size: Size
    """Height x width of a training crop, and of the whole picture in evaluation and use."""
    steps: int
    """Optimiser steps of each player."""
    seed: int
    """Decides weights, choice of pairs, order, crops, flips and pool draws."""
    batch: int
    """Samples of each half in a step."""
    balanced: bool
    """Pairs and unpaired samples in every step. Off: the smaller set comes as seldom as it is smaller, as in the 20_unbal row."""
    precision: Literal["auto", "bf16", "fp32"]
    """bf16: autocast, with losses in fp32. auto: bf16 where the hardware computes in it."""
    evaluate_every: int
    """Steps between evaluations on `val`, each followed by a sample sheet."""
    save_every: int
    """Steps between checkpoints."""
    keep: tuple[int, ...]
    """Steps whose checkpoints are kept, to compare runs at equal steps."""
    log_every: int
    """Steps between lines in metrics.jsonl."""
    label_weights: Path | None
    """A published ResNet generator (latest_net_G.pth of CycleGAN or pix2pix) that the label generator starts from."""
    photo_weights: Path | None
    """The same for the photo generator."""
    label_map: Path | None = None
    """A CSV file from,to: what each class of --unpaired-labels becomes, by names, or void. Not needed where all names are equal."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""
    skip_broken: bool = False
    """Go on past files that cannot be read, and count them."""


@dataclass(frozen=True)
class ResumeOptions:
    """What `fewpair train --resume RUN` takes; everything else is written in the run's folder."""

    resume: Path
    """The folder of the run to continue."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""
    skip_broken: bool = False
    """Go on past files that cannot be read, and count them."""


def train(arguments: list[str]) -> int:
    """`fewpair train RECIPE ...` or `fewpair train --resume RUN`."""
    if any(word.partition("=")[0] == "--resume" for word in arguments):
        again = parse(ResumeOptions, "train", arguments, "Continue a run from its last checkpoint.")
        use_threads(again.threads)
        return _trained(resume(open_run(again.resume), device=again.device, skip_broken=again.skip_broken))
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(recipes(), end="")
        return 0 if arguments else 2
    recipe = _recipe(arguments[0])
    asked = parse(
        TrainOptions[type(recipe.config)],  # type: ignore[misc]
        f"train {recipe.recipe}",
        arguments[1:],
        f"Train {recipe.method}. Expected: {recipe.expected}. Datasets: {', '.join(CATALOGUE)}.",
        default=TrainOptions(out=tyro.MISSING, **_spelled(recipe)),
    )
    use_threads(asked.threads)
    device_named(asked.device)
    refuse_seed(asked.seed)
    dataset = opened(asked.data, asked.root)
    source = None if asked.unpaired_labels is None else open_source(asked.unpaired_labels)
    if isinstance(asked.pairs, Path):
        selection = _read_pairs(asked.pairs, dataset, arguments, source=source)
    else:
        selection = _chosen(asked, dataset, k=asked.pairs)
    selection = _with_labels_from(source, selection, dataset, asked)
    run = dataclasses.replace(
        recipe,
        **{field.name: getattr(asked, field.name) for field in dataclasses.fields(Run) if hasattr(asked, field.name)}
        | {
            "config": _with_whole_paths(asked.config),
            "root": None if asked.root is None else str(asked.root.resolve()),
            "rule": selection.rule,
            "pool_rule": selection.pool_rule,
            "unpaired_labels": None if source is None else spelling(source),
            "features": None if asked.features is None else str(asked.features.resolve()),
            "label_weights": None if asked.label_weights is None else str(asked.label_weights.resolve()),
            "photo_weights": None if asked.photo_weights is None else str(asked.photo_weights.resolve()),
            "pairs": len(selection.pairs),
            "unpaired": max(len(selection.unpaired_photos), len(selection.unpaired_labels)),
        },
    )
    _refuse_what_cannot_run(run, dataset, selection)
    refuse_unsound(dataset, selection.streams(dataset), skip_broken=asked.skip_broken)
    return _trained(start(asked.out, run, dataset, selection, device=asked.device, skip_broken=asked.skip_broken))


def recipes() -> str:
    """What `fewpair train --help` prints."""
    rows = [
        (
            run.recipe,
            run.method,
            run.data,
            f"{run.pairs} + {'all' if run.unpaired is None else run.unpaired}",
            f"{run.size[0]}x{run.size[1]}",
            str(run.steps),
        )
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
        "features": None if recipe.features is None else Path(recipe.features),
        "unpaired": "all" if recipe.unpaired is None else recipe.unpaired,
    }


def _chosen(asked: TrainOptions, dataset: Dataset, *, k: int | Literal["all"]) -> Selection:
    """The pairs by rule; features are kept in the folder `features` beside the run, for the next one."""
    return select(
        dataset,
        k=k,
        unpaired=count(asked.unpaired),
        rule=asked.rule,
        pool_rule=asked.pool_rule,
        features=extractor((asked.rule, asked.pool_rule), asked.features, device=asked.device),
        cache=asked.out.parent / "features",
        progress=True,
        seed=asked.seed,
        skip_broken=asked.skip_broken,
    )


def _read_pairs(path: Path, dataset: Dataset, arguments: Sequence[str], *, source: Dataset | None) -> Selection:
    given = {word.partition("=")[0].replace("_", "-") for word in arguments}
    for option, what in (
        ("--unpaired", "the unpaired pool"),
        ("--rule", "the rule"),
        ("--pool-rule", "the rule"),
        ("--features", "the rule"),
    ):
        if option in given:
            raise UserError(f"{option} beside --pairs {path}: the file names {what} already; leave {option} out")
    if not path.is_file():
        raise UserError(f"--pairs {path}: there is no such file, and it is not a number; write one with `fewpair pairs`")
    selection = Selection.from_json(path.read_text(), dataset, source=str(path), labels_of=source)
    for note in selection.notes:
        print(note)
    return selection


def _with_labels_from(source: Dataset | None, selection: Selection, dataset: Dataset, asked: TrainOptions) -> Selection:
    """The selection with the label maps that `--unpaired-labels` asks for, unless its file names them already."""
    if source is None:
        if asked.label_map is not None:
            raise UserError(f"--label-map {asked.label_map} says what becomes of the classes of --unpaired-labels: name that too")
        return selection
    if selection.borrowed is not None:
        if asked.label_map is not None:
            raise UserError(
                f"--label-map beside --pairs {asked.pairs}: the file says what the classes become already; leave --label-map out"
            )
        return selection
    most = len(selection.unpaired_photos) if isinstance(asked.pairs, Path) else count(asked.unpaired)
    lent = borrow(selection, dataset, source, label_map=asked.label_map, count=most)
    print(f"{len(lent.unpaired_labels)} unpaired label maps come from {source.place}")
    return lent


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
    refuse_unbalanced(run)
    method.check_steps(run.steps)
    if min(run.size) < method.smallest:
        raise UserError(
            f"--size {run.size[0]}x{run.size[1]}: {run.method} with this patch needs at least {method.smallest}x{method.smallest}; "
            "take a larger --size or a smaller --config.patch"
        )
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


def _refuse_config(config: Any) -> None:
    """Every number among the method's choices: at least one channel, a learning rate above 0, no negative count or weight."""
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        sound, wanted = {
            "width": (value >= 1, "give 1 or more"),
            "levels": (2 <= value <= 10, "give a number from 2 to 10"),
            "noise": (value >= 1, "give 1 or more"),
            "scales": (value >= 1, "give 1 or more"),
            "r1_every": (value >= 1, "give 1 or more; --config.r1 0 leaves the penalty out"),
            "lr": (0 < value < math.inf, "give a number above 0, as in 2e-4"),
            "lr_discriminator": (0 < value < math.inf, "give a number above 0, as in 2e-4"),
            "ema": (0 <= value < 1, "give a number from 0 to below 1, as in 0.999"),
        }.get(name, (0 <= value < math.inf, "give 0 or more"))
        if not sound:
            raise UserError(f"--config.{name.replace('_', '-')} {value}: {wanted}")


def _with_whole_paths(config: Any) -> Any:
    """The config with the perceptual loss's weights by their whole path: they are read again where the run is continued."""
    vgg = getattr(config, "vgg", None)
    return config if vgg is None else dataclasses.replace(config, vgg=str(Path(vgg).resolve()))


def _from_pairs_alone() -> str:
    """The recipes whose method never looks at the unpaired pool."""
    return ", ".join(recipe for recipe, run in RECIPES.items() if run.method in ("supervised", "pix2pix"))


def _trained(folder: RunDir) -> int:
    split = _split_to_judge_on(folder)
    next_one = f"fewpair export {folder.path}" if split is None else f"fewpair evaluate {folder.path} --split {split}"
    print(f"{folder.path} is trained to step {folder.run.steps}. Next: {next_one}")
    return 0


def _split_to_judge_on(folder: RunDir) -> str | None:
    """`val` where it can be judged on, else any split but `train` that can, else `train`; None where no sample has both sides."""
    splits = folder.dataset().splits
    judged = [split for split, samples in splits.items() if any(sample.complete for sample in samples)]
    return next((split for split in ("val", *judged) if split in judged and split != "train"), "train" if judged else None)
