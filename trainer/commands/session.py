"""Start and resume runs: what is refused beforehand, the run's lock, signals, and errors of disk and memory."""

import dataclasses
import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import torch

from trainer.data.class_table import read_classes
from trainer.data.dataset import Dataset
from trainer.data.selection.selection import Selection
from trainer.device import device_named, resolve_precision
from trainer.distributed import join, rank, wait
from trainer.errors import UserError
from trainer.methods import METHODS
from trainer.methods.base import Method
from trainer.run import Run
from trainer.training.checkpointing import RunDir, build_method, create_run, last_good
from trainer.training.loop import train

SMALLEST = 32
"""The least height and width: below it a discriminator of three strides has one value per channel to normalise."""


def start(
    out: Path, run: Run, dataset: Dataset, selection: Selection, *, method: Method | None = None, device: str = "auto"
) -> RunDir:
    """Train a new run in the folder `out`; `method` is the result of `check_run`, if called. Raises UserError."""
    method = check_run(run, dataset, selection) if method is None else method
    run = dataclasses.replace(run, precision=resolve_precision(run.precision, join(device_named(device))))
    if rank() == 0:
        create_run(out, run, selection)
    wait()
    return train_run(RunDir(out, run), dataset, selection, method=method, device=device)


def resume(folder: RunDir, *, device: str = "auto") -> RunDir:
    """Continue a run from its last checkpoint: on the CPU, with equal threads and versions, bit for bit."""
    dataset = folder.dataset()
    selection = folder.selection(dataset)
    for note in selection.notes:
        print(f"{folder.path}: {note}")
    return train_run(folder, dataset, selection, device=device)


def train_run(
    folder: RunDir, dataset: Dataset, selection: Selection, *, method: Method | None = None, device: str = "auto"
) -> RunDir:
    """Train the run in `folder` from its last checkpoint to its last step. Raises KeyboardInterrupt when stopped."""
    run = folder.run
    place = join(device_named(device))
    lock = folder.lock() if rank() == 0 else nullcontext()
    with lock, _interruptible() as interrupted, _explained(folder):
        resumed = folder.checkpoint("last").exists()
        if method is None:
            method = build_method(run, dataset.label_domain)
            if not resumed:
                method.load_pretrained()
        if resumed and rank() == 0:
            folder.note_resumed()
        state = train(folder, method, dataset, selection, device=place, interrupted=interrupted)
    if interrupted() or state.step < run.steps:  # another process's signal stops this one too
        again = f"fewpair train --resume {folder.path}"
        raise KeyboardInterrupt(f"stopped at step {state.step} of {run.steps}; continue with: {again}")
    return folder


def check_run(run: Run, dataset: Dataset, selection: Selection) -> Method:
    """Check a run before its folder is made, and return its method with initial weights. Raises UserError."""
    for name in ("steps", "batch", "evaluate_every", "save_every", "log_every"):
        if getattr(run, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(run, name)}: give 1 or more")
    beyond = [step for step in run.keep if not 1 <= step <= run.steps]
    if beyond:
        raise UserError(f"--keep {beyond[0]}: the run has steps 1 to {run.steps}; name some of them, or leave it out")
    if not run.balanced and not METHODS[run.method].spares_a_half:
        raise UserError(
            f"--no-balanced (balanced=False): a step of {run.method} needs both halves of the batch, so there is "
            "nothing to balance: leave it out"
        )
    try:
        method = build_method(run, dataset.label_domain)
    except ValueError as error:
        raise UserError(str(error)) from error
    method.check_steps(run.steps)
    smallest, unit = max(SMALLEST, method.smallest), method.multiple_of
    for height, width in [run.size, *((height, width) for _, height, width in run.progressive)]:
        if min(height, width) < smallest:
            raise UserError(
                f"--size {height}x{width}: {run.method} needs at least {smallest}x{smallest}; take a larger --size, "
                "or a smaller --config.patch where the method has one"
            )
        if height % unit or width % unit:
            near = "x".join(str(max(1, round(side / unit)) * unit) for side in (height, width))
            raise UserError(f"--size {height}x{width}: {run.method} needs multiples of {unit}; the nearest is {near}")
    undeclared = sorted(method.sides - dataset.sides.keys())
    if undeclared:
        raise UserError(f"{run.method} reads {', '.join(undeclared)} of each pair, which {dataset.place} does not have")
    missing = method.missing(selection)
    if missing is not None:
        option = "--pairs 1 or more" if missing == "pairs" else "--unpaired all (of `fewpair pairs` for --pairs FILE)"
        raise UserError(
            f"{run.method} learns from {missing}, but the selection from {dataset.place} has none: use {option}, add "
            "some, or take a recipe that learns from pairs alone, such as supervised-compact"
        )
    if segmenter := getattr(run.config, "segmenter", None):
        _check_labels(Path(segmenter), selection)
    method.load_pretrained()
    return method


def _check_labels(segmenter: Path, selection: Selection) -> None:
    """Refuse a segmenter of other classes, or of other labelled photos: the run's record counts its own pairs alone."""
    listed = segmenter / "pairs.json"
    if not listed.is_file():  # no run; the method says so when it loads it
        return
    table, classes = segmenter / "classes.csv", selection.dataset.label_domain.classes
    if classes is None or read_classes(table).names != classes.names:
        raise UserError(
            f"--config.segmenter {segmenter} was trained with other classes than those of {selection.dataset.place}: "
            f"train one with these classes (its own are in {table})"
        )
    learned = {pair["name"] for pair in json.loads(listed.read_text(encoding="utf-8"))["pairs"]}
    others = sorted(learned - {pair.name for pair in selection.pairs})
    if others:
        raise UserError(
            f"--config.segmenter {segmenter} learned from {len(others)} labelled photos that are not among this run's "
            f"pairs ({others[0]} ...), so the run would use more labels than it records: give --pairs {listed}"
        )


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask the loop to stop after the current step. A second signal stops immediately."""
    signalled = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal signalled
        if signalled:
            raise KeyboardInterrupt
        signalled = True
        # print() is not reentrant: the signal may arrive while it writes
        os.write(2, b"\nstopping after this step; a second signal stops immediately\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: signalled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _explained(folder: RunDir) -> Iterator[None]:
    """Turn a full disk and a full GPU into a UserError."""
    run = folder.run
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"no space is left for {folder.path}; {last_good(folder)}. Free some disk space, then: "
            f"fewpair train --resume {folder.path}"
        ) from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the GPU ran out of memory ({run.size[0]}x{run.size[1]}, batch {run.batch}); {last_good(folder)}. "
            "Start a run with a smaller --size, --batch or --config.width"
        ) from error
