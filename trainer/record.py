"""What a run writes down as it goes: the log, the clock, the progress bar, evaluations and checkpoints; on the first process alone."""

import time
from contextlib import nullcontext, suppress
from types import TracebackType

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from trainer.data.catalogue import Dataset
from trainer.data.loader import Loader
from trainer.machine import memory_peak
from trainer.processes import Processes
from trainer.progress import Progress
from trainer.rundir import RunDir
from trainer.trainee import Trainee
from trainer.validation import Validation

REFRESHING = 50
"""The batches, the last that were trained on, by which batch statistics are estimated for averaged weights (OASIS's released code)."""


class Record:
    """Writes into a run's folder. Every process calls every method; what needs all of them (means, gathering) is done here."""

    def __init__(
        self,
        folder: RunDir,
        trainee: Trainee,
        dataset: Dataset,
        device: torch.device,
        processes: Processes,
        loader: Loader,
        *,
        images: float,
        progress: bool,
        skip_broken: bool = False,
    ) -> None:
        self.folder = folder
        self.trainee = trainee
        self.device = device
        self.processes = processes
        self.loader = loader
        self.images = images
        self._refreshed: int | None = None
        self._began = 0.0
        self._progress = Progress(folder.run.steps, what=folder.run.recipe, unit="step", shown=progress and processes.first)
        self._progress.known(trainee.step)
        self._writer: SummaryWriter | None = None
        if processes.first:
            folder.forget_after(trainee.step)
            self._writer = SummaryWriter(str(folder.path / "tb"), purge_step=trainee.step + 1)
        self._validation = Validation(folder, dataset, device=device, skip_broken=skip_broken)

    def start_clock(self) -> None:
        """Training time runs from here; what came before since the last `log` does not count."""
        self._began = time.perf_counter()

    def tick(self) -> None:
        """One step is done."""
        self._progress.update()

    def log(self, losses: dict[str, Tensor]) -> None:
        """A line in metrics.jsonl: the step, every loss as it was minimised, training seconds so far, peak memory in MiB."""
        figures = self.processes.mean(losses)
        now = time.perf_counter()
        trainee = self.trainee
        trainee.elapsed, self._began = trainee.elapsed + now - self._began, now
        if self._writer is None:
            return
        self.folder.log(
            {"step": trainee.step, **figures, "seconds": round(trainee.elapsed, 3), "peak_memory_mib": memory_peak(self.device)}
        )
        for name, value in figures.items():
            self._writer.add_scalar(name, value, trainee.step)
        self._progress.beside(f"{self.images * trainee.step / max(trainee.elapsed, 1e-9):.2f} images/s")

    def evaluate(self, *, last: bool) -> None:
        """Judge both weights on `val`, show samples, keep the best; the other processes wait."""
        self._refresh()
        better = self._validation.evaluate(self.trainee, self._writer, last=last) if self._writer is not None else False
        if self.processes.any(better, self.device):
            self.save("best")

    def save(self, name: str) -> None:
        """Write a checkpoint of all processes."""
        self._refresh()
        state = self.trainee.state(self.processes)
        if state is not None:
            self.folder.save(name, state)
        self.processes.wait()

    def _refresh(self) -> None:
        """Batch statistics for the averaged weights, once for each step at which they are judged or saved; a function of the step."""
        step = self.trainee.step
        if self._writer is not None and self._refreshed != step:
            self._refreshed = step
            batches = range(max(0, step - REFRESHING), step)
            self.trainee.refresh(self.loader.batch(each).to(self.device) for each in batches)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Put the progress bar and TensorBoard away."""
        self._progress.__exit__(kind, error, trace)
        if self._writer is not None:
            # what TensorBoard still holds may not fit on a full disk; metrics.jsonl has it, and the first error is the one to tell
            with suppress(OSError) if error is not None else nullcontext():
                self._writer.close()
