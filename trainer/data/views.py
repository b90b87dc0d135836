"""A dataset seen through another label side: painted in its classes' colours, or translated to another class table."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from trainer.batch import IGNORE, Classes, Domain
from trainer.data.dataset import Dataset, Sample, Side
from trainer.errors import UserError


@dataclass(frozen=True)
class View(Dataset):
    """The files of another dataset, read by it; `table` says what becomes of each class index, and 255 of void."""

    source: Dataset = field(kw_only=True)
    table: np.ndarray = field(kw_only=True, compare=False)
    """uint8[256] or uint8[256,3]."""

    def read_photo(self, sample: Sample) -> np.ndarray:
        """The photo as uint8[H,W,3]."""
        return self.source.read_photo(sample)

    def read_label(self, sample: Sample) -> np.ndarray:
        """Class indices uint8[H,W] of the other table, or colours uint8[H,W,3]."""
        return self.table[self.source.read_label(sample)]

    def digest(self, sample: Sample, side: Side) -> str:
        """The sha256 of the file."""
        return self.source.digest(sample, side)

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        """(height, width) of one side."""
        return self.source.size(sample, side)


def painted(dataset: Dataset) -> Dataset:
    """The dataset with pictures on its label side: each pixel in its class's colour, in the void colour where it is void."""
    classes = dataset.label_domain.classes
    if classes is None:
        return dataset
    colours = np.full((IGNORE + 1, 3), classes.void_color, dtype=np.uint8)
    colours[: classes.count] = classes.palette
    return _view(dataset, Domain("picture"), colours)


def translated(dataset: Dataset, classes: Classes, label_map: Mapping[str, str | None]) -> Dataset:
    """The dataset over another class table: each of its classes becomes the one that the mapping names, or void.

    Raises UserError where the mapping names a class that one of the tables lacks, or leaves one out.
    """
    theirs = dataset.label_domain.classes
    if (
        theirs is None
        or set(label_map) != set(theirs.names)
        or not {to for to in label_map.values() if to is not None} <= set(classes.names)
    ):
        raise UserError(f"{dataset.place}: its classes, or those they become, are not those of the label map any more: choose pairs anew")
    indices = np.full(IGNORE + 1, IGNORE, dtype=np.uint8)
    for index, name in enumerate(theirs.names):
        to = label_map[name]
        indices[index] = IGNORE if to is None else classes.names.index(to)
    return _view(dataset, Domain("classes", classes), indices)


def _view(dataset: Dataset, label_domain: Domain, table: np.ndarray) -> View:
    kept = {each.name: getattr(dataset, each.name) for each in fields(Dataset)}
    return View(**(kept | {"label_domain": label_domain, "label_spelling": None, "source": dataset, "table": table}))
