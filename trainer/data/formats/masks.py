"""Binary masks: a folder for each class, in it one PNG of 0 and 255 a photo."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.formats.photos import PHOTO_FOLDERS
from trainer.data.formats.shapes import Export, Label, Picture, Shape, one_size
from trainer.data.layouts.files import PICTURES, first_of
from trainer.errors import UserError

NAMES_NO_CLASS = ("mask", "masks", "label", "labels", "annotation", "annotations", "gt", "png")


def mask_of(path: Path) -> np.ndarray | None:
    """Return bool[H,W] of a PNG that is black and white alone and has no transparent pixel, else None."""
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("1", "L", "LA", "RGB", "RGBA") or path.parent.name in PHOTO_FOLDERS:
                return None
            pixels = np.asarray(picture.convert("RGBA"))
    except (OSError, SyntaxError):  # Pillow's for broken PNG files
        return None
    white = pixels[..., 0] == 255
    return white if (pixels[..., :3] == 255 * white[..., None]).all() and (pixels[..., 3] == 255).all() else None


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read the files; the names of their folders are the classes. Raises UserError where a folder names no class."""
    folders = sorted({path.parent for path in paths})
    unnamed = next((folder for folder in folders if folder.name.lower() in NAMES_NO_CLASS or folder == root), None)
    if unnamed is not None:
        raise UserError(
            f"{unnamed} holds masks of 0 and 255, but its name says no class: move the masks of each class "
            "into a folder with its name, as in masks/road/0001.png"
        )
    beside = sorted({file for folder in folders for file in folder.parent.glob("*/*")} - set(paths))
    pictures = [file for file in beside if file.suffix.lower() in PICTURES and file.parent.name not in PHOTO_FOLDERS]
    others = [str(file) for file in pictures if file.parent in folders or _grey(file)]
    if others:
        raise UserError(
            f"{first_of(others)}: beside masks of 0 and 255, but no whole PNG of 0 and 255. Save them as such, or move "
            "them elsewhere"
        )
    by_name = defaultdict(list)
    for path in paths:
        by_name[(path.parent.parent.relative_to(root) / path.stem).as_posix()].append(path)
    labels = tuple(Label(name) for name in sorted({folder.name for folder in folders}))
    return Export(labels, lambda: _pictures(by_name), ordered=False, masks=tuple(folders))


def _grey(path: Path) -> bool:
    """Whether a picture is grey, as masks are, or broken."""
    try:
        with Image.open(path) as picture:
            small = np.asarray(picture.resize((64, 64), Image.Resampling.NEAREST))
            return len(picture.getbands()) < 3 or not np.ptp(small[..., :3], axis=2).any()
    except (OSError, SyntaxError):
        return True


def _pictures(by_name: dict[str, list[Path]]) -> Iterator[Picture]:
    for name, paths in by_name.items():
        masks = {path.parent.name: mask for path in paths if (mask := mask_of(path)) is not None}
        shapes = [Shape(label, mask=mask) for label, mask in masks.items()]
        yield Picture(name, *one_size({mask.shape for mask in masks.values()}, shapes))
