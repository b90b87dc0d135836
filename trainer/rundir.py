"""A run's folder: config.json, pairs.json, environment.json, metrics.jsonl, samples/, last.ckpt, best.ckpt, evaluation/, tb/.

Where pairs are drawn by rare classes also rare-classes.csv and rare-classes.png, which data/rare_report.py writes.
"""

import json
import os
import pickle
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from trainer.batch import Domain
from trainer.data.borrowed import open_source
from trainer.data.catalogue import Dataset, open_dataset
from trainer.data.pairs import Selection
from trainer.errors import UserError
from trainer.methods import build
from trainer.methods.base import Method
from trainer.metrics.provenance import Provenance
from trainer.networks.resnet import ResNetGenerator, load_junyanz
from trainer.recipes import Run, from_json, to_json
from trainer.weights import read_state_dict

FORMAT = 1


class RunDir:
    """Reads and writes one run's folder. Every file that resume needs is replaced whole or not at all."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.run = run

    @property
    def samples(self) -> Path:
        """Where sample sheets go."""
        return self.path / "samples"

    @property
    def evaluations(self) -> Path:
        """Where evaluations go."""
        return self.path / "evaluation"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: what was logged."""
        return self.path / "metrics.jsonl"

    def dataset(self) -> Dataset:
        """The run's dataset, opened."""
        return open_dataset(self.run.data, Path(self.run.root) if self.run.root else None)

    def selection(self, dataset: Dataset) -> Selection:
        """The run's pairs and unpaired samples, checked against the files they name."""
        path = self.path / "pairs.json"
        labels_of = None if self.run.unpaired_labels is None else open_source(self.run.unpaired_labels)
        return Selection.from_json(path.read_text(), dataset, source=str(path), labels_of=labels_of)

    def provenance(
        self,
        selection: Selection,
        *,
        split: str,
        step: int,
        checkpoint: str = "best",
        weights: Literal["averaged", "raw"] = "averaged",
        limit: int | None = None,
    ) -> Provenance:
        """What a figure of this run's checkpoint, saved at `step`, is a figure of."""
        return Provenance(
            dataset=self.run.data,
            split=split,
            size=self.run.size,
            method=self.run.method,
            recipe=self.run.recipe,
            pairs=len(selection.pairs),
            unpaired=len(selection.unpaired_photos),
            steps=self.run.steps,
            step=step,
            seed=self.run.seed,
            checkpoint=checkpoint,
            weights=weights,
            limit=limit,
        )

    def checkpoint(self, name: str) -> Path:
        """The file of the checkpoint called last, best or step-NNNNNN."""
        return self.path / f"{name}.ckpt"

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint so that a process killed at any moment leaves the former one or this one, whole."""
        target = self.checkpoint(name)
        part = target.with_suffix(".part")
        try:
            with part.open("wb") as file:
                torch.save({"format": FORMAT} | state, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            sync_folder(self.path)
        except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
            with suppress(OSError):
                part.unlink(missing_ok=True)
            kept = f"{target} holds the checkpoint before it" if target.exists() else "no earlier one was saved"
            raise UserError(
                f"the checkpoint at step {state.get('step')} could not be written to {self.path} ({error}); {kept}. "
                f"Free some disk space, or mend what the message names, then: fewpair train --resume {self.path}"
            ) from error

    def load(self, name: str, *, device: str | torch.device = "cpu") -> dict[str, Any]:
        """Read a checkpoint; only tensors and plain values are unpickled."""
        path = self.checkpoint(name)
        if not path.exists():
            held = ", ".join(sorted(each.stem for each in self.path.glob("*.ckpt"))) or "none"
            raise UserError(f"{self.path} holds no checkpoint called {name}; it holds {held}")
        try:
            state = torch.load(path, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
            raise UserError(f"{path} is not a readable checkpoint ({error})") from error
        if state.get("format") != FORMAT:
            raise UserError(f"{path} has format {state.get('format')}, this version of fewpair reads {FORMAT}")
        return state

    def note_resumed(self) -> None:
        """Write down in environment.json where and by which versions the run is continued."""
        path = self.path / "environment.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        known.setdefault("resumed", []).append(environment())
        write_whole(path, json.dumps(known, indent=1))

    def log(self, figures: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(figures) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop what metrics.jsonl says of steps past `step`: a killed run had logged them, and they will be run again."""
        if not self.metrics.exists():
            return
        kept = [line for line in self.metrics.read_text().splitlines() if _step_of(line) <= step]
        write_whole(self.metrics, "".join(line + "\n" for line in kept))


def create_run(path: Path, run: Run, selection: Selection) -> RunDir:
    """A new run's folder. Raises UserError where the folder already holds something."""
    if (path / "config.json").exists():
        raise UserError(f"{path} holds a run already: name another folder with --out, or continue that one: fewpair train --resume {path}")
    begun = {"samples", "evaluation", "pairs.json", "environment.json"}  # all that a process killed in here can have left behind
    if path.exists() and any(each.name.removesuffix(".part") not in begun | {"config.json"} for each in path.iterdir()):
        raise UserError(f"{path} is not empty, and what it holds is not a run: name another folder with --out")
    (path / "samples").mkdir(parents=True, exist_ok=True)
    (path / "evaluation").mkdir(exist_ok=True)
    write_whole(path / "pairs.json", selection.to_json())
    write_whole(path / "environment.json", json.dumps(environment(), indent=1))
    write_whole(path / "config.json", json.dumps(to_json(run), indent=1))
    return RunDir(path, run)


def open_run(path: Path) -> RunDir:
    """The folder of an existing run."""
    config = path / "config.json"
    if not config.is_file():
        raise UserError(f"{path} is not the folder of a run: it holds no config.json")
    return RunDir(path, from_json(json.loads(config.read_text())))


def load_method(path: Path, *, checkpoint: str = "best", weights: Literal["averaged", "raw"] = "averaged") -> tuple[Method, Run, int]:
    """The trained method of a run, in eval mode on the CPU, the run, and the step at which the checkpoint was saved."""
    folder = open_run(path)
    state = folder.load(checkpoint)
    dataset = folder.dataset()
    method = build_method(folder.run, dataset.photo_domain, dataset.label_domain)
    values = state["method"] | state["own"][0]["method"]
    if weights == "averaged":
        values = values | {name: value for average in state["averaged"].values() for name, value in average.items()}
    method.load_state_dict(values)
    return method.eval(), folder.run, int(state["step"])


def build_method(run: Run, photo_domain: Domain, label_domain: Domain) -> Method:
    """The run's method with its first weights, a function of the run's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        return build(run.method, run.config, photo_domain=photo_domain, label_domain=label_domain, size=run.size, seed=run.seed)


def begin_with_given_weights(method: Method, run: Run) -> None:
    """Load the published weights that the run starts from, where it names some. Raises UserError where one does not fit."""
    method.begin()
    wanted: tuple[tuple[str, str | None, Literal["to_label", "to_photo"]], ...] = (
        ("label", run.label_weights, "to_label"),
        ("photo", run.photo_weights, "to_photo"),
    )
    for option, given, direction in wanted:
        if given is None:
            continue
        network = method.network(direction)
        if not isinstance(network, ResNetGenerator):
            raise UserError(f"--{option}-weights {given}: {run.method} has no ResNet generator that makes a {option}")
        source = f"--{option}-weights {given}"
        state = read_state_dict(Path(given), source=source, wanted="a latest_net_G.pth as CycleGAN and pix2pix save it")
        try:
            load_junyanz(network, state)
        except UserError as error:
            raise UserError(f"--{option}-weights {given}: {error}") from error


def environment() -> dict[str, Any]:
    """Where a run takes place: versions, machine and, where there is one, the commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": _commit(),
        "versions": {name: _version(name) for name in ("fewpair", "torch", "torchvision", "numpy", "pillow", "onnx", "onnxruntime-gpu")},
        "command": sys.argv[1:],
    }


def write_whole(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a rename in this folder last through a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")  # the last line of a killed process may be cut


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return answer.stdout.strip() if answer.returncode == 0 else "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
