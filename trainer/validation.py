"""What happens every so often in a run: judge the averaged and the raw weights on `val`, keep the best, show samples."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from trainer.data.catalogue import Dataset, Sample
from trainer.data.decode import BrokenFile
from trainer.data.loader import photo_to_uint8, prepare_label, prepare_photo
from trainer.methods.base import Method
from trainer.metrics.evaluate import Material, evaluate_to_label, evaluate_to_photo, predict_label, predict_photo
from trainer.metrics.pictures import colourise, sheet
from trainer.rundir import RunDir
from trainer.trainee import Trainee

SHOWN = 4
"""Rows of a sample sheet."""

log = logging.getLogger(__name__)


class Validation:
    """Evaluates a run's method on `val` while it trains; choices are made here, never on `test`."""

    def __init__(self, folder: RunDir, dataset: Dataset, *, device: torch.device, skip_broken: bool = False) -> None:
        self.folder = folder
        self.dataset = dataset
        self.device = device
        self.skip_broken = skip_broken
        self.has_split = any(sample.complete for sample in dataset.splits.get("val", ()))
        if "val" in dataset.splits and not self.has_split:
            print(f"{dataset.place}: `val` has no photo with a label map of its name, so the last weights count as the best", flush=True)
        samples = dataset.samples("val" if self.has_split else "train")
        self._reported: set[str] = set()
        self.shown = _spread([sample for sample in samples if sample.complete])
        self.shown_apart = (
            () if self.shown else (_spread([one for one in samples if one.photo]), _spread([one for one in samples if one.label]))
        )
        """Photos and labels, where no sample has both."""

    def evaluate(self, trainee: Trainee, writer: SummaryWriter, *, last: bool) -> bool:
        """Log the figures of both weights and save a sample sheet of the averaged ones; returns whether this is the best so far.

        The best has the highest of the figures on `val` that the method is `chosen_by`. Where there is none, or no `val` split, the last
        weights are the best.
        """
        figures: dict[str, float] = {}
        began = time.perf_counter()
        if self.has_split:
            figures |= self._figures(trainee.method, "val_raw")
        with trainee.averaged():
            if self.has_split:
                figures |= self._figures(trainee.method, "val")
            picture = self.sheet(trainee.method)
        path = self.folder.samples / f"step-{trainee.step:06d}.png"
        picture.save(path)
        for name, value in figures.items():
            writer.add_scalar(name, value, trainee.step)
        writer.add_image("samples", np.asarray(picture), trainee.step, dataformats="HWC")
        self.folder.log(
            {
                "step": trainee.step,
                "seconds": round(trainee.elapsed, 3),
                **figures,
                "evaluation_seconds": round(time.perf_counter() - began, 3),
            }
        )

        score = next((figures[f"val/{name}"] for name in trainee.method.chosen_by if f"val/{name}" in figures), None)
        if score is None:
            improved = last
        else:
            improved = score > trainee.best.get("score", float("-inf"))
        if improved:
            trainee.best = {"step": float(trainee.step)} | ({} if score is None else {"score": score})
        return improved

    def _figures(self, method: Method, prefix: str) -> dict[str, float]:
        figures: dict[str, float] = {}
        size = self.folder.run.size
        if "to_label" in method.directions:
            report = evaluate_to_label(method, self.dataset, split="val", size=size, device=self.device, skip_broken=self.skip_broken)
            self._report(report.skipped)
            figures |= _numbers(report.figures, prefix)
        if "to_photo" in method.directions:
            report = evaluate_to_photo(method, self.dataset, split="val", size=size, device=self.device, skip_broken=self.skip_broken)
            self._report(report.skipped)
            figures |= _numbers(report.figures, prefix)
        return figures

    def _report(self, skipped: Iterable[str]) -> None:
        """Each broken file of `val` once."""
        for reason in skipped:
            if reason not in self._reported:
                self._reported.add(reason)
                log.warning("skipped: %s", reason)

    def sheet(self, method: Method) -> Image.Image:
        """A row a sample: photo, truth, predicted label, the photo made from the true label, and the one made from the predicted label.

        Where no sample has both sides: a photo with its predicted label and that one's photo, beside a label and its photo.
        """
        if self.shown_apart:
            return sheet(APART, self._rows_apart(method))
        material = Material(self.dataset, self.shown, skip_broken=self.skip_broken)
        return sheet(COLUMNS, [self._row(method, photo, label) for _, _, photo, label in material])

    def _row(self, method: Method, photo: np.ndarray, label: np.ndarray) -> list[np.ndarray | None]:
        size = self.folder.run.size
        shown: dict[Literal["label", "photo", "again"], np.ndarray | None] = {"label": None, "photo": None, "again": None}
        predicted = predict_label(method, photo, size=size, device=self.device) if "to_label" in method.directions else None
        if predicted is not None:
            shown["label"] = self._painted(predicted)
        if "to_photo" in method.directions:
            shown["photo"] = predict_photo(method, label, size=size, device=self.device)
            if predicted is not None:
                shown["again"] = predict_photo(method, predicted, size=size, device=self.device)
        if label.ndim == 2:
            truth = self._painted(prepare_label(label, size).numpy().astype(np.uint8))
        else:
            truth = photo_to_uint8(prepare_photo(label, size))
        return [photo_to_uint8(prepare_photo(photo, size)), truth, shown["label"], shown["photo"], shown["again"]]

    def _rows_apart(self, method: Method) -> list[list[np.ndarray | None]]:
        rows = []
        for with_photo, with_label in zip(*self.shown_apart, strict=False):
            with suppress(BrokenFile) if self.skip_broken else nullcontext():
                photo, label = self.dataset.read_photo(with_photo), self.dataset.read_label(with_label)
                seen, truth, predicted, made, again = self._row(method, photo, label)
                rows.append([seen, predicted, again, truth, made])
        return rows

    def _painted(self, label: np.ndarray) -> np.ndarray:
        classes = self.dataset.label_domain.classes
        return label if classes is None else colourise(label, classes)


COUNTS = ("samples", "skipped")
COLUMNS = ("photo", "truth", "predicted label", "photo from truth", "reconstructed photo")

APART = ("photo", "predicted label", "reconstructed photo", "another label", "photo from that label")


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """Up to SHOWN of them, evenly."""
    return [samples[place] for place in np.linspace(0, len(samples) - 1, min(SHOWN, len(samples))).astype(int)]


def _numbers(figures: Mapping[str, object], prefix: str) -> dict[str, float]:
    return {f"{prefix}/{name}": float(value) for name, value in figures.items() if isinstance(value, int | float) and name not in COUNTS}
