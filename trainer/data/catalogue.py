"""The catalogue of datasets: every name that `--data` takes, and the layout that lists its files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.data.class_table import read_classes
from trainer.data.dataset import Dataset, Sample, Side
from trainer.data.layouts.drawn import SCENE_SPLITS, Scenes, drawn_scenes
from trainer.data.layouts.files import PICTURES
from trainer.data.layouts.folders import camvid, folders, pictures
from trainer.errors import UserError

__all__ = ["CATALOGUE", "PICTURES", "SCENE_SPLITS", "Dataset", "Row", "Sample", "Scenes", "Side", "open_dataset", "read_classes"]


@dataclass(frozen=True)
class Row:
    """One line of the catalogue."""

    open: Callable[[str, Path | None], Dataset]
    summary: str


def open_dataset(name: str, root: Path | None) -> Dataset:
    """The dataset called `name`, its files listed and its class table read; the pictures themselves are read later."""
    if name not in CATALOGUE:
        raise UserError(f"--data {name}: there is no such dataset; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name].open(name, None if root is None else Path(root))


CATALOGUE: dict[str, Row] = {
    "scenes": Row(drawn_scenes, "street scenes that fewpair draws itself"),
    "camvid": Row(camvid, "CamVid, SegNet split, 11 classes"),
    "folders": Row(folders, "your own photos/ and labels/ with a classes.csv, paired by file name"),
    "pictures": Row(pictures, "your own photos/ and labels/ where the label side is pictures too, paired by file name"),
}
"""Every dataset that `--data` names."""
