"""A|B files, photo and label side by side in one picture as pix2pix publishes them: facades, maps, and any other."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from trainer.batch import Classes, Domain
from trainer.data import decode
from trainer.data.class_table import read_classes, shipped
from trainer.data.dataset import Dataset, Sample, Side
from trainer.data.layouts.files import assembled, by_stem, matched, missing, required_root
from trainer.data.views import painted
from trainer.errors import UserError

FACADES_TERMS = "CMP Facade Database (Tylecek, Sara, GCPR 2013), pix2pix split"
MAPS_TERMS = "maps (Isola et al., CVPR 2017), scraped from Google Maps, whose terms hold"
A_B = "train/NAME.jpg, photo and label side by side in one picture, and the same under val or test"


@dataclass(frozen=True)
class Aligned(Dataset):
    """Each file is a pair: its halves are the photo and the label."""

    photo_half: Literal["left", "right"] = "left"

    def read_photo(self, sample: Sample) -> np.ndarray:
        """The photo's half as uint8[H,W,3]."""
        return self._half(sample, "photo")

    def read_label(self, sample: Sample) -> np.ndarray:
        """The label's half: a picture uint8[H,W,3], or class indices uint8[H,W] where there is a class table.

        A|B files are JPEG, whose ringing invents colours at edges: a pixel takes the class of the nearest colour, and a pixel that
        is near none is void.
        """
        half = self._half(sample, "label")
        classes = self.label_domain.classes
        return half if classes is None else decode.nearest_colours(half, classes)

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        """(height, width) of one half."""
        height, width = decode.photo_size(self.file(sample, side))
        return height, self._half_width(sample, side, width)

    def _half(self, sample: Sample, side: Side) -> np.ndarray:
        whole = decode.read_photo(self.file(sample, side))
        middle = self._half_width(sample, side, whole.shape[1])
        left = (side == "photo") == (self.photo_half == "left")
        return whole[:, :middle] if left else whole[:, middle:]

    def _half_width(self, sample: Sample, side: Side, width: int) -> int:
        if width % 2:
            raise UserError(
                f"{self.file(sample, side)} is {width} pixels wide: photo and label side by side have one width, so it must be even"
            )
        return width // 2


def aligned(photo_half: Literal["left", "right"], *, terms: str = "yours") -> Callable[[str, Path | None], Dataset]:
    """The layout whose photos are that half of each file; the label side is pictures."""

    def open_aligned(name: str, root: Path | None) -> Dataset:
        return _aligned(name, required_root(name, root, layout=A_B), photo_half=photo_half, terms=terms, classes=None, layout=A_B)

    return open_aligned


maps = aligned("left", terms=MAPS_TERMS)
"""pix2pix's maps: the aerial photo is the left half, the map the right one."""


def facades(name: str, root: Path | None) -> Dataset:
    """The CMP facades over their 12 classes: photo/ and label/ folders with ids, or pix2pix's A|B files with JPEG colours.

    Colours are those that pix2pix's files show; a classes.csv in the root comes before the table that is shipped.
    """
    layout = f"train/photo/NAME.jpg and train/label/NAME.png, or pix2pix's {A_B}"
    where = required_root(name, root, layout=layout)
    table = where / "classes.csv"
    classes = read_classes(table) if table.is_file() else shipped("facades")
    if not (where / "train" / "photo").is_dir():
        return _aligned(name, where, photo_half="left", terms=FACADES_TERMS, classes=classes, layout=layout)
    if not (where / "train" / "label").is_dir():
        raise missing(where / "train" / "label", name=name, layout=layout)
    there = [split for split in ("train", "val", "test") if (where / split / "photo").is_dir()]
    splits = {split: matched(*(by_stem(where, where / split / side) for side in ("photo", "label"))) for split in there}
    return assembled(name, where, splits, terms=FACADES_TERMS, classes=classes, spelling="ids")


def facades_pictures(name: str, root: Path | None) -> Dataset:
    """The facades with pictures on the label side, as pix2pix trains on them: label maps painted in their classes' colours, or the
    label half of A|B files as it is."""
    dataset = facades(name, root)
    if isinstance(dataset, Aligned):
        return _aligned(name, dataset.root or Path(), photo_half="left", terms=FACADES_TERMS, classes=None, layout=A_B)
    return painted(dataset)


def _aligned(name: str, root: Path, *, photo_half: Literal["left", "right"], terms: str, classes: Classes | None, layout: str) -> Aligned:
    if not (root / "train").is_dir():
        raise missing(root / "train", name=name, layout=layout)
    splits: dict[str, tuple[Sample, ...]] = {}
    for split in ("train", "val", "test"):
        if (root / split).is_dir():
            files = by_stem(root, root / split)
            splits[split] = matched(files, files)
    if not splits["train"]:
        raise UserError(f"{root / 'train'} holds no pictures; {name} expects a root that holds {layout}")
    notes = (
        ()
        if classes is None
        else ("classes are read from the nearest colours of JPEG pictures; pixels at edges whose colour is near none are void",)
    )
    return Aligned(
        name=name,
        root=root,
        photo_domain=Domain("picture"),
        label_domain=Domain("picture") if classes is None else Domain("classes", classes),
        terms=terms,
        splits=MappingProxyType(splits),
        notes=notes,
        photo_half=photo_half,
    )
