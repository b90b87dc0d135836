"""Runs what is missing of a table: `fewpair train` and `evaluate` as subprocesses, a JSON line per finished run."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data.dataset import Dataset
from trainer.data.external_labels import spelling, with_external_labels
from trainer.data.selection.choose import select
from trainer.data.selection.features import FeatureExtractor
from trainer.data.selection.selection import Selection
from trainer.device import device_named, resolve_precision
from trainer.errors import UserError
from trainer.experiment.results import Result, append, identity, read_results
from trainer.experiment.tables import Row, Setting, Table
from trainer.methods import METHODS
from trainer.run import Run
from trainer.training.checkpointing import build_method, create_run, open_run

NAMES = ("recipe", "expected", "root", "features", "rule", "pool_rule", "pairs", "unpaired", "unpaired_labels")
INTERVALS = ("save_every", "log_every", "keep")
"""Fields of a Run that do not decide its result. The selected files are hashed themselves."""


@dataclass(frozen=True)
class Options:
    """What the command line adds to a table."""

    out: Path
    """Holds runs/, features/ and, by default, the results."""
    results: Path
    dataset: Dataset
    features: FeatureExtractor | None = None
    """The feature extractor of the selection rules."""
    features_name: str | None = None
    """As it was given: a file, or resnet50."""
    metrics: Sequence[str] = ()
    """Further words for `fewpair evaluate` on methods that generate photos: a judge, an extractor."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Files for config fields of these names, of every method that has such a field."""
    label_sources: Mapping[str, Dataset] = field(default_factory=dict)
    threads: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Job:
    """One run of a row, in its own folder."""

    result: Result
    """The result without figures."""
    folder: Path
    makes_photos: bool


def missing(
    table: Table, setting: Setting, rows: Sequence[Row], options: Options, repeats: int | None
) -> list[tuple[Row, int]]:
    """Return the rows and seeds that have no result in this precision; each row once before any is repeated."""
    precision = resolve_precision("auto", device_named(options.device))
    done = {identity(each) for each in read_results(options.results) if not each["failed"]}
    counts = {row.name: repeats or setting.repeats_of(row) for row in rows}
    return [
        (row, repeat)
        for repeat in range(max(counts.values(), default=0))
        for row in rows
        if repeat < counts[row.name] and (table.name, setting.name, row.name, repeat, precision) not in done
    ]


def run_jobs(jobs: Sequence[Job], setting: Setting, options: Options) -> int:
    """Run the jobs, append each result, and return how many failed. After Ctrl-C the same command continues."""
    failed = 0
    for number, job in enumerate(jobs, 1):
        result = execute(job, setting, options)
        append(options.results, result)
        failed += bool(result["failed"])
        state = f"FAILED: {result['failed']}" if result["failed"] else f"done in {result['seconds']:.0f} s"
        print(f"[{number}/{len(jobs)}] {result['row']}, seed {result['repeat']}: {state}", flush=True)
    return failed


def prepare(table: Table, setting: Setting, row: Row, repeat: int, options: Options) -> Job:
    """Select the pairs of a run and create its folder. Equal runs of several tables share one and are trained once."""
    try:
        run, selection = _run_of(table, setting, row, repeat, options)
        method = build_method(run, options.dataset.label_domain)
        method.check_steps(run.steps)
    except (ValueError, UserError) as error:
        raise UserError(f"{table.name}, row {row.name}: {error}") from error
    key = key_of(run, selection)
    folder = options.out / "runs" / key[:16]
    if not (folder / "config.json").exists():
        create_run(folder, run, selection)
    result = {
        "table": table.name,
        "setting": setting.name,
        "row": row.name,
        "repeat": repeat,
        "precision": run.precision,
        "key": key,
        "method": run.method,
        "pairs": run.pairs,
        "unpaired": run.unpaired,
        "rule": row.rule or "-",
        "steps": run.steps,
        "size": list(run.size),
        "reads": sorted({kind.split()[0] for kind in method.reads}),
    }
    return Job(result, folder, "to_photo" in method.directions)


def execute(job: Job, setting: Setting, options: Options) -> Result:
    """Train the run from where it stands, evaluate its last and best checkpoints, and return the result."""
    common = ["--device", options.device, *([] if options.threads is None else ["--threads", str(options.threads)])]
    log = job.folder / "experiment.log"
    figures: dict[str, Any] = {}
    judges = {"selection": json.loads((job.folder / "pairs.json").read_text()).get("features")}
    try:
        cpu_seconds = fewpair(["train", "--resume", str(job.folder), *common], log)
        for checkpoint in ("last", "best"):
            step = open_run(job.folder).load(checkpoint)["step"]
            if checkpoint == "best" and step == figures["last"]["step"]:
                figures["best"] = figures["last"]
                break
            figures[checkpoint] = {"step": step}
            for split in setting.splits:
                command = ["evaluate", str(job.folder), "--split", split, "--checkpoint", checkpoint, "--seeds", "0"]
                cpu_seconds += fewpair([*command, *(options.metrics if job.makes_photos else ()), *common], log)
                written = (job.folder / "evaluation").glob(f"{split}-{checkpoint}-averaged*.json")
                document = json.loads(max(written, key=lambda path: path.stat().st_mtime).read_text())
                figures[checkpoint][split] = document["figures"]
                if "photo_judge" in document:
                    judges["judge"] = f"{document['photo_judge']['name']}-{document['photo_judge']['sha256'][:8]}"
                if "distribution" in document:
                    judges["features"] = document["distribution"]["extractor"]
    except UserError as error:
        return {**job.result, "failed": str(error).replace(str(job.folder), "RUN")}
    environment = json.loads((job.folder / "environment.json").read_text())
    logged = (job.folder / "metrics.jsonl").read_text().splitlines()
    return {
        **job.result,
        "figures": figures,
        "judges": {name: value for name, value in judges.items() if value is not None},
        "seconds": json.loads(logged[-1])["seconds"],
        "cpu_seconds": round(cpu_seconds, 1),
        "environment": {name: value for name, value in environment.items() if name not in ("command", "resumed")}
        | {"device": str(device_named(options.device)), "threads": options.threads or environment["threads"]},
        "failed": None,
    }


def key_of(run: Run, selection: Selection) -> str:
    """Return a sha256 of everything that decides a run's result, including precision and files."""
    decided = {name: value for name, value in dataclasses.asdict(run).items() if name not in NAMES + INTERVALS}
    decided["selection"] = json.loads(selection.to_json())
    return hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()


def _run_of(table: Table, setting: Setting, row: Row, repeat: int, options: Options) -> tuple[Run, Selection]:
    count = None if row.unpaired == "all" else row.unpaired
    selection = select(
        options.dataset,
        k=row.pairs,
        unpaired=count,
        rule=row.rule or "random",
        pool_rule=row.pool_rule,
        seed=repeat,
        features=options.features,
        cache=options.out / "features",
        progress=True,
    )
    labels: str | None = None
    if row.unpaired_labels is not None:
        source = options.label_sources[row.unpaired_labels]
        selection = with_external_labels(selection, source, label_map=None, count=count)
        labels = spelling(source)
    steps, root = round(setting.steps * row.steps_factor), options.dataset.root
    run = Run(
        recipe=f"{table.name}/{row.name}",
        method=row.method,
        config=config_of(setting, row, options.weights),
        data=options.dataset.name,
        root=None if root is None else str(root.resolve()),
        pairs=len(selection.pairs),
        unpaired=max(len(selection.unpaired_photos), len(selection.unpaired_labels)),
        size=setting.size,
        steps=steps,
        seed=repeat,
        batch=setting.batch,
        balanced=row.balanced,
        rule=selection.rule,
        pool_rule=selection.pool_rule,
        features=options.features_name,
        unpaired_labels=labels,
        precision=resolve_precision("auto", device_named(options.device)),
        evaluate_every=max(1, steps // setting.validations),
        save_every=min(200, max(1, steps // 2)),
    )
    return run, selection


def config_of(setting: Setting, row: Row, weights: Mapping[str, str]) -> Any:
    """Build the method's config: its defaults, then the weight files, the setting and the row."""
    if row.method not in METHODS:
        raise UserError(f"method {row.method!r} is unknown; known methods: {', '.join(METHODS)}")
    kind = METHODS[row.method].config_class
    known = {each.name for each in dataclasses.fields(kind)}
    files = {name: path for name, path in weights.items() if name in known}
    try:
        return kind(**files | dict(setting.config.get(row.method, {})) | dict(row.config))
    except TypeError as error:
        raise UserError(str(error)) from error


def fewpair(words: Sequence[str], log: Path) -> float:
    """Run a command and return its CPU seconds. Raises UserError with its message if it fails."""
    with log.open("ab+") as file:
        start = file.seek(0, os.SEEK_END)
        process = subprocess.Popen([sys.executable, "-m", "trainer", *words], stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode == 130 or process.returncode < 0:
            raise KeyboardInterrupt
        if process.returncode:
            file.seek(start)
            said = file.read().decode(errors="replace").strip().splitlines()
            raise UserError(said[-1].removeprefix("fewpair: ") if said else f"exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime
