"""Rare-class sampling of one run: its pairs' label maps are counted at the training resolution, and what comes of it is reported."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.batch import IGNORE, Stretch
from trainer.data.dataset import Dataset, Sample
from trainer.data.decode import BrokenFile
from trainer.data.loader import prepare_label
from trainer.data.rare_classes import Census, Likelihood, class_pixels, stretch_of
from trainer.errors import UserError


def likelihood_of(
    dataset: Dataset,
    pairs: Sequence[Sample],
    *,
    when: Stretch,
    steps: int,
    size: tuple[int, int],
    skip_broken: bool,
    report_in: Path | None,
) -> Likelihood | None:
    """How likely each pair is drawn in a run of `steps` steps; None where all are drawn evenly throughout.

    So it is where `when` comes to no step, where there is no pair, and where the label side is pictures. A folder `report_in` that lacks
    the report gets it. Raises UserError where no pair holds a labelled pixel, and BrokenFile where a file may not be skipped.
    """
    stretch = stretch_of(when, steps)
    if not stretch or not pairs or dataset.label_domain.classes is None:
        return None
    census = take_census(dataset, pairs, size=size, skip_broken=skip_broken)
    likelihood = Likelihood(tuple(census.probabilities.tolist()), stretch)
    if report_in is not None:
        from trainer.data.rare_report import report  # imports matplotlib, which takes a second

        report(report_in, census, likelihood, steps=steps)
    return likelihood


def take_census(dataset: Dataset, pairs: Sequence[Sample], *, size: tuple[int, int], skip_broken: bool) -> Census:
    """What each pair's label map holds of each class once it is resized to `size` (height, width) by nearest.

    Where broken files may be skipped a pair counts only if both of its sides can be read, since otherwise it is never trained on.
    Raises UserError where none is left.
    """
    classes = dataset.label_domain.classes
    if classes is None:
        raise UserError(f"the labels of {dataset.place} are pictures: there are no classes to count")
    reasons: list[str] = []

    def counted(sample: Sample) -> np.ndarray:
        try:
            if skip_broken:
                dataset.read_photo(sample)
            label = dataset.read_label(sample)
        except BrokenFile as error:
            if not skip_broken:
                raise
            reasons.append(error.reason)
            return np.full(size, IGNORE, dtype=np.uint8)
        return prepare_label(label, size).numpy()

    pixels = class_pixels((counted(sample) for sample in pairs), classes.count)
    if len(reasons) == len(pairs):
        raise UserError(f"{dataset.place}: every one of the {len(pairs)} pairs is broken, the first: {reasons[0]}")
    return Census(classes.names, tuple(sample.name for sample in pairs), pixels, tuple(reasons))
