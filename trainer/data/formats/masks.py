"""Binary masks: a folder for each class, in it one PNG of 0 and 255 a photo."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.formats.shapes import Export, Label, Picture, Shape, one_size
from trainer.errors import UserError

NAMES_NO_CLASS = ("mask", "masks", "label", "labels", "annotation", "annotations", "gt", "png")


def is_mask(path: Path) -> bool:
    """Whether a PNG holds no values but 0 and 255."""
    try:
        with Image.open(path) as picture:
            grey = picture.mode == "L"
            return picture.mode == "1" or (grey and set(np.unique(np.asarray(picture)).tolist()) <= {0, 255})
    except OSError:
        return False


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read the files; the names of their folders are the classes. Raises UserError where a folder names no class."""
    folders = sorted({path.parent for path in paths})
    unnamed = next((folder for folder in folders if folder.name.lower() in NAMES_NO_CLASS or folder == root), None)
    if unnamed is not None:
        raise UserError(
            f"{unnamed} holds masks of 0 and 255. Which class 255 is, or whether it means not labelled, they do not "
            "say: move the masks of each class into a folder with its name, as in masks/road/0001.png"
        )
    by_name = defaultdict(list)
    for path in paths:
        by_name[(path.parent.parent.relative_to(root) / path.stem).as_posix()].append(path)
    labels = tuple(Label(name) for name in sorted({folder.name for folder in folders}))
    return Export(labels, lambda: _pictures(by_name), ordered=False, masks=tuple(folders))


def _pictures(by_name: dict[str, list[Path]]) -> Iterator[Picture]:
    for name, paths in by_name.items():
        masks = {}
        for path in paths:
            with Image.open(path) as picture:
                masks[path.parent.name] = np.asarray(picture).astype(bool)
        shapes = [Shape(label, mask=mask) for label, mask in masks.items()]
        yield Picture(name, *one_size({mask.shape for mask in masks.values()}, shapes))
