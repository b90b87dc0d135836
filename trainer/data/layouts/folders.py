"""Photos and labels in folders of their own, paired by file name: CamVid, a person's own files, pictures, label maps alone."""

from collections.abc import Mapping
from pathlib import Path

from trainer.batch import Classes
from trainer.data.class_table import read_classes
from trainer.data.dataset import Dataset, Sample
from trainer.data.layouts.files import PICTURES, assembled, by_stem, found_spelling, matched, missing, required_root
from trainer.errors import UserError

CAMVID_TERMS = "CamVid (Brostow, Shotton, Fauqueur, Cipolla, ECCV 2008), SegNet split; non-commercial research"


def camvid(name: str, root: Path | None) -> Dataset:
    """CamVid in the layout of its SegNet split."""
    layout = "train/photo/NAME.jpg, train/label/NAME.png, the same under val and devtest, and classes.csv"
    where = required_root(name, root, layout=layout)
    splits = {split: where / split for split in ("train", "val", "devtest") if split == "train" or (where / split).is_dir()}
    if not (where / "train" / "label").is_dir():
        raise missing(where / "train" / "label", name=name, layout=layout)
    return _listed(name, where, splits, layout=layout, sides=("photo", "label"), terms=CAMVID_TERMS, classes=_table(name, where, layout))


def folders(name: str, root: Path | None) -> Dataset:
    """A person's own photos and label maps, with a class table."""
    layout = "photos/NAME.jpg, labels/NAME.png and classes.csv (splits: train/photos, train/labels, val/photos, ...)"
    where = required_root(name, root, layout=layout)
    splits = _split_folders(where)
    if not (splits["train"] / "photos").is_dir():
        raise missing(splits["train"] / "photos", name=name, layout=layout)
    return _listed(name, where, splits, layout=layout, sides=("photos", "labels"), terms="yours", classes=_table(name, where, layout))


def pictures(name: str, root: Path | None) -> Dataset:
    """A person's own pictures on both sides."""
    layout = "photos/NAME.jpg and labels/NAME.png (splits: train/photos, train/labels, val/photos, ...)"
    where = required_root(name, root, layout=layout)
    return _listed(name, where, _split_folders(where), layout=layout, sides=("photos", "labels"), terms="yours", classes=None)


def labels(name: str, root: Path | None) -> Dataset:
    """Label maps without any photo: drawn, simulated, or of another camera; what `--unpaired-labels` takes."""
    layout = "label maps (NAME.png, in any sub-folder) and classes.csv"
    where = required_root(name, root, layout=layout)
    classes = _table(name, where, layout)
    samples = matched({}, by_stem(where, where))
    if not samples:
        raise UserError(f"{where} holds no label maps ({', '.join(PICTURES)}); {name} expects a root that holds {layout}")
    splits = {"train": samples}
    return assembled(name, where, splits, terms="yours", classes=classes, spelling=found_spelling(where, splits, classes))


def _listed(
    name: str, root: Path, folders: Mapping[str, Path], *, layout: str, sides: tuple[str, str], terms: str, classes: Classes | None
) -> Dataset:
    """The files of each split; the folder of the labels may be absent while nothing is labelled yet."""
    train = folders["train"]
    if not (train / sides[0]).is_dir():
        raise missing(train / sides[0], name=name, layout=layout)
    splits: dict[str, tuple[Sample, ...]] = {}
    for split, folder in folders.items():
        photos, labels = (by_stem(root, folder / side) for side in sides)
        splits[split] = matched(photos, labels)
    if not splits["train"]:
        raise UserError(f"{train} holds no pictures ({', '.join(PICTURES)}); {name} expects a root that holds {layout}")
    notes: list[str] = []
    spelling = None if classes is None else found_spelling(root, splits, classes)
    if name != "camvid" and spelling is not None and any(sample.label for samples in splits.values() for sample in samples):
        notes.append(f"label files hold class {spelling}" if spelling == "ids" else "label files hold palette colours")
    outside = [root / side for side in sides if train != root and (root / side).is_dir()]
    if outside:
        notes.append(f"{' and '.join(map(str, outside))} is not used, because {train} is there: move what it holds into that")
    return assembled(name, root, splits, terms=terms, classes=classes, spelling=spelling, notes=tuple(notes))


def _split_folders(root: Path) -> dict[str, Path]:
    """Each sub-folder with photos or labels is a split; without one called train, the root's own photos/ and labels/ are `train`."""
    found = {folder.name: folder for folder in sorted(root.iterdir()) if (folder / "photos").is_dir() or (folder / "labels").is_dir()}
    return found if "train" in found else {"train": root, **found}


def _table(name: str, root: Path, layout: str) -> Classes:
    path = root / "classes.csv"
    if not path.is_file():
        raise UserError(f"{path} is missing; {name} expects a root that holds {layout}; the table's first line is id,name,r,g,b,ignore")
    return read_classes(path)
