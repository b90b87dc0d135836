"""COCO-Stuff (the 164k version) as its publisher lays it out, or as the semantic-synthesis papers do: 182 classes, 255 is void."""

from pathlib import Path

from trainer.data.dataset import Dataset
from trainer.data.layouts.files import published, required_root

TERMS = "COCO-Stuff (Caesar, Uijlings, Ferrari, CVPR 2018), annotations CC BY 4.0; photos under their Flickr terms"

LABELS_2017 = ("annotations", "stuffthingmaps_trainval2017", "stuffthingmaps", "")
PHOTOS_2017 = ("images", "")


def coco_stuff(name: str, root: Path | None) -> Dataset:
    """train_img/train_label/val_img/val_label, or images/{train,val}2017 with the unpacked stuffthingmaps_trainval2017.zip.

    Pixel value v is the class that the publisher's labels.txt numbers v + 1 (so 0 is person and 181 is wood), 255 is unlabeled; the
    table's ids are pixel values. Eleven of the 182 never occur. COCO-Stuff publishes no fixed palette: the colours here are Pascal
    VOC's colour map at the publisher's number v + 1, which are distinct and leave black to void.
    """
    layout = (
        "train_img/*.jpg, train_label/*.png, val_img and val_label; or images/train2017/*.jpg, "
        "stuffthingmaps_trainval2017/train2017/*.png (or annotations/train2017/*.png), and the same with val2017"
    )
    where = required_root(name, root, layout=layout)
    if (where / "train_img").is_dir():
        folders: dict[str, tuple[str, str | None]] = {"train": ("train_img", "train_label"), "val": ("val_img", "val_label")}
    else:
        photos = _first(where, PHOTOS_2017)
        labels = _first(where, tuple(each for each in LABELS_2017 if each != photos))
        folders = {split: (f"{photos}{split}2017", f"{labels}{split}2017") for split in ("train", "val")}
    return published(name, where, layout=layout, folders=folders, terms=TERMS)


def _first(root: Path, candidates: tuple[str, ...]) -> str:
    """The first folder of the candidates that holds train2017 ("" is the root itself), with a slash; else the first candidate."""
    found = next((each for each in candidates if (root / each / "train2017").is_dir()), candidates[0])
    return f"{found}/" if found else ""
