"""The synthetic street scenes as a dataset: they are rendered when they are read."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from trainer.batch import Domain
from trainer.data.dataset import Dataset, Sample, Side
from trainer.data.synthetic.scenes import CLASSES, draw
from trainer.errors import UserError

SIZE = (360, 480)
SPLITS = {"train": 500, "val": 40, "test": 100}


def synthetic_scenes(name: str, root: Path | None) -> Dataset:
    """The synthetic scenes; they have no root."""
    if root is not None:
        raise UserError(f"--data {name} is rendered and needs no folder: leave out --root {root}")
    splits = {
        split: tuple(
            Sample(f"{split}-{index:05d}", f"scene:{split}:{index}", f"scene:{split}:{index}") for index in range(count)
        )
        for split, count in SPLITS.items()
    }
    return Scenes(name, None, Domain("classes", CLASSES), "synthetic, rendered by fewpair; no conditions", splits)


@dataclass(frozen=True)
class Scenes(Dataset):
    """Reads a scene by rendering it."""

    def read_photo(self, sample: Sample) -> np.ndarray:
        return _rendered(sample.photo or "")[0].copy()

    def read_label(self, sample: Sample) -> np.ndarray:
        return _rendered(sample.label or "")[1].copy()

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        return SIZE

    def digest(self, sample: Sample, side: Side) -> str:
        return hashlib.sha256(_rendered(sample.path(side) or "")[side == "label"].tobytes()).hexdigest()


@lru_cache(maxsize=32)
def _rendered(reference: str) -> tuple[np.ndarray, np.ndarray]:
    _, split, index = reference.split(":")
    return draw(int(index), height=SIZE[0], width=SIZE[1], split=split)
