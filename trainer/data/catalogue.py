"""The catalogue of datasets: every name that `--data` takes, and the layout that lists its files."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trainer.data.dataset import Dataset
from trainer.data.layouts.aligned import MAPS_TERMS, aligned, facades, facades_pictures, unaligned
from trainer.data.layouts.folders import camvid, folders, labels, pictures
from trainer.data.layouts.published import ade20k, cityscapes, coco_stuff
from trainer.data.synthetic.scenes import synthetic_scenes
from trainer.errors import UserError


@dataclass(frozen=True)
class Row:
    """One line of the catalogue."""

    open: Callable[[str, Path | None], Dataset]
    summary: str


def open_dataset(name: str, root: str | Path | None) -> Dataset:
    """The dataset called `name`, its files listed and its class table read; the pictures themselves are read later."""
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=1)
        hint = f"did you mean {near[0]}? There are" if near else "there are"
        raise UserError(f"--data {name}: there is no such dataset; {hint} {', '.join(CATALOGUE)}")
    return CATALOGUE[name].open(name, None if root is None else Path(root))


CATALOGUE: dict[str, Row] = {
    "scenes": Row(synthetic_scenes, "synthetic street scenes that fewpair renders itself"),
    "camvid": Row(camvid, "CamVid, SegNet split, 11 classes"),
    "cityscapes": Row(cityscapes, "Cityscapes, leftImg8bit and gtFine, the 19 training classes"),
    "cityscapes-34": Row(
        cityscapes, "Cityscapes over all its raw ids, 0 is void: what the semantic-synthesis papers use"
    ),
    "ade20k": Row(ade20k, "ADE20K scene parsing (ADEChallengeData2016), 150 classes"),
    "coco-stuff": Row(coco_stuff, "COCO-Stuff 164k, 182 classes"),
    "facades": Row(facades, "CMP facades, pix2pix split, 12 classes"),
    "facades-pictures": Row(facades_pictures, "the facades with coloured pictures on the label side"),
    "maps": Row(
        partial(aligned, terms=MAPS_TERMS), "pix2pix's maps, aerial photo | map in one file, pictures on both sides"
    ),
    "aligned": Row(aligned, "any A|B files, the photo in the left half, pictures on both sides"),
    "aligned-right": Row(
        partial(aligned, photo_half="right"), "the same with the photo in the right half (edges2shoes)"
    ),
    "unaligned": Row(unaligned, "trainA/ and trainB/ as CycleGAN publishes them (horse2zebra): pictures, no pairs"),
    "folders": Row(folders, "your own photos/ and labels/ with a classes.csv, paired by file name"),
    "pictures": Row(pictures, "your own photos/ and labels/ where the label side is pictures too, paired by file name"),
    "labels": Row(labels, "label maps alone with a classes.csv, for --unpaired-labels"),
}
"""Every dataset that `--data` names."""
