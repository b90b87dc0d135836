"""Which batches a run trains on."""

import dataclasses
from collections.abc import Iterator

from trainer.batch import Batch
from trainer.data.dataset import Dataset
from trainer.data.loader import Loader
from trainer.data.selection.rare_classes import sampling_weights
from trainer.data.selection.selection import Selection
from trainer.distributed import rank, world
from trainer.errors import UserError
from trainer.methods.base import Method
from trainer.run import Run

STATISTICS_BATCHES = 50
"""The last so many training batches estimate batch statistics for averaged weights (OASIS's released code)."""


def make_loader(run: Run, method: Method, dataset: Dataset, selection: Selection) -> Loader:
    """The loader of a run's training batches, this process's share of them."""
    selection = required_samples(method, selection)
    return Loader(
        dataset,
        selection,
        size=run.size,
        progressive=[(round(share * run.steps), height, width) for share, height, width in run.progressive],
        batch=run.batch,
        seed=run.seed,
        enlarge=run.enlarge,
        balanced=run.balanced,
        weights=sampling_weights(dataset, selection.pairs, when=method.rare_classes, steps=run.steps, size=run.size),
        sides=method.sides,
        rank=rank(),
        world=world(),
    )


def required_samples(method: Method, selection: Selection) -> Selection:
    """The selection without the samples that the method does not read, so that they are not decoded."""
    missing = method.missing(selection)
    if missing is not None:
        raise UserError(f"this method learns from {missing}, but the run has none")
    read = {kind: samples if kind in method.reads else () for kind, samples in selection.samples().items()}
    photos, labels = read["unpaired photos"], read["unpaired label maps"]
    return dataclasses.replace(selection, pairs=read["pairs"], unpaired_photos=photos, unpaired_labels=labels)


def statistics_batches(loader: Loader, step: int) -> Iterator[Batch]:
    """The batches before `step` that estimate batch statistics: a function of the step alone."""
    return (loader.batch(each) for each in range(max(0, step - STATISTICS_BATCHES), step))
