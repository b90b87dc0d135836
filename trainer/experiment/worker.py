"""The process that trains and judges one run of a table: `python -m trainer.experiment.worker JOB.json`, started by the runner."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trainer.data.borrowed import open_source
from trainer.data.pairs import Selection
from trainer.errors import UserError
from trainer.experiment.job import BUSY, Job, claimed
from trainer.loop import resume, start
from trainer.machine import device_named
from trainer.metrics.distribution import open_extractor
from trainer.metrics.evaluate import classes_of
from trainer.metrics.judge import open_judge
from trainer.metrics.record import evaluate_and_record
from trainer.recipes import from_json, to_json
from trainer.rundir import RunDir, environment, load_method, open_run, write_whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the job and write its answer; nothing is written where the process is stopped on the way."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started deaf to it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    job = Job.read(Path((sys.argv[1:] if arguments is None else arguments)[0]))
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    torch.set_num_threads(job.threads)
    try:
        with claimed(Path(job.folder)) as alone:
            if not alone:
                return BUSY
            write_whole(Path(job.answer), json.dumps(done(job), allow_nan=False))
    except KeyboardInterrupt:
        return 130
    return 0


def done(job: Job) -> dict[str, Any]:
    """Train the run to its end, from where it was left, and judge it; or the reason why that cannot be."""
    began, resumed = time.process_time(), (Path(job.folder) / "config.json").exists()
    try:
        folder = _trained(job)
        figures, judges = judged(folder, job)
    except (UserError, RuntimeError, ValueError, FloatingPointError, OSError) as error:
        reason = " ".join(str(error).replace(job.folder, "RUN").split())
        return {"failed": reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}"}
    logged = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    known = {name: value for name, value in environment().items() if name != "command"}  # the command names places of this machine
    return {
        "figures": figures,
        "judges": judges,
        "seconds": logged[-1].get("seconds"),
        "cpu_seconds": None if resumed else round(time.process_time() - began, 1),
        "environment": known | {"device": str(device_named(job.device)), "threads": job.threads},
    }


def _trained(job: Job) -> RunDir:
    run, path = from_json(job.run), Path(job.folder)
    if not (path / "config.json").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset = RunDir(path, run).dataset()
        borrowed = None if run.unpaired_labels is None else open_source(run.unpaired_labels)
        selection = Selection.from_json(job.selection, dataset, source="the selection", labels_of=borrowed)
        return start(path, run, dataset, selection, device=job.device, skip_broken=job.skip_broken, progress=False)
    if open_run(path).run.root != run.root:
        write_whole(path / "config.json", json.dumps(to_json(run), indent=1))  # the data lies elsewhere today
    return resume(open_run(path), device=job.device, skip_broken=job.skip_broken, progress=False)


def judged(folder: RunDir, job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of the last and of the best averaged weights on every split, and the names of the judges."""
    dataset, device = folder.dataset(), device_named(job.device)
    selection = folder.selection(dataset)
    judge = None if job.judge is None else open_judge(Path(job.judge), classes_of(dataset.label_domain), device=device)
    features = None if job.features is None else open_extractor(job.features, device=device)
    figures: dict[str, Any] = {}
    for checkpoint in ("last", "best"):
        method, _, step = load_method(folder.path, checkpoint=checkpoint)
        if checkpoint == "best" and step == figures["last"]["step"]:
            figures["best"] = figures["last"]
            break
        figures[checkpoint] = {"step": step}
        paints = "to_photo" in method.directions
        for split in job.splits:
            found = evaluate_and_record(
                method,
                dataset,
                folder=folder.evaluations,
                provenance=folder.provenance(selection, split=split, step=step, checkpoint=checkpoint),
                train_samples=selection.streams(dataset).pairs,
                device=device,
                skip_broken=job.skip_broken,
                judge=judge if paints else None,
                features=features if paints else None,
            )
            figures[checkpoint][split] = {**found.figures, "floors": _scalars(found.floors)}
    names = {
        "selection": selection.features,
        "judge": f"{judge.name}-{judge.sha256[:8]}" if judge else None,
        "features": features.name if features else None,
    }
    return figures, {what: name for what, name in names.items() if name is not None}


def _scalars(floors: dict[str, Any]) -> dict[str, Any]:
    return {name: {each: value for each, value in values.items() if isinstance(value, float)} for name, values in floors.items()}


def _stop_with_parent() -> None:
    """Ctrl-C for this process when the pipe from the runner closes: the runner asks for it, or is gone."""
    while os.read(0, 1):  # not sys.stdin: its lock, held here, would end the interpreter with an abort
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
