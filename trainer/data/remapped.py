"""A dataset with another label side: in its classes' colours, or over another class table."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from trainer.batch import IGNORE, Classes, Domain
from trainer.data.dataset import Dataset, Sample, Side
from trainer.errors import UserError


@dataclass(frozen=True)
class Remapped(Dataset):
    """Another dataset's samples; `table` (uint8[256] or uint8[256,3]) maps its class indices, and 255 for void."""

    original: Dataset = field(kw_only=True)
    table: np.ndarray = field(kw_only=True, compare=False)

    def read_photo(self, sample: Sample) -> np.ndarray:
        return self.original.read_photo(sample)

    def read_label(self, sample: Sample) -> np.ndarray:
        """Class indices uint8[H,W] of the other table, or colours uint8[H,W,3]."""
        return self.table[self.original.read_label(sample)]

    def digest(self, sample: Sample, side: Side) -> str:
        return self.original.digest(sample, side)

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        return self.original.size(sample, side)


def over_classes(dataset: Dataset, classes: Classes, label_map: Mapping[str, str | None]) -> Dataset:
    """The dataset over another class table: `label_map` gives the new class of each of its classes, None for void.

    Raises UserError where the mapping leaves out a class or names one that a table lacks.
    """
    own = dataset.label_domain.classes
    if own is None or set(label_map) != set(own.names) or not set(label_map.values()) <= {*classes.names, None}:
        raise UserError(f"{dataset.place}: the class tables have changed since: run `fewpair pairs` again")
    indices = np.full(IGNORE + 1, IGNORE, dtype=np.uint8)
    for index, name in enumerate(own.names):
        new = label_map[name]
        indices[index] = IGNORE if new is None else classes.names.index(new)
    return remapped(dataset, Domain("classes", classes), indices)


def remapped(dataset: Dataset, label_domain: Domain, table: np.ndarray) -> Remapped:
    """The dataset with another label side, by a lookup `table` from class indices (uint8[256] or uint8[256,3])."""
    same = {each.name: getattr(dataset, each.name) for each in fields(Dataset)}
    return Remapped(**(same | {"label_domain": label_domain, "original": dataset, "table": table}))
