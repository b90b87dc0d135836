"""Photos and labels in folders of their own, paired by file name: CamVid, own files, pictures, label maps alone."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from trainer.batch import Classes
from trainer.data.class_table import read_classes
from trainer.data.dataset import Dataset, Sample
from trainer.data.layouts.files import (
    assembled,
    by_stem,
    holds_no_pictures,
    ignored_files,
    matched,
    missing,
    required_root,
)
from trainer.errors import UserError

CAMVID_TERMS = "CamVid (Brostow, Shotton, Fauqueur, Cipolla, ECCV 2008), SegNet split; non-commercial research"


def camvid(name: str, root: Path | None) -> Dataset:
    """CamVid in the layout of its SegNet split."""
    layout = "train/photo/NAME.jpg, train/label/NAME.png, the same under val and devtest, and classes.csv"
    where = required_root(name, root, layout=layout)
    if not (where / "train" / "label").is_dir():
        raise missing(where / "train" / "label", name=name, layout=layout)
    splits = {split: where / split for split in ("train", "val", "devtest") if (where / split).is_dir()}
    classes = _table(name, where, layout)
    return _listed(name, where, splits, layout=layout, sides=("photo", "label"), terms=CAMVID_TERMS, classes=classes)


def folders(name: str, root: Path | None) -> Dataset:
    """A user's own photos and label maps, with a class table."""
    layout = "photos/NAME.jpg, labels/NAME.png and classes.csv (splits: train/photos, train/labels, val/photos, ...)"
    where = required_root(name, root, layout=layout)
    splits = _split_folders(where)
    if not (splits["train"] / "photos").is_dir():  # before the class table, which is missing too in a wrong folder
        raise missing(splits["train"] / "photos", name=name, layout=layout)
    classes = _table(name, where, layout)
    return _listed(name, where, splits, layout=layout, sides=("photos", "labels"), terms="yours", classes=classes)


def pictures(name: str, root: Path | None) -> Dataset:
    """A user's own pictures on both sides."""
    layout = "photos/NAME.jpg and labels/NAME.png (splits: train/photos, train/labels, val/photos, ...)"
    where = required_root(name, root, layout=layout)
    splits = _split_folders(where)
    return _listed(name, where, splits, layout=layout, sides=("photos", "labels"), terms="yours", classes=None)


def labels(name: str, root: Path | None) -> Dataset:
    """Label maps without any photo: drawn, simulated, or of another camera; what `--unpaired-labels` takes."""
    layout = "label maps (NAME.png, in any sub-folder) and classes.csv"
    where = required_root(name, root, layout=layout)
    classes = _table(name, where, layout)
    ignored = Counter[str]()
    samples = matched({}, by_stem(where, where, ignored=ignored))
    if not samples:
        raise holds_no_pictures(where, name=name, layout=layout)
    return assembled(name, where, {"train": samples}, terms="yours", classes=classes, notes=ignored_files(ignored))


def _listed(
    name: str,
    root: Path,
    folders: Mapping[str, Path],
    *,
    layout: str,
    sides: tuple[str, str],
    terms: str,
    classes: Classes | None,
) -> Dataset:
    """The files of each split; the folder of the labels may be absent while nothing is labelled yet."""
    train = folders["train"]
    if not (train / sides[0]).is_dir():
        raise missing(train / sides[0], name=name, layout=layout)
    splits: dict[str, tuple[Sample, ...]] = {}
    ignored = Counter[str]()
    for split, folder in folders.items():
        photos, labels = (by_stem(root, folder / side, ignored=ignored) for side in sides)
        splits[split] = matched(photos, labels)
    if not splits["train"]:
        others = "".join(f"; {note}" for note in ignored_files(ignored))
        raise holds_no_pictures(train, name=name, layout=layout, others=others)
    notes = list(ignored_files(ignored))
    outside = [root / side for side in sides if train != root and (root / side).is_dir()]
    if outside:
        notes.append(f"{' and '.join(map(str, outside))} is not used, because {train} is there: move its files there")
    return assembled(name, root, splits, terms=terms, classes=classes, notes=tuple(notes))


def _split_folders(root: Path) -> dict[str, Path]:
    """Sub-folders with photos or labels are splits; without one called train, the root itself is `train`."""
    found = {
        folder.name: folder
        for folder in sorted(root.iterdir())
        if (folder / "photos").is_dir() or (folder / "labels").is_dir()
    }
    return found if "train" in found else {"train": root, **found}


def _table(name: str, root: Path, layout: str) -> Classes:
    path = root / "classes.csv"
    if not path.is_file():
        raise UserError(
            f"{path} is missing; {name} expects a root that holds {layout}; the table's first line is "
            "id,name,r,g,b,ignore"
        )
    return read_classes(path)
