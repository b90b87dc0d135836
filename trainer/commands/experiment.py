"""`fewpair experiment TABLE`: run what is missing of a paper's table, and write it beside the paper's own figures."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from trainer.commands.arguments import extractor, known_of, opened, parse
from trainer.data.borrowed import open_source
from trainer.data.dataset import Dataset
from trainer.data.featurecache import NotKnown
from trainer.data.layouts.files import number_of
from trainer.errors import UserError
from trainer.experiment.page import write_pages
from trainer.experiment.results import read_results
from trainer.experiment.runner import Outcome, Plan, known, run_missing, state
from trainer.experiment.tables import Row, Setting, Table, names, open_table
from trainer.experiment.trials import Material, Trial, plan
from trainer.machine import device_named
from trainer.metrics.distribution import open_extractor
from trainer.metrics.evaluate import classes_of
from trainer.metrics.judge import open_judge

OF_SETS = ("fid", "kid", "precision", "recall")
"""Figures that need a feature extractor."""


@dataclass(frozen=True)
class ExperimentOptions:
    """What `fewpair experiment` takes."""

    table: tyro.conf.Positional[str]
    """A table that ships with fewpair, or the path of a TOML file of your own."""
    out: Path
    """The experiment's folder. All tables may share one: a run that several of them need is made once."""
    root: Path | None = None
    """The dataset's folder; the built-in scenes have none."""
    setting: str = "compact"
    """The scale to run at: compact (a CPU can do it) or paper."""
    data: str | None = None
    """Another dataset than the setting's."""
    features: Path | None = None
    """What the rules and the distances between photos look at: a .onnx extractor. Where only rules look, a state dict of torchvision's
    resnet50 will do; where only distances do, `inception` or a file of its weights (.pth)."""
    judge: Path | None = None
    """A segmenter that judges photos made from label maps: an exported folder, or an .onnx file."""
    vgg: Path | None = None
    """VGG-19's weights for methods with a perceptual loss (torchvision's layout, or up to relu3_1); None: torchvision's, fetched once."""
    unpaired_labels: tuple[str, ...] = ()
    """NAME=DATASET:FOLDER for each source of label maps that a row names, as in carla=labels:data/carla."""
    label_maps: tuple[str, ...] = ()
    """NAME=FILE where the classes of such a source differ by name from the dataset's: a CSV file `from,to`."""
    rows: tuple[str, ...] = ()
    """These rows alone."""
    repeats: int | None = None
    """How many seeds for each row; None: as many as the setting says."""
    processes: int = 1
    """How many runs at once; they take the CUDA devices in turn."""
    threads: int | None = None
    """CPU threads of each process; None: the cores, shared out."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    results: Path | None = None
    """Where results are kept, one JSON line a run; None: TABLE.jsonl in the experiment's folder."""
    again: bool = False
    """Run once more what has failed."""
    discard: bool = False
    """Remove a run's checkpoints as soon as its figures are written down."""
    skip_broken: bool = False
    """Go on past files that cannot be read, and count them."""
    dry_run: bool = False
    """Say what is there and what is missing; run nothing, and compute no features."""


def experiment(arguments: list[str]) -> int:
    """`fewpair experiment TABLE`: run what is missing, then write the table."""
    asked = parse(ExperimentOptions, "experiment", arguments, f"Rebuild a paper's table. Tables: {', '.join(names())}.")
    table = open_table(asked.table)
    setting = table.setting(asked.setting, data=asked.data)
    rows = table.rows_of(setting, asked.rows)
    for name in ("repeats", "processes", "threads"):
        value = getattr(asked, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: give 1 or more")
    device_named(asked.device)
    dataset = opened(setting.data, asked.root)
    rules = tuple(rule for row in rows for rule in (row.rule or "random", row.pool_rule))
    material = Material(
        dataset,
        asked.root,
        features=known_of(rules, asked.features) if asked.dry_run else extractor(rules, asked.features, device=asked.device),
        features_path=asked.features,
        label_sources={name: open_source(place) for name, place in _named("--unpaired-labels", asked.unpaired_labels)},
        label_maps={name: Path(place) for name, place in _named("--label-maps", asked.label_maps)},
        vgg=_file("--vgg", asked.vgg),
        cache=asked.out / "features",
        skip_broken=asked.skip_broken,
    )
    without = [row for row in rows if row.unpaired_labels and row.unpaired_labels not in material.label_sources]
    if without and not asked.rows:
        print("left out, as their label maps are not given with --unpaired-labels: " + ", ".join(row.name for row in without))
        rows = tuple(row for row in rows if row not in without)
    if asked.dry_run:
        trials, lacking = _without_looking(table, setting, rows, material, repeats=asked.repeats)
    else:
        if material.features is not None:
            print(f"looking at the photos of {dataset.place} for what rows choose by; features are kept in {material.cache}", flush=True)
        trials, lacking = plan(table, setting, rows, material, repeats=asked.repeats), {}
    results = asked.results or asked.out / f"{table.name}.jsonl"
    needs = [metric.figure for metric in table.metrics]
    work = Plan(
        out=asked.out,
        results=results,
        splits=setting.splits,
        metrics=table.metrics,
        processes=asked.processes,
        threads=asked.threads or max(1, (os.cpu_count() or 1) // asked.processes),
        device=asked.device,
        judge=asked.judge,
        features=asked.features if any(figure.startswith(OF_SETS) for figure in needs) else None,
        again=asked.again,
        discard=asked.discard,
        skip_broken=asked.skip_broken,
    )
    work = replace(work, judged_by=_judges(table, dataset, work))
    _tell(trials, work)
    if asked.dry_run:
        _tell_lacking(lacking, material)
        return 0
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        outcome = run_missing(trials, work)
    finally:
        if results.exists():
            written = write_pages(table, setting, read_results(results), asked.out)
            print(f"written: {', '.join(map(str, written))}", flush=True)
    return _said(outcome)


def _file(option: str, path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise UserError(f"{option} {path}: there is no such file")
    return path


def _named(option: str, given: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [word.partition("=") for word in given]
    for word, (name, equals, place) in zip(given, pairs, strict=True):
        if not (name and equals and place):
            raise UserError(f"{option} {word}: write NAME=..., as in carla=labels:data/carla")
    return [(name, place) for name, _, place in pairs]


def _judges(table: Table, dataset: Dataset, work: Plan) -> dict[str, str]:
    """The names of the judge and the extractor; refused before training where the table asks for one that is not there or of no use."""
    names = {}
    figures = [metric.figure for metric in table.metrics]
    if work.judge is None and any(figure.startswith("judge_") for figure in figures):
        raise UserError(
            f"{table.name} judges photos by a segmenter: give one with --judge; `fewpair train judge` and `fewpair export` make one"
        )
    if work.features is None and any(figure.startswith(OF_SETS) for figure in figures):
        raise UserError(f"{table.name} compares sets of photos: give a feature extractor with --features")
    if work.judge is not None:
        if dataset.label_domain.kind != "classes":
            raise UserError(f"--judge {work.judge} finds classes in photos, but the labels of {dataset.name} are pictures: leave it out")
        judge = open_judge(work.judge, classes_of(dataset.label_domain))
        if any(figure.startswith("judge_") for figure in figures):
            names["judge"] = f"{judge.name}-{judge.sha256[:8]}"
    if work.features is not None:
        names["features"] = open_extractor(str(work.features)).name
    return names


def _without_looking(
    table: Table, setting: Setting, rows: tuple[Row, ...], material: Material, *, repeats: int | None
) -> tuple[list[Trial], dict[str, int]]:
    """The runs that can be named without computing features, and for each of the other rows how many photos would be looked at first."""
    trials: list[Trial] = []
    lacking: dict[str, int] = {}
    for row in rows:
        try:
            trials += plan(table, setting, (row,), material, repeats=repeats)
        except NotKnown as photos:
            lacking[row.name] = photos.count
    return trials, lacking


def _tell_lacking(lacking: dict[str, int], material: Material) -> None:
    """What a run would do first, before it is known which of these rows' runs are there."""
    if lacking and material.features is not None:
        count = max(lacking.values())
        print(
            f"not told: {', '.join(lacking)}. Their pairs are chosen by features that are not known yet: without --dry-run, "
            f"{material.features.name} looks first at up to {number_of(count, 'photo')} of {material.dataset.place}, "
            f"and what it finds is kept in {material.cache}"
        )


def _tell(trials: list[Trial], work: Plan) -> None:
    """What is there and what is not, row by row."""
    have = known(work)
    states: dict[str, list[str]] = {}
    for trial in trials:
        states.setdefault(trial.row.name, []).append(state(trial, work, have)[0])
    width = max((len(name) for name in states), default=0)
    for trial in trials:
        if trial.repeat == 0:
            each, run = states[trial.row.name], trial.run
            counts = ", ".join(
                f"{each.count(what)} {what}" for what in ("done", "shared", "failed", "half-finished", "missing") if what in each
            )
            print(f"  {trial.row.name:<{width}}  {run.method:<10} {run.pairs:>4} + {run.unpaired:<5} {run.steps} steps: {counts}")


def _said(outcome: Outcome) -> int:
    counts = {
        "run": len(outcome.run),
        "taken over from other tables": len(outcome.shared),
        "FAILED": len(outcome.failed),
        "to be gone on with": len(outcome.died),
    }
    print(", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing was missing")
    return 1 if outcome.failed or outcome.died else 0
