"""The built-in scenes as a dataset: nothing lies on disk, every sample is drawn when it is read."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from trainer.batch import Domain
from trainer.data import scenes
from trainer.data.dataset import Dataset, Sample, Side
from trainer.errors import UserError

SCENE_SIZE = (360, 480)
SCENE_SPLITS = {"train": 500, "val": 40, "test": 100}


def drawn_scenes(name: str, root: Path | None) -> Dataset:
    """The scenes; they have no root."""
    if root is not None:
        raise UserError(f"--data {name} draws its own pictures: leave out --root {root}")
    splits = {
        split: tuple(Sample(f"{split}-{index:05d}", f"scene:{split}:{index}", f"scene:{split}:{index}") for index in range(count))
        for split, count in SCENE_SPLITS.items()
    }
    return Scenes(
        name=name,
        root=None,
        photo_domain=Domain("picture"),
        label_domain=Domain("classes", scenes.CLASSES),
        terms="drawn by fewpair itself; no conditions",
        splits=MappingProxyType(splits),
        label_spelling="ids",
    )


@dataclass(frozen=True)
class Scenes(Dataset):
    """The built-in scenes: nothing lies on disk, every sample is drawn when it is read."""

    def read_photo(self, sample: Sample) -> np.ndarray:
        """The photo as uint8[H,W,3]."""
        return _drawn(sample.photo or "")[0].copy()

    def read_label(self, sample: Sample) -> np.ndarray:
        """Class indices uint8[H,W]."""
        return _drawn(sample.label or "")[1].copy()

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        """(height, width), the same for all."""
        return SCENE_SIZE

    def digest(self, sample: Sample, side: Side) -> str:
        """The sha256 of the drawn array."""
        array = self.read_photo(sample) if side == "photo" else self.read_label(sample)
        return hashlib.sha256(array.tobytes()).hexdigest()


@lru_cache(maxsize=32)
def _drawn(reference: str) -> tuple[np.ndarray, np.ndarray]:
    _, split, index = reference.split(":")
    height, width = SCENE_SIZE
    return scenes.draw(int(index), height=height, width=width, split=split)
