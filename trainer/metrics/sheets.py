"""The pictures of an evaluation: a direction's worst, median and best sample on one sheet, with what was judged in the caption."""

import numpy as np
import torch
from PIL import Image

from trainer.data.catalogue import Dataset
from trainer.data.loader import photo_to_uint8, prepare_photo
from trainer.methods.base import Method
from trainer.metrics.evaluate import Report, SampleScore, classes_of, labelled, predict_label, predict_photo, stretch
from trainer.metrics.pictures import colourise, overlay, sheet, shrink
from trainer.metrics.provenance import Provenance

CELL = 384
"""Width in pixels of a picture on an evaluation's sheet."""


def label_sheet(
    method: Method, dataset: Dataset, report: Report, *, provenance: Provenance, device: str | torch.device = "cpu"
) -> Image.Image:
    """The worst, the median and the best sample: photo, truth, prediction, and the prediction laid over the photo."""
    by_name = {sample.name: sample for sample in labelled(dataset, provenance.split)}
    kind = "mean IoU" if dataset.label_domain.kind == "classes" else "accuracy"
    rows, names = [], []
    for word, one in three(report):
        sample = by_name[one.name]
        photo, truth = dataset.read_photo(sample), dataset.read_label(sample)
        prediction = predict_label(method, photo, size=provenance.size, device=device)
        if dataset.label_domain.kind == "classes":
            classes = classes_of(dataset.label_domain)
            prediction = colourise(stretch(prediction, photo.shape[:2]), classes)
            truth = colourise(truth, classes)
        else:
            prediction = np.asarray(Image.fromarray(prediction).resize((photo.shape[1], photo.shape[0]), Image.Resampling.BICUBIC))
        laid = overlay(shrink(photo, CELL), shrink(prediction, CELL, ids=True))
        rows.append([shrink(photo, CELL), shrink(truth, CELL, ids=True), shrink(prediction, CELL, ids=True), laid])
        names.append(f"{word}: {one.name}, {kind} {one.score:.3f}")
    return sheet(["photo", "truth", "prediction", "overlay"], rows, names=names, caption=caption(provenance, report))


def photo_sheet(
    method: Method, dataset: Dataset, report: Report, *, provenance: Provenance, device: str | torch.device = "cpu"
) -> Image.Image:
    """The worst, the median and the best sample by PSNR: label, the method's photo, and the true photo at the network's resolution."""
    samples = labelled(dataset, provenance.split, limit=provenance.limit)
    order = {sample.name: (index, sample) for index, sample in enumerate(samples)}
    rows, names = [], []
    for word, one in three(report):
        index, sample = order[one.name]
        label = dataset.read_label(sample)
        photo = predict_photo(method, label, size=provenance.size, device=device, draw=index)
        truth = photo_to_uint8(prepare_photo(dataset.read_photo(sample), provenance.size))
        coloured = colourise(label, classes_of(dataset.label_domain)) if dataset.label_domain.kind == "classes" else label
        rows.append([shrink(coloured, CELL, ids=True), photo, truth])
        names.append(f"{word}: {one.name}, PSNR {one.score:.1f} dB")
    return sheet(["label", "photo from the label", "true photo"], rows, names=names, caption=caption(provenance, report))


def caption(provenance: Provenance, report: Report) -> str:
    """Two lines under a sheet: what was judged, and what came out."""
    figures = ", ".join(
        f"{name} {value:.3f}"
        for name, value in report.figures.items()
        if isinstance(value, float) and not name.startswith("paper_decoding")
    )
    return (
        f"{provenance.recipe or provenance.method} on {provenance.material}, {provenance.training}\n"
        f"{report.figures['samples']} samples: {figures}"
    )


def three(report: Report) -> list[tuple[str, SampleScore]]:
    """The worst, the median and the best sample, each with its word; none where nothing could be scored."""
    three = [("worst", report.worst), ("median", report.median), ("best", report.best)]
    return [(word, one) for word, one in three if one is not None]
