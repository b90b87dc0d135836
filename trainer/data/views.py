"""A dataset seen through another label side: painted in its classes' colours, or translated to another class table."""

from dataclasses import dataclass, field, fields

import numpy as np

from trainer.batch import IGNORE, Domain
from trainer.data.dataset import Dataset, Sample, Side


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


def _view(dataset: Dataset, label_domain: Domain, table: np.ndarray) -> View:
    kept = {each.name: getattr(dataset, each.name) for each in fields(Dataset)}
    return View(**(kept | {"label_domain": label_domain, "label_spelling": None, "source": dataset, "table": table}))
