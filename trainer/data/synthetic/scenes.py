"""The synthetic street scenes: photo and label map are rendered together, at any size, when they are read."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from trainer.batch import Domain, random
from trainer.data.class_table import shipped
from trainer.data.dataset import Dataset, Sample, Side
from trainer.data.synthetic import objects, surroundings
from trainer.data.synthetic.canvas import Canvas
from trainer.data.synthetic.scene import sample_scene
from trainer.errors import UserError

CLASSES = shipped("scenes")
"""CamVid's eleven classes and void, with CamVid's ids and colours."""
SEED = 2008
SCENE_SIZE = (360, 480)
SCENE_SPLITS = {"train": 500, "val": 40, "test": 100}


def draw(index: int, *, height: int, width: int, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Render scene `index` of a split: its photo uint8[H,W,3] and its class indices uint8[H,W] (0..10).

    The content depends on (split, index) alone: another size shows the same street.
    """
    scene = sample_scene(random(SEED, index, f"scene {split}"))
    canvas = Canvas(scene, height, width)
    for building in (each for each in scene.objects if each.kind == "building"):
        surroundings.draw_building(canvas, building)
    surroundings.draw_ground(canvas)
    surroundings.draw_sky(canvas)
    for thing in (each for each in scene.objects if each.kind not in ("building", "fence", "lamp", "sign")):
        objects.draw_shadow(canvas, thing)
    for thing in (each for each in scene.objects if each.kind != "building"):
        (surroundings.draw_fence if thing.kind == "fence" else objects.draw_object)(canvas, thing)
    return surroundings.apply_weather(canvas, random(SEED, index, f"grain {split}")), canvas.label


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
        label_domain=Domain("classes", CLASSES),
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
    return draw(int(index), height=height, width=width, split=split)
