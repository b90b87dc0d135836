"""metrics.jsonl, TensorBoard, the progress bar and the clock of a run; on the first process alone."""

import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from trainer.device import memory_peak
from trainer.distributed import rank, sum_over_processes, world
from trainer.progress import progress_bar
from trainer.training.checkpointing import RunDir
from trainer.training.state import TrainState


class Logger:
    """Logs a run. Each process calls `log`, which averages the losses over them."""

    def __init__(self, folder: RunDir, state: TrainState, device: torch.device) -> None:
        self.folder = folder
        self.state = state
        self.device = device
        self.writer: SummaryWriter | None = None
        if rank() == 0:
            folder.truncate_log(state.step)
            self.writer = SummaryWriter(str(folder.path / "tb"), purge_step=state.step + 1)
        run = folder.run
        self._bar = progress_bar(what=run.recipe, unit="step", shown=rank() == 0, total=run.steps, initial=state.step)
        self.start_clock()

    def start_clock(self) -> None:
        """Training time counts from here."""
        self._began = time.perf_counter()

    def tick(self) -> None:
        """One step is done."""
        self._bar.update()

    def log(self, losses: dict[str, Tensor]) -> None:
        """Log the step, each loss as it was minimised, the training seconds so far and the peak memory in MiB."""
        values = torch.stack([loss.float() for loss in losses.values()])
        figures = dict(zip(losses, (sum_over_processes(values) / world()).tolist(), strict=True))
        now, state = time.perf_counter(), self.state
        state.elapsed, self._began = state.elapsed + now - self._began, now
        self.write(figures, seconds=round(state.elapsed, 3), peak_memory_mib=memory_peak(self.device))

    def write(self, figures: dict[str, float], **others: Any) -> None:
        """Write a line of metrics.jsonl; `figures` go to TensorBoard too."""
        if self.writer is None:
            return
        self.folder.log({"step": self.state.step, **figures, **others})
        for name, value in figures.items():
            self.writer.add_scalar(name, value, self.state.step)

    def close(self) -> None:
        """Close the progress bar and TensorBoard's file."""
        self._bar.close()
        if self.writer is not None:
            self.writer.close()
