"""The synthetic street scenes as a dataset: nothing is stored on disk, every sample is rendered when it is read."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from trainer.batch import Domain
from trainer.data.dataset import Dataset, Sample, Side
from trainer.data.synthetic import scenes
from trainer.errors import UserError

SCENE_SIZE = (360, 480)
SCENE_SPLITS = {"train": 500, "val": 40, "test": 100}


def synthetic_scenes(name: str, root: Path | None) -> Dataset:
    """The synthetic scenes; they have no root."""
    if root is not None:
        raise UserError(f"--data {name} is rendered and needs no folder: leave out --root {root}")

    def sample(split: str, index: int) -> Sample:
        return Sample(f"{split}-{index:05d}", f"scene:{split}:{index}", f"scene:{split}:{index}")

    splits = {split: tuple(sample(split, index) for index in range(count)) for split, count in SCENE_SPLITS.items()}
    return Scenes(
        name=name,
        root=None,
        label_domain=Domain("classes", scenes.CLASSES),
        terms="synthetic, rendered by fewpair; no conditions",
        splits=MappingProxyType(splits),
    )


@dataclass(frozen=True)
class Scenes(Dataset):
    """Street scenes that are rendered when they are read."""

    def read_photo(self, sample: Sample) -> np.ndarray:
        """The photo as uint8[H,W,3]."""
        return _rendered(sample.photo or "")[0].copy()

    def read_label(self, sample: Sample) -> np.ndarray:
        """Class indices uint8[H,W]."""
        return _rendered(sample.label or "")[1].copy()

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        """(height, width), the same for all."""
        return SCENE_SIZE

    def digest(self, sample: Sample, side: Side) -> str:
        """The sha256 of the rendered array."""
        array = self.read_photo(sample) if side == "photo" else self.read_label(sample)
        return hashlib.sha256(array.tobytes()).hexdigest()


@lru_cache(maxsize=32)
def _rendered(reference: str) -> tuple[np.ndarray, np.ndarray]:
    _, split, index = reference.split(":")
    height, width = SCENE_SIZE
    return scenes.draw(int(index), height=height, width=width, split=split)
