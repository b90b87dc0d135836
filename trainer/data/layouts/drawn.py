"""Datasets without files, drawn when they are read: the street scenes, and clips of a walking figure."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from trainer.batch import Domain
from trainer.data.dataset import Dataset, Sample, Side
from trainer.data.layouts.clips import PREVIOUS, Clips, in_order
from trainer.data.poses import Pose
from trainer.data.synthetic import scenes, walker
from trainer.errors import UserError

SIZES = {"scene": (360, 480), "walker": (144, 192)}
SCENES = {"train": 500, "val": 40, "test": 100}
FRAMES, CLIPS = 60, {"train": (0, 1, 2, 3, 4, 5), "val": (6,)}


@dataclass(frozen=True)
class Drawn(Dataset):
    """In place of paths samples have "scene:SPLIT:NUMBER" or "walker:CLIP:FRAME"."""

    def read_photo(self, sample: Sample) -> np.ndarray:
        return self.read_side(sample, "photo")

    def read_label(self, sample: Sample) -> np.ndarray:
        return _drawn(sample.label or "")[1].copy()

    def read_side(self, sample: Sample, side: str) -> np.ndarray:
        return _drawn(sample.path(side) or "")[0].copy()

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        return SIZES[(sample.path(side) or "").partition(":")[0]]

    def digest(self, sample: Sample, side: Side) -> str:
        return hashlib.sha256(_drawn(sample.path(side) or "")[side == "label"].tobytes()).hexdigest()


@dataclass(frozen=True)
class Walker(Clips, Drawn):
    """The walking figure and its poses."""

    def pose(self, sample: Sample, side: str) -> Pose:
        return _drawn(sample.path(side) or "")[1]


def drawn_scenes(name: str, root: Path | None) -> Dataset:
    """The synthetic scenes; they have no root."""
    _refuse_root(name, root)
    splits = {
        split: tuple(
            Sample(f"{split}-{index:05d}", f"scene:{split}:{index}", f"scene:{split}:{index}") for index in range(count)
        )
        for split, count in SCENES.items()
    }
    return Drawn(name, None, Domain("classes", scenes.CLASSES), "synthetic, rendered by fewpair; no conditions", splits)


def drawn_walker(name: str, root: Path | None) -> Dataset:
    """Clips of the walking figure; they have no root."""
    _refuse_root(name, root)
    splits = {
        split: in_order(
            Sample(f"clip{clip}/{frame:03d}", f"walker:{clip}:{frame}", f"walker:{clip}:{frame}")
            for clip in clips
            for frame in range(FRAMES)
        )
        for split, clips in CLIPS.items()
    }
    terms = "synthetic, drawn by fewpair; no conditions"
    return Walker(name, None, Domain("picture"), terms, splits, sides=PREVIOUS, flips=False)


def _refuse_root(name: str, root: Path | None) -> None:
    if root is not None:
        raise UserError(f"--data {name} is drawn and needs no folder: leave out --root {root}")


@lru_cache(maxsize=64)
def _drawn(reference: str) -> tuple[np.ndarray, np.ndarray]:
    """The photo uint8[H,W,3], and the class indices uint8[H,W] or the pose."""
    kind, part, number = reference.split(":")
    height, width = SIZES[kind]
    if kind == "scene":
        return scenes.draw(int(number), height=height, width=width, split=part)
    return walker.draw(int(part), int(number), height=height, width=width)
