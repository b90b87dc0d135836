"""A run's folder: settings, pairs.json, classes.csv, environment.json, metrics.jsonl, samples, figures, checkpoints."""

import dataclasses
import fcntl
import io
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from trainer.batch import Batch, Domain
from trainer.data.catalogue import open_dataset
from trainer.data.class_table import class_rows, read_classes
from trainer.data.dataset import Dataset
from trainer.data.external_labels import open_source
from trainer.data.selection.selection import Selection
from trainer.errors import UserError
from trainer.methods import METHODS
from trainer.methods.base import Method
from trainer.run import Run, from_json
from trainer.training.batches import make_loader, statistics_batches
from trainer.training.environment import environment

FORMAT = 1
STATISTICS = "estimates"
"""The key of the batch statistics among a checkpoint's averages; they belong to the averaged weights."""


class RunDir:
    """Reads and writes one run's folder. Every file that resume needs is replaced whole or not at all."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path, self.run = path, run
        self.samples, self.evaluations = path / "samples", path / "evaluation"
        self.metrics = path / "metrics.jsonl"
        """One JSON object a line: what was logged."""

    def dataset(self) -> Dataset:
        """The run's dataset, opened. Raises UserError where its class table is not the one that was trained on."""
        root, table = self.run.root, self.path / "classes.csv"
        if root is not None and not Path(root).is_dir():
            raise UserError(
                f"the data of {self.path} are not in {root} any more: move them back, or change `root` in "
                f"{self.path / 'config.json'}"
            )
        dataset = open_dataset(self.run.data, root)
        if table.exists() and read_classes(table) != dataset.label_domain.classes:
            raise UserError(f"{self.path} was trained with another class table: put {table} into {dataset.place}")
        return dataset

    def selection(self, dataset: Dataset) -> Selection:
        """The run's pairs and unpaired samples, checked against the files they name."""
        path = self.path / "pairs.json"
        labels_of = None if self.run.unpaired_labels is None else open_source(self.run.unpaired_labels)
        return Selection.from_json(path.read_text(), dataset, source=str(path), labels_of=labels_of, of_run=True)

    def checkpoint(self, name: str) -> Path:
        """The file of the checkpoint called last, best or step-NNNNNN."""
        return self.path / f"{name}.ckpt"

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint."""
        content = io.BytesIO()
        torch.save({"format": FORMAT} | state, content)
        write_whole(self.checkpoint(name), content.getvalue())

    def load(self, name: str, *, device: str | torch.device = "cpu") -> dict[str, Any]:
        """Read a checkpoint; only tensors and plain values are unpickled."""
        path = self.checkpoint(name)
        if not path.exists():
            saved = sorted((each.stem for each in self.path.glob("*.ckpt")), key=lambda each: (each != "last", each))
            remedy = f"it has {', '.join(saved)}: add --checkpoint {saved[0]}" if saved else "it has none yet"
            raise UserError(f"{self.path} has no checkpoint {name}; {remedy}")
        try:
            state = torch.load(path, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
            raise UserError(f"{path} is not a readable checkpoint ({error})") from error
        if state.get("format") != FORMAT:
            raise UserError(f"{path} has format {state.get('format')}, this version of fewpair reads {FORMAT}")
        return state

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process. Raises UserError with the process id where another one is training it."""
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise UserError(
                    f"{self.path} is being trained by process {file.read().strip() or 'unknown'}: wait for it, or "
                    "stop it first"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def environment(self) -> dict[str, Any]:
        """Where the run was started, and where it was resumed; empty where that was not recorded."""
        path = self.path / "environment.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def note_resumed(self) -> None:
        """Add the machine and versions that resume the run to environment.json."""
        known = self.environment()
        known.setdefault("resumed", []).append(environment())
        write_whole(self.path / "environment.json", json.dumps(known, indent=1))

    def log(self, figures: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(figures) + "\n")

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; not the last one if a killed process cut it."""
        lines = self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def truncate_log(self, step: int) -> None:
        """Drop the lines of metrics.jsonl after `step`: a killed run logged them, and they will be run again."""
        kept = [line for line in self.logged() if line["step"] <= step]
        write_whole(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))


def create_run(path: Path, run: Run, selection: Selection) -> RunDir:
    """A new run's folder. Raises UserError where the folder already holds something."""
    if (path / "config.json").exists():
        raise UserError(
            f"{path} holds a run already: name another folder with --out, or continue that one: fewpair train "
            f"--resume {path}"
        )
    # What a process that was killed in this function may have left.
    begun = {"samples", "evaluation", "pairs.json", "classes.csv", "environment.json", "config.json"}
    if path.exists() and any(each.name.removesuffix(".part") not in begun for each in path.iterdir()):
        raise UserError(f"{path} is not empty, and what it holds is not a run: name another folder with --out")
    for folder in ("samples", "evaluation"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    write_whole(path / "pairs.json", selection.to_json())
    if (classes := selection.dataset.label_domain.classes) is not None:
        write_whole(path / "classes.csv", class_rows(classes))
    write_whole(path / "environment.json", json.dumps(environment(), indent=1))
    write_whole(path / "config.json", json.dumps(dataclasses.asdict(run), indent=1))
    return RunDir(path, run)


def open_run(path: Path) -> RunDir:
    """The folder of an existing run."""
    config = path / "config.json"
    if not config.is_file():
        raise UserError(f"{path} is not the folder of a run: it holds no config.json")
    try:
        return RunDir(path, from_json(json.loads(config.read_bytes())))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{config} cannot be read as JSON ({error}): it is not the file of a run") from error


def last_good(folder: RunDir) -> str:
    """The clause of an error message that names the checkpoint to go on from."""
    last = folder.checkpoint("last")
    return f"the last good checkpoint is {last}" if last.exists() else f"no checkpoint was saved in {folder.path} yet"


def load_method(
    path: Path, *, checkpoint: str = "best", weights: Literal["averaged", "raw"] = "averaged"
) -> tuple[Method, Run, int]:
    """The trained method of a run, in eval mode on the CPU, the run, and the step at which the checkpoint was saved.

    Batch statistics of averaged weights are estimated where the checkpoint, saved between two evaluations, has none.
    """
    folder = open_run(path)
    state = folder.load(checkpoint)
    dataset = folder.dataset()
    method = build_method(folder.run, dataset.label_domain)
    values, step = state["method"] | state["own"][0]["method"], int(state["step"])
    if weights == "averaged":
        values = values | {name: value for average in state["averaged"].values() for name, value in average.items()}
    method.load_state_dict(values)
    if weights == "averaged" and not state["averaged"].get(STATISTICS):

        def batches() -> Iterator[Batch]:  # reads the dataset only where the method has statistics to estimate
            loader = make_loader(folder.run, method, dataset, folder.selection(dataset))
            yield from statistics_batches(loader, step)

        method.estimate_statistics(batches())
    return method.eval(), folder.run, step


def build_method(run: Run, label_domain: Domain) -> Method:
    """The run's method with its initial weights, a function of the run's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        return METHODS[run.method](run.config, label_domain, size=run.size, seed=run.seed)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a process killed at any moment leaves the former one or this one, whole."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename lasts through a power cut
    finally:
        os.close(folder)
