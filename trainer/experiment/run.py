"""Trains and evaluates one run of a table: `fewpair train` and `evaluate` as subprocesses."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.data.selection.selection import Selection
from trainer.device import device_named
from trainer.errors import UserError
from trainer.experiment.results import Result
from trainer.experiment.tables import Row, Setting
from trainer.methods import METHODS
from trainer.methods.base import Direction, Samples
from trainer.run import Run
from trainer.training.checkpointing import RunDir, create_run

NAMES = ("recipe", "expected", "root", "features", "rule", "pool_rule", "pairs", "unpaired", "unpaired_labels")
INTERVALS = ("save_every", "log_every", "keep")
"""Fields of a Run that do not decide its result. The selected files are hashed themselves."""


def folder_of(runs: Path, run: Run, selection: Selection) -> RunDir:
    """Return the folder of a run, created where there is none. Equal runs of several tables share one."""
    decided = {name: value for name, value in dataclasses.asdict(run).items() if name not in NAMES + INTERVALS}
    decided["selection"] = json.loads(selection.to_json())
    path = runs / hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return RunDir(path, run) if (path / "config.json").exists() else create_run(path, run, selection)


def config_of(setting: Setting, row: Row, weights: Mapping[str, str]) -> Any:
    """Build the method's config: its defaults, then the weight files, the setting and the row."""
    if row.method not in METHODS:
        raise UserError(f"method {row.method!r} is unknown; known methods: {', '.join(METHODS)}")
    kind = METHODS[row.method].config_class
    files = {each.name: weights[each.name] for each in dataclasses.fields(kind) if each.name in weights}
    try:
        return kind(**{**files, **setting.config.get(row.method, {}), **row.config})
    except TypeError as error:
        raise UserError(str(error)) from error


def measure(
    folder: RunDir,
    splits: Sequence[str],
    *,
    directions: Collection[Direction],
    reads: Collection[Samples],
    metrics: Sequence[str],
    device: str,
    threads: int | None,
) -> Result:
    """Train a run from where it stands and evaluate its last and best checkpoints.

    `directions` and `reads` are its method's. `metrics` are further words for `fewpair evaluate` on methods that
    generate photos: a judge, an extractor.
    """
    path, log = str(folder.path), folder.path / "experiment.log"
    machine = ["--device", device, *([] if threads is None else ["--threads", str(threads)])]
    further = [*(metrics if "to_photo" in directions else ()), *machine]
    figures: dict[str, Any] = {}
    judges = {"selection": json.loads((folder.path / "pairs.json").read_text()).get("features")}
    cpu_seconds = fewpair(["train", "--resume", path, *machine], log)
    for checkpoint in ("last", "best"):
        step = folder.load(checkpoint)["step"]
        if checkpoint == "best" and step == figures["last"]["step"]:
            figures["best"] = figures["last"]
            break
        figures[checkpoint] = {"step": step}
        for split in splits:
            command = ["evaluate", path, "--split", split, "--checkpoint", checkpoint, "--seeds", "0"]
            cpu_seconds += fewpair([*command, *further], log)
            written = folder.evaluations.glob(f"{split}-{checkpoint}-averaged*.json")
            document = json.loads(max(written, key=lambda path: path.stat().st_mtime).read_text())
            figures[checkpoint][split] = document["figures"]
            if "photo_judge" in document:
                judges["judge"] = f"{document['photo_judge']['name']}-{document['photo_judge']['sha256'][:8]}"
            if "distribution" in document:
                judges["features"] = document["distribution"]["extractor"]
    return {
        "method": folder.run.method,
        "pairs": folder.run.pairs,
        "unpaired": folder.run.unpaired,
        "steps": folder.run.steps,
        "reads": sorted({kind.split()[0] for kind in reads}),
        "figures": figures,
        "judges": {name: value for name, value in judges.items() if value is not None},
        "seconds": json.loads(folder.metrics.read_text().splitlines()[-1])["seconds"],
        "cpu_seconds": round(cpu_seconds, 1),
        "environment": {
            name: value for name, value in folder.environment().items() if name not in ("command", "resumed")
        }
        | {"device": str(device_named(device))},
    }


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
