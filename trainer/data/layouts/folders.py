"""Photos and labels in folders of their own, paired by file name: CamVid, own files, pictures, label maps alone."""

from collections.abc import Mapping
from pathlib import Path

from trainer.batch import Classes
from trainer.data.class_table import read_classes
from trainer.data.dataset import Dataset
from trainer.data.layouts.files import Layout, matched
from trainer.errors import UserError

CAMVID_TERMS = "CamVid (Brostow, Shotton, Fauqueur, Cipolla, ECCV 2008), SegNet split; non-commercial research"


def camvid(name: str, root: Path | None) -> Dataset:
    """CamVid in the layout of its SegNet split."""
    text = "train/photo/NAME.jpg, train/label/NAME.png, the same under val and devtest, and classes.csv"
    layout = Layout.at(name, root, text)
    layout.require(layout.root / "train" / "label")
    splits = {split: layout.root / split for split in ("train", "val", "devtest") if (layout.root / split).is_dir()}
    return listed(layout, splits, ("photo", "label"), terms=CAMVID_TERMS, classes=_table(layout))


def folders(name: str, root: Path | None) -> Dataset:
    """A user's own photos and label maps, with a class table."""
    text = "photos/NAME.jpg, labels/NAME.png and classes.csv (splits: train/photos, train/labels, val/photos, ...)"
    layout = Layout.at(name, root, text)
    splits = split_folders(layout.root)
    layout.require(splits["train"] / "photos")  # before the class table, which is missing too in a wrong folder
    return listed(layout, splits, ("photos", "labels"), terms="yours", classes=_table(layout))


def pictures(name: str, root: Path | None) -> Dataset:
    """A user's own pictures on both sides."""
    text = "photos/NAME.jpg and labels/NAME.png (splits: train/photos, train/labels, val/photos, ...)"
    layout = Layout.at(name, root, text)
    return listed(layout, split_folders(layout.root), ("photos", "labels"), terms="yours", classes=None)


def labels(name: str, root: Path | None) -> Dataset:
    """Label maps without any photo: drawn, simulated, or of another camera; what `--unpaired-labels` takes."""
    layout = Layout.at(name, root, "label maps (NAME.png, in any sub-folder) and classes.csv")
    classes, samples = _table(layout), matched({}, layout.files(layout.root))
    if not samples:
        raise layout.holds_no_pictures(layout.root)
    return layout.dataset({"train": samples}, terms="yours", classes=classes)


def listed(
    layout: Layout, folders: Mapping[str, Path], sides: tuple[str, str], *, terms: str, classes: Classes | None
) -> Dataset:
    """The files of each split; the folder of the labels may be absent while nothing is labelled yet."""
    root, train = layout.root, folders["train"]
    layout.require(train / sides[0])
    splits = {split: matched(*(layout.files(folder / side) for side in sides)) for split, folder in folders.items()}
    if not splits["train"]:
        raise layout.holds_no_pictures(train)
    outside = [root / side for side in sides if train != root and (root / side).is_dir()]
    note = f"{' and '.join(map(str, outside))} is not used, because {train} is there: move its files there"
    return layout.dataset(splits, terms=terms, classes=classes, notes=(note,) if outside else ())


def split_folders(root: Path) -> dict[str, Path]:
    """Sub-folders with photos or labels are splits; without one called train, the root itself is `train`."""
    found = {
        folder.name: folder
        for folder in sorted(root.iterdir())
        if (folder / "photos").is_dir() or (folder / "labels").is_dir()
    }
    return found if "train" in found else {"train": root, **found}


def _table(layout: Layout) -> Classes:
    path = layout.root / "classes.csv"
    if not path.is_file():
        raise UserError(
            f"{path} is missing; {layout.name} expects a root that holds {layout.text}; the table's first line is "
            "id,name,r,g,b,ignore"
        )
    return read_classes(path)
