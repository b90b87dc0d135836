"""Unpaired label maps from another dataset: found by its name and root, brought to the run's own classes, put in the pool's place."""

import dataclasses
from pathlib import Path

from trainer.batch import random
from trainer.data.catalogue import CATALOGUE, open_dataset
from trainer.data.dataset import Dataset
from trainer.data.label_map import by_names, read_label_map
from trainer.data.pairs import Borrowed, Selection
from trainer.errors import UserError


def open_source(spelt: str) -> Dataset:
    """The dataset that `NAME:ROOT` spells (`labels:data/carla`), or NAME alone where it has no root."""
    name, colon, root = spelt.partition(":")
    if name not in CATALOGUE or (colon and not root):
        raise UserError(f"--unpaired-labels {spelt}: write DATASET:FOLDER, as in labels:data/carla; datasets are {', '.join(CATALOGUE)}")
    try:
        source = open_dataset(name, Path(root) if root else None)
    except UserError as error:
        raise UserError(f"--unpaired-labels {spelt}: {error}") from error
    if not any(sample.label is not None for sample in source.samples("train")):
        raise UserError(f"--unpaired-labels {spelt}: {source.place} has no label maps in its training split")
    return source


def spelling(source: Dataset) -> str:
    """What `open_source` opens it by, with an absolute root: how a run's config.json keeps it."""
    return source.name if source.root is None else f"{source.name}:{source.root.resolve()}"


def borrow(selection: Selection, dataset: Dataset, source: Dataset, *, label_map: Path | None, count: int | None) -> Selection:
    """The selection with label maps of the source's training split for its unpaired ones.

    At most `count` of them (all if None), drawn by the selection's seed. `label_map` is a CSV file `from,to` by class names; without one
    every class of the source must be a class of the dataset by name. Raises UserError where the two sides do not fit together.
    """
    if not selection.unpaired_photos:
        raise UserError(f"--unpaired-labels {source.name}: the pool has no unpaired photos to go with them: ask for --unpaired all")
    mapping = _mapping(dataset, source, label_map)
    found = [sample.label for sample in source.samples("train") if sample.label is not None]
    order = random(selection.seed, 0, "unpaired labels").permutation(len(found))[:count]
    return dataclasses.replace(
        selection,
        unpaired_labels=tuple(found[place] for place in sorted(order)),
        borrowed=Borrowed(source.name, mapping),
        source=source,
    )


def _mapping(dataset: Dataset, source: Dataset, label_map: Path | None) -> dict[str, str | None] | None:
    """None where both label sides are pictures."""
    ours, theirs = dataset.label_domain.classes, source.label_domain.classes
    if ours is None and theirs is None:
        if label_map is not None:
            raise UserError(
                f"--label-map {label_map}: the labels of {dataset.name} and {source.name} are pictures; there are no classes to map"
            )
        return None
    if ours is None or theirs is None:
        kinds = [each.label_domain.kind.replace("picture", "pictures") for each in (source, dataset)]
        raise UserError(f"--unpaired-labels {source.name}: its labels are {kinds[0]}, but those of {dataset.name} are {kinds[1]}")
    if label_map is None:
        return dict(by_names(theirs, ours, source=source.place, target=dataset.name))
    return dict(read_label_map(label_map, theirs, ours, source=source.place, target=dataset.name))
