"""Cityscapes, ADE20K and COCO-Stuff as their publishers lay them out, over class tables that ship with fewpair."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from trainer.data.class_table import shipped
from trainer.data.dataset import Dataset, Sample
from trainer.data.layouts.files import Layout, by_stem, matched
from trainer.errors import UserError

CITYSCAPES_TERMS = "Cityscapes (Cordts et al., CVPR 2016); non-commercial research, registration required"
ADE20K_TERMS = "ADE20K (Zhou et al., CVPR 2017), scene parsing benchmark; non-commercial research and education"
COCO_TERMS = "COCO-Stuff (Caesar, Uijlings, Ferrari, CVPR 2018), annotations CC BY 4.0; photos under their Flickr terms"

Folders = dict[str, tuple[str, str | None]]
"""{split: (photos, labels)} below the root; None: photos alone."""
COCO_LABELS = ("annotations/", "stuffthingmaps_trainval2017/", "stuffthingmaps/", "")


def cityscapes(name: str, root: Path | None) -> Dataset:
    """leftImg8bit and gtFine with the raw `labelIds` 0..33; ids, names and colours are cityscapesScripts'.

    `cityscapes`: the 19 training classes count, the other 15 are void. `cityscapes-34`: ids 1..33 count and 0 is void,
    so S = C + 1 = 34 (docs/decisions/0006-published-datasets.md). The label files of `test` are placeholders: it has
    photos alone. Colours that the publisher gives to several classes are changed to be distinct. The side `instances`
    holds the `instanceIds`, where every pair has them.
    """
    text = (
        "leftImg8bit/train/CITY/*_leftImg8bit.png and gtFine/train/CITY/*_gtFine_labelIds.png, the same under "
        "val, and leftImg8bit/test"
    )
    folders: Folders = {
        "train": ("leftImg8bit/train", "gtFine/train"),
        "val": ("leftImg8bit/val", "gtFine/val"),
        "test": ("leftImg8bit/test", None),
    }
    endings = ("_leftImg8bit.png", "_gtFine_labelIds.png")
    return _with_instances(_published(Layout.at(name, root, text), folders, terms=CITYSCAPES_TERMS, endings=endings))


def ade20k(name: str, root: Path | None) -> Dataset:
    """ADEChallengeData2016 or the folder that holds it; label files hold 1..150, and 0 ("other objects") is void.

    Names are the first of each line of objectInfo150.txt, colours those of color150.mat; of the two classes with (140,
    140, 140), skyscraper is (140, 140, 180) here, as a palette needs distinct colours.
    """
    text = (
        "images/training/ADE_train_*.jpg and annotations/training/ADE_train_*.png, "
        "the same under validation (or the folder ADEChallengeData2016 with all that)"
    )
    layout = Layout.at(name, root, text)
    inside = "ADEChallengeData2016/" if (layout.root / "ADEChallengeData2016").is_dir() else ""
    folders: Folders = {
        "train": (f"{inside}images/training", f"{inside}annotations/training"),
        "val": (f"{inside}images/validation", f"{inside}annotations/validation"),
        "test": (f"{inside}images/testing", None),
    }
    return _published(layout, folders, terms=ADE20K_TERMS)


def coco_stuff(name: str, root: Path | None) -> Dataset:
    """train_img, train_label and so on, or images/{train,val}2017 with stuffthingmaps_trainval2017.zip unpacked.

    Pixel value v is the class that labels.txt numbers v + 1, 255 is unlabeled; ids are pixel values, and eleven of the
    182 never occur. There is no published palette: colours are Pascal VOC's at the number v + 1.
    """
    text = (
        "train_img/*.jpg, train_label/*.png, val_img and val_label; or images/train2017/*.jpg, "
        "stuffthingmaps_trainval2017/train2017/*.png (or annotations/train2017/*.png), and the same with val2017"
    )
    layout = Layout.at(name, root, text)

    def first(candidates: tuple[str, ...]) -> str:
        """The first folder that holds train2017, else the first candidate."""
        return next((each for each in candidates if (layout.root / each / "train2017").is_dir()), candidates[0])

    folders: Folders
    if (layout.root / "train_img").is_dir():
        folders = {split: (f"{split}_img", f"{split}_label") for split in ("train", "val")}
    else:
        photos = first(("images/", ""))
        labels = first(tuple(each for each in COCO_LABELS if each != photos))
        folders = {split: (f"{photos}{split}2017", f"{labels}{split}2017") for split in ("train", "val")}
    return _published(layout, folders, terms=COCO_TERMS)


def _published(layout: Layout, folders: Folders, *, terms: str, endings: tuple[str, str] = ("", "")) -> Dataset:
    """A dataset with fixed folders, {split: (photos, labels)} below the root, and the class table shipped as its name.

    A split without labels has photos alone; a split whose photos are absent is left out, except `train`. `endings`
    follow the stem that photo and label share.
    """
    root = layout.root
    for folder in folders["train"]:
        layout.require(root / (folder or ""))
    splits: dict[str, tuple[Sample, ...]] = {}
    for split, (photos, labels) in folders.items():
        if (root / photos).is_dir():
            found = {} if labels is None else layout.files(root / labels, ending=endings[1])
            splits[split] = matched(layout.files(root / photos, ending=endings[0]), found)
    if not any(sample.complete for sample in splits["train"]):
        expected = f"{layout.name} expects a root that holds {layout.text}"
        raise UserError(f"{root}: no training photo has its label map; {expected}")
    return layout.dataset(splits, terms=terms, classes=shipped(layout.name))


def _with_instances(dataset: Dataset) -> Dataset:
    """Cityscapes with the side `instances`, or as it is where a pair lacks its instance map."""
    assert dataset.root is not None
    found = by_stem(dataset.root, dataset.root / "gtFine", ending="_gtFine_instanceIds.png")
    splits: dict[str, tuple[Sample, ...]] = {}
    for split, samples in dataset.splits.items():
        paths = [found.get(f"{split}/{sample.name}") if sample.complete else "" for sample in samples]
        if None in paths:
            return dataset
        splits[split] = tuple(
            replace(sample, sides=(("instances", path),)) if path else sample
            for sample, path in zip(samples, paths, strict=True)
        )
    return replace(dataset, splits=MappingProxyType(splits), sides={"instances": "ids"})
