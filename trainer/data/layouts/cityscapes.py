"""Cityscapes as its publisher lays it out, over its 19 training classes or over all of its raw ids."""

from pathlib import Path

from trainer.data.dataset import Dataset
from trainer.data.layouts.files import published, required_root

TERMS = "Cityscapes (Cordts et al., CVPR 2016); non-commercial research, registration required"


def cityscapes(name: str, root: Path | None) -> Dataset:
    """leftImg8bit and gtFine, fine annotations; label files hold the raw `labelIds` 0..33.

    Ids, names and colours are those of cityscapesScripts' labels.py. `cityscapes`: the 19 classes that have a training id count, in
    its order, and the other 15 are void. `cityscapes-34`: ids 1..33 count and 0 ("unlabeled") is void: the semantic-synthesis papers
    feed 34 raw ids plus one channel (S = 35), in which channel 0 is "don't care" and channel 34 is always empty; here void is spelt
    once, as IGNORE, so C = 33 and a method's own don't-care channel makes S = C + 1 = 34. Raw id -1 (license plate) is in no file.

    The publisher gives black to five classes and one grey to two; a model's palette needs distinct colours, so ego vehicle,
    rectification border, out of roi and static are near-black here, and polegroup is a bluish grey.

    The label files of `test` are placeholders, so that split has photos alone.
    """
    layout = (
        "leftImg8bit/train/CITY/*_leftImg8bit.png and gtFine/train/CITY/*_gtFine_labelIds.png, the same under val, and leftImg8bit/test"
    )
    return published(
        name,
        required_root(name, root, layout=layout),
        layout=layout,
        folders={
            "train": ("leftImg8bit/train", "gtFine/train"),
            "val": ("leftImg8bit/val", "gtFine/val"),
            "test": ("leftImg8bit/test", None),
        },
        endings=("_leftImg8bit.png", "_gtFine_labelIds.png"),
        terms=TERMS,
    )
