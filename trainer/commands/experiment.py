"""`fewpair experiment TABLE` runs what is missing of a table; `fewpair report` writes pages of a table or of runs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from trainer.commands.arguments import MachineOptions, opened, parse, use_threads
from trainer.commands.session import check_run
from trainer.commands.train import TrainOptions, completed, selected
from trainer.device import device_named, resolve_precision
from trainer.errors import UserError
from trainer.experiment.report import write_pages
from trainer.experiment.results import Result, append, identity, read_results
from trainer.experiment.run import config_of, folder_of, measure
from trainer.experiment.tables import SHIPPED, Row, Setting, Table, open_table
from trainer.methods.base import Direction, Samples
from trainer.metrics.distribution import open_extractor
from trainer.metrics.evaluate import classes_of
from trainer.metrics.judge import open_judge
from trainer.report.page import write_report
from trainer.run import Run
from trainer.training.checkpointing import RunDir, open_run


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions(MachineOptions):
    """Options of `fewpair experiment`."""

    table: tyro.conf.Positional[str]
    """A table that ships with fewpair, or a TOML file."""
    out: Path
    """The folder of the runs and of the results, TABLE.jsonl. Runs that several tables share are trained once."""
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
    dry_run: bool = False
    """Only print how many runs are missing."""


@dataclass(frozen=True)
class ReportOptions:
    """Options of `fewpair report`."""

    subjects: tyro.conf.Positional[tuple[str, ...]]
    """Folders of runs, side by side on one page in the first; or a table that ships with fewpair, or a TOML file."""
    results: Path | None = None
    """Of a table: the results that `fewpair experiment` wrote."""
    out: Path = Path()
    """Of a table: the folder for TABLE.md, .csv and .svg; text around the generated part of a page is kept."""
    setting: str = "compact"
    """Of a table: the scale of the runs."""


def experiment(arguments: list[str]) -> int:
    """Run what is missing, append each result, then write the pages. After Ctrl-C the same command continues."""
    about = f"Rebuild a paper's table. Tables: {', '.join(SHIPPED)}."
    options = parse(ExperimentOptions, "experiment", arguments, about)
    use_threads(options.threads)
    table = open_table(options.table)
    setting = table.setting(options.setting)
    dataset = opened(setting.data, options.root)
    sources = _named("--unpaired-labels", options.unpaired_labels)
    rows = table.rows_of(setting, options.rows)
    without = [row.name for row in rows if row.unpaired_labels and row.unpaired_labels not in sources]
    if without:
        print(f"skipped, because their source of label maps is not given with --unpaired-labels: {', '.join(without)}")
    metrics = _metrics(table, options)
    if options.judge is not None:
        open_judge(options.judge, classes_of(dataset.label_domain))
    results = options.out / f"{table.name}.jsonl"
    done = {identity(each) for each in read_results(results) if not each["failed"]}
    planned = _planned(table, setting, [row for row in rows if row.name not in without], options)
    lacking = [(row, result) for row, result in planned if identity(result) not in done]
    counts = Counter(row.name for row, _ in lacking)
    print("missing runs: " + (", ".join(f"{name} {count}" for name, count in counts.items()) or "none"), flush=True)
    if options.dry_run:
        return 0
    jobs = [(result, *_prepared(table, setting, row, result["repeat"], options, sources)) for row, result in lacking]
    how: dict[str, Any] = {"metrics": metrics, "device": options.device, "threads": options.threads}
    failed = 0
    try:
        for number, (result, folder, directions, reads) in enumerate(jobs, 1):
            try:
                result |= measure(folder, setting.splits, directions=directions, reads=reads, **how)
                state = f"done in {result['seconds']:.0f} s"
            except UserError as error:
                failed += 1
                result["failed"] = str(error).replace(str(folder.path), "RUN")
                state = f"FAILED: {result['failed']}"
            append(results, result)
            print(f"[{number}/{len(jobs)}] {result['row']}, seed {result['repeat']}: {state}", flush=True)
    finally:
        written = write_pages(table, setting, read_results(results), options.out)
        print(f"wrote {', '.join(map(str, written))}", flush=True)
    return 1 if failed else 0


def report(arguments: list[str]) -> int:
    """Write the page of runs, or the Markdown page, the CSV file and the plot of a table from its results."""
    about = f"Show runs side by side, or write a table's pages from its results. Tables: {', '.join(SHIPPED)}."
    options = parse(ReportOptions, "report", arguments, about)
    if not options.subjects:
        raise UserError("name runs, as in fewpair report RUN RUN, or a table with --results and --out")
    if options.results is None:
        folders = [open_run(Path(each)) for each in options.subjects]
        name = "-".join(["report", *(folder.path.name for folder in folders[1:])])
        print(f"wrote {write_report(folders, folders[0].path / f'{name}.html')}")
        return 0
    if len(options.subjects) > 1:
        raise UserError(f"{' '.join(options.subjects)}: name one table with --results, or runs without it")
    table = open_table(options.subjects[0])
    results = read_results(options.results)
    if not any(each["table"] == table.name for each in results):
        raise UserError(
            f"--results {options.results} has no result of {table.name}; `fewpair experiment {table.name}` writes them"
        )
    written = write_pages(table, table.setting(options.setting), results, options.out)
    print(f"wrote {', '.join(map(str, written))}")
    return 0


def _metrics(table: Table, options: ExperimentOptions) -> list[str]:
    """Return the options of `fewpair evaluate` for the table's metrics. Raises UserError before training."""
    figures = [metric.figure for metric in table.metrics]
    words = [] if options.judge is None else ["--judge", str(options.judge)]
    if options.judge is None and any(figure.startswith("judge_") for figure in figures):
        raise UserError(
            f"{table.name} scores generated photos with a segmentation model: give one with --judge "
            "(train it with `fewpair train judge`, then `fewpair export`)"
        )
    if any(figure.startswith(("fid", "kid", "precision", "recall")) for figure in figures):
        if options.features is None:
            raise UserError(f"{table.name} compares sets of photos: give a feature extractor with --features")
        open_extractor(options.features)
        words += ["--features", options.features]
    return words


def _planned(
    table: Table, setting: Setting, rows: Sequence[Row], options: ExperimentOptions
) -> list[tuple[Row, Result]]:
    """Return the rows, each with what tells its result from others; every row once before any is repeated."""
    precision = resolve_precision("auto", device_named(options.device))
    about = {"table": table.name, "setting": setting.name, "precision": precision, "failed": None}
    counts = {row.name: options.repeats or setting.repeats_of(row) for row in rows}
    return [
        (row, about | {"row": row.name, "repeat": repeat, "rule": row.rule or "-"})
        for repeat in range(max(counts.values(), default=0))
        for row in rows
        if repeat < counts[row.name]
    ]


def _prepared(
    table: Table, setting: Setting, row: Row, repeat: int, options: ExperimentOptions, sources: Mapping[str, str]
) -> tuple[RunDir, frozenset[Direction], frozenset[Samples]]:
    """Select the pairs of a run as `fewpair train` does, and create its folder; its method's directions and reads."""
    steps = round(setting.steps * row.steps_factor)
    try:
        run = Run(
            recipe=f"{table.name}/{row.name}",
            method=row.method,
            config=config_of(setting, row, _named("--weights", options.weights)),
            data=setting.data,
            root=None if options.root is None else str(options.root),
            pairs=row.pairs,
            unpaired=None if row.unpaired == "all" else row.unpaired,
            size=setting.size,
            steps=steps,
            seed=repeat,
            batch=setting.batch,
            enlarge=setting.enlarge,
            balanced=row.balanced,
            rule=row.rule or "random",
            pool_rule=row.pool_rule,
            features=options.features,
            unpaired_labels=sources.get(row.unpaired_labels or ""),
            precision=resolve_precision("auto", device_named(options.device)),
            evaluate_every=max(1, steps // setting.validations),
            save_every=min(200, max(1, steps // 2)),
        )
        training = TrainOptions(out=options.out / "runs", run=run, pairs=row.pairs, device=options.device)
        selection = selected(training, run)
        run = completed(run, run, selection)
        method = check_run(run, selection.dataset, selection)
    except ValueError as error:
        raise UserError(f"{table.name}, row {row.name}: {error}") from error
    return folder_of(options.out / "runs", run, selection), method.directions, method.reads


def _named(option: str, given: Sequence[str]) -> dict[str, str]:
    """Split NAME=VALUE words."""
    pairs = [word.partition("=") for word in given]
    for name, _, value in pairs:
        if not (name and value):
            raise UserError(f"{option} {' '.join(given)}: write NAME=VALUE, as in carla=labels:data/carla")
    return {name: value for name, _, value in pairs}
