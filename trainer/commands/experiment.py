"""`fewpair experiment TABLE` runs what is missing of a paper's table; `fewpair report TABLE` writes its pages."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tyro

from trainer.commands.arguments import MachineOptions, absolute, extractor, opened, parse
from trainer.data.external_labels import open_source
from trainer.errors import UserError
from trainer.experiment.report import write_pages
from trainer.experiment.results import read_results
from trainer.experiment.run import Options, missing, prepare, run_jobs
from trainer.experiment.tables import Table, names, open_table
from trainer.metrics.distribution import open_extractor
from trainer.metrics.evaluate import classes_of
from trainer.metrics.judge import open_judge


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions(MachineOptions):
    """Options of `fewpair experiment`."""

    table: tyro.conf.Positional[str]
    """A table that ships with fewpair, or a TOML file."""
    out: Path
    """The folder of the runs; several tables may share it, and runs that they have in common are trained once."""
    root: Path | None = None
    """The dataset's folder."""
    setting: str = "compact"
    """compact (for a CPU) or paper."""
    features: str | None = None
    """The feature extractor of the selection rules (None: EfficientNet-Lite0), and of FID, KID, precision, recall."""
    judge: Path | None = None
    """A segmenter that scores generated photos: a folder that `fewpair export` wrote."""
    weights: tuple[str, ...] = ()
    """NAME=FILE: pretrained weights for every method with this config field, as in vgg=vgg19.pth."""
    unpaired_labels: tuple[str, ...] = ()
    """NAME=DATASET:FOLDER: an external source of label maps that rows refer to, as in carla=labels:data/carla."""
    rows: tuple[str, ...] = ()
    """Run these rows only."""
    repeats: int | None = None
    """Seeds per row; by default what the setting says."""
    results: Path | None = None
    """The file of results; by default TABLE.jsonl in --out."""
    dry_run: bool = False
    """Only print how many runs are missing."""


@dataclass(frozen=True)
class ReportOptions:
    """Options of `fewpair report`."""

    table: tyro.conf.Positional[str]
    """A table that ships with fewpair, or a TOML file."""
    results: Path
    """The results that `fewpair experiment` wrote."""
    out: Path
    """The folder for TABLE.md, .csv, .svg and .png; text around the generated part of an existing page is kept."""
    setting: str = "compact"
    """The scale of the runs."""


def experiment(arguments: list[str]) -> int:
    """Run what is missing, then write the pages."""
    about = f"Rebuild a paper's table. Tables: {', '.join(names())}."
    asked = parse(ExperimentOptions, "experiment", arguments, about)
    table = open_table(asked.table)
    setting = table.setting(asked.setting)
    dataset = opened(setting.data, asked.root)
    sources = {name: open_source(place) for name, place in _named("--unpaired-labels", asked.unpaired_labels).items()}
    rows = table.rows_of(setting, asked.rows)
    without = [row.name for row in rows if row.unpaired_labels and row.unpaired_labels not in sources]
    if without:
        print(f"skipped, because their source of label maps is not given with --unpaired-labels: {', '.join(without)}")
        rows = tuple(row for row in rows if row.name not in without)
    metrics = _metrics(table, asked)
    if asked.judge is not None:
        open_judge(asked.judge, classes_of(dataset.label_domain))
    weights = {name: str(absolute(path)) for name, path in _named("--weights", asked.weights).items()}
    for path in weights.values():
        if not Path(path).is_file():
            raise UserError(f"--weights {path}: no such file")
    rules = [rule for row in rows for rule in (row.rule or "random", row.pool_rule)]
    options = Options(
        out=asked.out,
        results=asked.results or asked.out / f"{table.name}.jsonl",
        dataset=dataset,
        features=None if asked.dry_run else extractor(rules, asked.features, device=asked.device),
        features_name=absolute(asked.features),
        metrics=metrics,
        weights=weights,
        label_sources=sources,
        threads=asked.threads,
        device=asked.device,
    )
    lacking = missing(table, setting, rows, options, asked.repeats)
    counts = Counter(row.name for row, _ in lacking)
    print("missing runs: " + (", ".join(f"{name} {count}" for name, count in counts.items()) or "none"), flush=True)
    if asked.dry_run:
        return 0
    jobs = [prepare(table, setting, row, repeat, options) for row, repeat in lacking]
    try:
        failed = run_jobs(jobs, setting, options)
    finally:
        written = write_pages(table, setting, read_results(options.results), asked.out)
        print(f"wrote {', '.join(map(str, written))}", flush=True)
    return 1 if failed else 0


def report(arguments: list[str]) -> int:
    """Write the Markdown page, the CSV file and the plot of a table from its results."""
    about = f"Write a table's pages from its results. Tables: {', '.join(names())}."
    asked = parse(ReportOptions, "report", arguments, about)
    table = open_table(asked.table)
    results = read_results(asked.results)
    if not any(each["table"] == table.name for each in results):
        raise UserError(
            f"--results {asked.results} has no result of {table.name}; `fewpair experiment {asked.table}` writes them"
        )
    written = write_pages(table, table.setting(asked.setting), results, asked.out)
    print(f"wrote {', '.join(map(str, written))}")
    return 0


def _metrics(table: Table, asked: ExperimentOptions) -> list[str]:
    """Return the options of `fewpair evaluate` for the table's metrics. Raises UserError before training."""
    figures = [metric.figure for metric in table.metrics]
    words = [] if asked.judge is None else ["--judge", str(asked.judge)]
    if asked.judge is None and any(figure.startswith("judge_") for figure in figures):
        raise UserError(
            f"{table.name} scores generated photos with a segmentation model: give one with --judge "
            "(train it with `fewpair train judge`, then `fewpair export`)"
        )
    if any(figure.startswith(("fid", "kid", "precision", "recall")) for figure in figures):
        if asked.features is None:
            raise UserError(f"{table.name} compares sets of photos: give a feature extractor with --features")
        open_extractor(asked.features)
        words += ["--features", asked.features]
    return words


def _named(option: str, given: tuple[str, ...]) -> dict[str, str]:
    """Split NAME=VALUE words."""
    pairs = [word.partition("=") for word in given]
    for name, _, value in pairs:
        if not (name and value):
            raise UserError(f"{option} {' '.join(given)}: write NAME=VALUE, as in carla=labels:data/carla")
    return {name: value for name, _, value in pairs}
