"""`fewpair train --root FOLDER`, `fewpair train RECIPE` and `fewpair train --resume RUN`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from trainer.commands.arguments import (
    MachineOptions,
    PairsOf,
    absolute,
    confirms_void,
    extractor,
    opened,
    parse,
    refuse_seed,
    use_threads,
)
from trainer.commands.own_data import announce, recipe_for, scaled_stages
from trainer.commands.session import check_run, resume, start
from trainer.data.catalogue import CATALOGUE, open_dataset
from trainer.data.check import check_selection
from trainer.data.external_labels import open_source, source_text, with_external_labels
from trainer.data.selection.choose import select
from trainer.data.selection.selection import Selection
from trainer.device import device_named
from trainer.distributed import rank
from trainer.errors import UserError, named
from trainer.methods import METHODS
from trainer.recipes import RECIPES
from trainer.report.page import write_report
from trainer.run import Run
from trainer.training.batches import required_samples
from trainer.training.checkpointing import RunDir, open_run


@dataclass(frozen=True, kw_only=True)
class TrainOptions(MachineOptions):
    """What `fewpair train RECIPE` takes; the defaults are the recipe's."""

    out: Path
    """The new run's folder."""
    run: Annotated[Run, tyro.conf.arg(name="")]
    """The recipe."""
    pairs: PairsOf
    """How many pairs are selected, or the pairs.json that names them."""
    label_map: Path | None = None
    """A CSV file from,to: what each class of --unpaired-labels becomes (void too). Not needed for equal names."""
    void: int | None = None
    """255 confirms that void pixels are not labelled on purpose."""


@dataclass(frozen=True, kw_only=True)
class OwnDataOptions:
    """What `fewpair train` takes without a recipe."""

    root: Path | None = None
    """Your data: a folder with photos/, labels/ and classes.csv."""
    out: Path
    """The new run's folder."""
    pairs: PairsOf = "all"
    """Labelled photos to learn from: all, a number drawn at random, or the pairs.json of `fewpair pairs`."""
    to: Literal["label", "photo"] = "label"
    """label: a segmenter (photo -> label map). photo: a painter (label map -> photo)."""
    data: str = "folders"
    """Another layout than the folders above: camvid, cityscapes, facades, ..."""


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(MachineOptions):
    """What `fewpair train --resume RUN` takes; everything else is written in the run's folder."""

    resume: Path
    """The folder of the run to continue."""


ABOUT = (
    "Train on your own photos: recipe and size are chosen for the data and printed with the expected minutes. "
    "`fewpair check FOLDER` reports problems. `fewpair train --resume RUN` continues a run. `fewpair train --help-all` "
    "lists the recipes and all other options."
)


def train(arguments: list[str]) -> int:
    """`fewpair train --root FOLDER ...`, `fewpair train RECIPE ...` or `fewpair train --resume RUN`."""
    if any(word.partition("=")[0] == "--resume" for word in arguments):
        again = parse(ResumeOptions, "train", arguments, "Continue a run from its last checkpoint.")
        folder = open_run(again.resume)
        use_threads(folder.environment().get("threads") if again.threads is None else again.threads)
        return _trained(resume(folder, device=again.device))
    if "--help-all" in arguments:
        print(recipes(), end="")
        return 0
    without_recipe = not arguments or arguments[0].startswith("-")
    if without_recipe:
        own, arguments = tyro.cli(
            OwnDataOptions, prog="fewpair train", args=arguments, description=ABOUT, return_unknown_args=True
        )
        recipe = recipe_for(open_dataset(own.data, own.root), to=own.to)
        default = TrainOptions(out=own.out, run=recipe, pairs=own.pairs)
    else:
        recipe, arguments = named(RECIPES, arguments[0], what="recipe"), arguments[1:]
        default = TrainOptions(out=tyro.MISSING, run=recipe, pairs=recipe.pairs)
    about = f"Train {recipe.method}. Expected: {recipe.expected}. Datasets: {', '.join(CATALOGUE)}."
    options = parse(TrainOptions, f"train {recipe.recipe}", arguments, about, default=default)
    use_threads(options.threads)
    device_named(options.device)
    refuse_seed(options.run.seed)
    void = confirms_void(options.void)
    selection = selected(options, recipe)
    run = completed(options.run, recipe, selection)
    if without_recipe:
        announce(run, selection)
    method = check_run(run, selection.dataset, selection)
    check_selection(required_samples(method, selection), void=void)
    return _trained(start(options.out, run, selection.dataset, selection, method=method, device=options.device))


def recipes() -> str:
    """What `fewpair train --help-all` prints."""
    rows = [("recipe", "method", "data", "pairs + unpaired", "size", "steps")]
    for run in RECIPES.values():
        pool = "all" if run.unpaired is None else run.unpaired
        size = f"{run.size[0]}x{run.size[1]}"
        rows.append((run.recipe, run.method, run.data, f"{run.pairs} + {pool}", size, str(run.steps)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = "".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)
    return (
        "usage: fewpair train RECIPE --out RUN [options]\n\n"
        "`fewpair train RECIPE --help` lists the options of a recipe. Without a recipe, as in `fewpair train --root\n"
        "FOLDER --out RUN`, mean-teacher-compact is used, or painter-compact with --to photo, and each of its options\n"
        f"may be added.\n\n{lines}"
    )


def selected(options: TrainOptions, recipe: Run) -> Selection:
    """Select the pairs or read those of a file, and take unpaired label maps from another dataset where one is named.

    Features are kept in the folder `features` beside the run, for the next one.
    """
    run, path = options.run, options.pairs
    dataset = opened(run.data, run.root)
    source = None if run.unpaired_labels is None else open_source(run.unpaired_labels)
    if isinstance(path, Path):
        for name in ("unpaired", "rule", "pool_rule", "features"):
            if getattr(run, name) != getattr(recipe, name):
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} beside --pairs {path}: the file names the samples; leave {option} out")
        if not path.is_file():
            raise UserError(
                f"--pairs {path}: there is no such file, and it is no number; write one with `fewpair pairs`"
            )
        selection = Selection.from_json(path.read_bytes(), dataset, source=str(path), labels_of=source)
        most: int | None = len(selection.unpaired_photos)
    else:
        selection = select(
            dataset,
            k=path,
            unpaired=run.unpaired,
            rule=run.rule,
            pool_rule=run.pool_rule,
            features=extractor((run.rule, run.pool_rule), run.features, device=options.device),
            cache=options.out.parent / "features",
            seed=run.seed,
        )
        most = run.unpaired
    for note in selection.notes:
        print(note)
    if source is not None and selection.external is None:
        selection = with_external_labels(selection, source, label_map=options.label_map, count=most)
        print(f"{len(selection.unpaired_labels)} unpaired label maps come from {source.place}")
    elif options.label_map is not None:
        raise UserError(
            f"--label-map {options.label_map} says what the classes of --unpaired-labels become: give both, and only "
            "where no file of --pairs says it already"
        )
    return selection


def completed(run: Run, recipe: Run, selection: Selection) -> Run:
    """The run as its folder records it: with the numbers of its samples, and files by absolute path."""
    named = {name: getattr(run.config, name) for name in METHODS[run.method].paths if hasattr(run.config, name)}
    return dataclasses.replace(
        run,
        config=dataclasses.replace(run.config, **{name: absolute(path) for name, path in named.items()}),
        root=absolute(run.root),
        progressive=scaled_stages(recipe, run.size),
        rule=selection.rule,
        pool_rule=selection.pool_rule,
        unpaired_labels=None if run.unpaired_labels is None else source_text(open_source(run.unpaired_labels)),
        features=absolute(run.features),
        pairs=len(selection.pairs),
        unpaired=max(len(selection.unpaired_photos), len(selection.unpaired_labels)),
    )


def _trained(folder: RunDir) -> int:
    """Name the next command: evaluation, on `val` if possible, or export without figures."""
    splits = folder.dataset().splits
    complete = [split for split, samples in splits.items() if any(sample.complete for sample in samples)]
    complete.sort(key=lambda split: (split == "train", split != "val"))
    following = f"evaluate {folder.path} --split {complete[0]}" if complete else f"export {folder.path} --force"
    following = following.removesuffix(" --split train")  # without it there are figures by cross-validation too
    if rank() == 0:
        print(f"wrote {write_report([folder], folder.path / 'report.html')}")
    print(f"{folder.path} is trained to step {folder.run.steps}. Next: fewpair {following}")
    return 0
