"""Validation during training: figures of raw and averaged weights on `val`, the best checkpoint, sample grids."""

import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from trainer.data.selection.selection import Selection
from trainer.grids import sample_grid
from trainer.methods.base import Method
from trainer.metrics.evaluate import Scope, evaluate_to_label, evaluate_to_photo, spread
from trainer.metrics.predict import translations
from trainer.training.checkpointing import RunDir
from trainer.training.logger import Logger
from trainer.training.state import TrainState
from trainer.training.watch import measure, notices

LIMIT = 200
"""The most samples of `val` that are evaluated during training, spread evenly; `fewpair evaluate` takes all."""
SHOWN = 4
"""Rows of a sample grid."""


class Validation:
    """Evaluates a run's method on `val` while it trains. Checkpoints are chosen here, never on `test`."""

    def __init__(self, folder: RunDir, selection: Selection, *, device: torch.device) -> None:
        self.folder = folder
        self.dataset = dataset = selection.dataset
        self.scope = Scope("val", folder.run.size, LIMIT, device)
        self.has_split = any(sample.complete for sample in dataset.splits.get("val", ()))
        if "val" in dataset.splits and not self.has_split:
            print(f"{dataset.place}: no photo of `val` has a label map, so the best checkpoint is the last", flush=True)
        samples = dataset.samples("val" if self.has_split else "train")
        complete = [sample for sample in samples if sample.complete]
        photos = spread(complete or [sample for sample in samples if sample.photo], SHOWN)
        labels = spread(complete or [sample for sample in samples if sample.label], SHOWN)
        self.labels_from = dataset if labels else selection.labels_from
        self.shown = list(zip(photos, labels or spread(selection.unpaired_labels, SHOWN), strict=False))
        """Samples of a photo and of a label: the same where any has both, else unrelated ones."""

    def evaluate(self, state: TrainState, logger: Logger, *, last: bool) -> bool:
        """Log the figures of both weights, save a grid of the averaged ones, and return whether they are the best.

        Best is the highest of the figures that the method is `chosen_by`; without one, or without `val`, the last.
        """
        began = time.perf_counter()
        figures = self._figures(state.method, "val_raw") if self.has_split else {}
        with state.averaged():
            if self.has_split:
                figures |= self._figures(state.method, "val")
            grid = self.grid(state.method)
        grid.save(self.folder.samples / f"step-{state.step:06d}.png")
        if logger.writer is not None:
            logger.writer.add_image("samples", np.asarray(grid), state.step, dataformats="HWC")
        took = round(time.perf_counter() - began, 3)
        logger.write(figures, seconds=round(state.elapsed, 3), evaluation_seconds=took)

        score = next((figures[f"val/{name}"] for name in state.method.chosen_by if f"val/{name}" in figures), None)
        improved = last if score is None else score > state.best.get("score", float("-inf"))
        if improved:
            state.best = {"step": float(state.step)} | ({} if score is None else {"score": score})
        return improved

    def watch(self, state: TrainState, logger: Logger, *, photos: bool) -> None:
        """Log what `measure` finds, and print what is wrong, with the remedy, once a run."""
        seconds = round(state.elapsed, 3)
        real, labels = zip(*self._pictures(), strict=True)
        classes = self.dataset.label_domain.classes
        logger.write(measure(state.method, real, labels, classes, self.scope, photos=photos), seconds=seconds)
        lines = self.folder.logged()
        known = {line.get("notice") for line in lines}
        for kind, sentence in notices(lines, self.folder.run.config).items():
            if kind not in known:
                logger.write({}, seconds=seconds, notice=kind, sentence=sentence)
                print(f"warning: step {state.step}: {sentence}", flush=True)

    def grid(self, method: Method) -> Image.Image:
        """Draw a row per shown sample, or per photo and an unrelated label where no sample has both."""
        size, device = self.scope.size, self.scope.device
        rows = [
            translations(method, self.dataset, photo, label, size=size, device=device)
            for photo, label in self._pictures()
        ]
        return sample_grid(rows, classes=self.dataset.label_domain.classes)

    def _pictures(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for photo, label in self.shown:
            yield self.dataset.read_photo(photo), self.labels_from.read_label(label)

    def _figures(self, method: Method, prefix: str) -> dict[str, float]:
        figures: dict[str, float] = {}
        for direction, evaluate in (("to_label", evaluate_to_label), ("to_photo", evaluate_to_photo)):
            if direction in method.directions:
                for name, value in evaluate(method, self.dataset, self.scope).figures.items():
                    if isinstance(value, int | float) and name != "samples":
                        figures[f"{prefix}/{name}"] = float(value)
        return figures
