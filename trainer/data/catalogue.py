"""The catalogue of datasets: every name that `--data` takes, and the layout that lists its files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from trainer.data.dataset import Dataset
from trainer.data.layouts.aligned import MAPS_TERMS, aligned, facades, facades_pictures, unaligned
from trainer.data.layouts.clips import clips
from trainer.data.layouts.drawn import drawn_scenes, drawn_walker
from trainer.data.layouts.folders import camvid, folders, labels, pictures
from trainer.data.layouts.published import ade20k, cityscapes, coco_stuff
from trainer.errors import named


def open_dataset(name: str, root: str | Path | None) -> Dataset:
    """The dataset called `name`, its files listed and its class table read; the pictures themselves are read later."""
    return named(CATALOGUE, name, what="dataset")(name, None if root is None else Path(root))


CATALOGUE: dict[str, Callable[[str, Path | None], Dataset]] = {
    "scenes": drawn_scenes,
    "camvid": camvid,  # SegNet split, 11 classes
    "cityscapes": cityscapes,  # the 19 training classes
    "cityscapes-34": cityscapes,  # all raw ids, 0 is void: what the semantic-synthesis papers use
    "ade20k": ade20k,  # ADEChallengeData2016, 150 classes
    "coco-stuff": coco_stuff,  # 164k, 182 classes
    "facades": facades,  # CMP, pix2pix split, 12 classes
    "facades-pictures": facades_pictures,  # coloured pictures on the label side
    "maps": partial(aligned, terms=MAPS_TERMS),  # aerial photo | map in one file
    "aligned": aligned,  # A|B files, pictures on both sides
    "aligned-right": partial(aligned, photo_half="right"),  # edges2shoes
    "unaligned": unaligned,  # trainA/ and trainB/ as CycleGAN publishes them: pictures, no pairs
    "folders": folders,  # your own photos/, labels/ and classes.csv
    "pictures": pictures,  # your own photos/ and labels/, pictures on both sides
    "clips": clips,  # frames of videos of one person, and their poses
    "walker": drawn_walker,  # such clips of a drawn figure
    "labels": labels,  # label maps and classes.csv, for --unpaired-labels
}
"""The datasets that `--data` names."""
