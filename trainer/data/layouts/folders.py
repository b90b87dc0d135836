"""Photos and labels in folders of their own, paired by file name: CamVid, a person's own files, and pictures on both sides."""

from pathlib import Path

from trainer.data.dataset import Dataset
from trainer.data.layouts.files import listed, required_root, split_folders
from trainer.errors import UserError

CAMVID_TERMS = "CamVid (Brostow, Shotton, Fauqueur, Cipolla, ECCV 2008), SegNet split; non-commercial research"


def camvid(name: str, root: Path | None) -> Dataset:
    """CamVid in the layout of its SegNet split."""
    layout = "train/photo/NAME.jpg, train/label/NAME.png, the same under val and devtest, and classes.csv"
    where = required_root(name, root, layout=layout)
    folders = {split: where / split for split in ("train", "val", "devtest") if split == "train" or (where / split).is_dir()}
    if not (where / "train" / "label").is_dir():
        raise UserError(f"{where / 'train' / 'label'} is missing; {name} expects a root that holds {layout}")
    return listed(name, where, folders, layout=layout, sides=("photo", "label"), terms=CAMVID_TERMS, table=where / "classes.csv")


def folders(name: str, root: Path | None) -> Dataset:
    """A person's own photos and label maps, with a class table."""
    layout = "photos/NAME.jpg, labels/NAME.png and classes.csv (splits: train/photos, train/labels, val/photos, ...)"
    where = required_root(name, root, layout=layout)
    return listed(name, where, split_folders(where), layout=layout, sides=("photos", "labels"), terms="yours", table=where / "classes.csv")


def pictures(name: str, root: Path | None) -> Dataset:
    """A person's own pictures on both sides."""
    layout = "photos/NAME.jpg and labels/NAME.png (splits: train/photos, train/labels, val/photos, ...)"
    where = required_root(name, root, layout=layout)
    return listed(name, where, split_folders(where), layout=layout, sides=("photos", "labels"), terms="yours", table=None)
