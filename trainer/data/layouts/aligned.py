"""Pictures as pix2pix and CycleGAN publish them: A|B files side by side, and folders A and B without pairs."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from serving.imaging.labels import nearest_ids
from trainer.batch import Classes, Domain
from trainer.data.class_table import read_classes, shipped
from trainer.data.dataset import Dataset, Sample, Side, read_image
from trainer.data.layouts.files import Layout, matched
from trainer.data.layouts.folders import listed
from trainer.data.remapped import remapped
from trainer.errors import UserError

FACADES_TERMS = "CMP Facade Database (Tylecek, Sara, GCPR 2013), pix2pix split"
MAPS_TERMS = "maps (Isola et al., CVPR 2017), scraped from Google Maps, whose terms hold"
NEAR = 60
"""Levels of RGB by which JPEG may move a class's colour; farther ones are void (6 % of the facades' pixels)."""
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

        A|B files are JPEG, whose ringing invents colours at edges: a pixel takes the class of the nearest colour, and a
        pixel that is near none is void.
        """
        half = self._half(sample, "label")
        classes = self.label_domain.classes
        if classes is None:
            return half
        return classes.id_to_index()[nearest_ids(half, classes.imaging, max_distance=NEAR)]

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        """(height, width) of one half."""
        height, width = super().size(sample, side)
        return height, self._half_width(sample, side, width)

    def _half(self, sample: Sample, side: Side) -> np.ndarray:
        whole = read_image(self.file(sample, side))
        middle = self._half_width(sample, side, whole.shape[1])
        left = (side == "photo") == (self.photo_half == "left")
        return whole[:, :middle] if left else whole[:, middle:]

    def _half_width(self, sample: Sample, side: Side, width: int) -> int:
        if width % 2:
            raise UserError(
                f"{self.file(sample, side)} is {width} pixels wide: photo and label side by side have one width, so "
                "it must be even"
            )
        return width // 2


def aligned(
    name: str,
    root: Path | None,
    *,
    photo_half: Literal["left", "right"] = "left",
    terms: str = "yours",
    classes: Classes | None = None,
    text: str = A_B,
) -> Aligned:
    """A|B files, one half of each the photo; the label side is pictures, unless there is a class table."""
    layout = Layout.at(name, root, text)
    layout.require(layout.root / "train")
    folders = {split: layout.root / split for split in ("train", "val", "test") if (layout.root / split).is_dir()}
    files = {split: layout.files(folder) for split, folder in folders.items()}
    if not files["train"]:
        raise layout.holds_no_pictures(folders["train"])
    note = "classes are read from the nearest colours of JPEG pictures; pixels whose colour is near none are void"
    splits = {split: matched(found, found) for split, found in files.items()}
    dataset = layout.dataset(splits, terms=terms, classes=classes, notes=() if classes is None else (note,))
    return Aligned(**vars(dataset), photo_half=photo_half)


def facades(name: str, root: Path | None) -> Dataset:
    """The CMP facades over their 12 classes: folders of ids, or pix2pix's A|B files with JPEG colours.

    Colours are those that pix2pix's files show; a classes.csv in the root comes before the table that is shipped.
    """
    layout = Layout.at(name, root, f"train/photo/NAME.jpg and train/label/NAME.png, or pix2pix's {A_B}")
    where = layout.root
    table = where / "classes.csv"
    classes = read_classes(table) if table.is_file() else shipped("facades")
    if not (where / "train" / "photo").is_dir():
        return aligned(name, where, terms=FACADES_TERMS, classes=classes, text=layout.text)
    layout.require(where / "train" / "label")
    folders = {split: where / split for split in ("train", "val", "test") if (where / split / "photo").is_dir()}
    return listed(layout, folders, ("photo", "label"), terms=FACADES_TERMS, classes=classes)


def facades_pictures(name: str, root: Path | None) -> Dataset:
    """The facades with pictures as labels: painted label maps, or the label half of A|B files."""
    dataset = facades(name, root)
    if isinstance(dataset, Aligned):
        return aligned(name, root, terms=FACADES_TERMS)
    classes = dataset.label_domain.classes
    assert classes is not None
    return remapped(dataset, Domain("picture"), classes.index_to_color())


def unaligned(name: str, root: Path | None) -> Dataset:
    """trainA, trainB, testA, testB as CycleGAN publishes them: A is the photo side, B the label side.

    There is no pair, not even where two files have one name.
    """
    layout = Layout.at(name, root, "trainA/NAME.jpg and trainB/NAME.jpg, and testA and testB")
    splits: dict[str, tuple[Sample, ...]] = {}
    counts: list[str] = []
    for split in ("train", "val", "test"):
        sides = [layout.root / f"{split}{letter}" for letter in "AB"]
        if split != "train" and not any(side.is_dir() for side in sides):
            continue
        for side in sides:
            layout.require(side)
        photos, labels = found = [layout.files(side) for side in sides]
        if not all(found):
            raise layout.holds_no_pictures(sides[0] if not photos else sides[1])
        splits[split] = (
            *(Sample(f"A/{stem}", path, None) for stem, path in sorted(photos.items())),
            *(Sample(f"B/{stem}", None, path) for stem, path in sorted(labels.items())),
        )
        counts.append(f"{split} {len(photos)} + {len(labels)}")
    note = f"no pairs: A is the photo side, B the label side ({', '.join(counts)})"
    dataset = layout.dataset({}, terms="yours", classes=None, notes=(note,))
    return replace(dataset, splits=MappingProxyType(splits))  # no note on names without a partner: none has one
