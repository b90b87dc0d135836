"""Pascal VOC and CVAT's "Segmentation mask 1.1": one PNG of class colours or indices a photo, 255 for void."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from serving.imaging.decode import ImageError
from serving.imaging.domain import IGNORE, ClassRow, Domain
from serving.imaging.labels import read_label
from trainer.data.formats.labelme import listed_names
from trainer.data.formats.shapes import VOID, Export, Label, Picture, Shape, read_text
from trainer.errors import UserError

FOLDERS = {"SegmentationClass", "SegmentationClassPNG"}
NO_PHOTOS = {f"Segmentation{what}{kind}" for what in ("Class", "Object") for kind in ("", "PNG", "Visualization")}
BORDER = (224, 224, 192)
"""VOC's colour of 255, the borders of objects."""


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read the PNG files by the classes of `labelmap.txt` (CVAT) or `class_names.txt` (labelme), else those given."""
    labelmap = next(iter(sorted(root.rglob("labelmap.txt"))), None)
    names = listed_names(root)
    if labelmap is not None:
        labels = _labelmap(labelmap)
    elif names is not None:
        labels = [Label(name) for name in names if name != "__ignore__"]
    elif given is not None:
        labels = list(given)
    else:
        raise UserError(
            f"{root} holds VOC masks without a list of their classes (labelmap.txt or class_names.txt): "
            "name them in the order of their indices, as in --classes background,road,car"
        )
    rows = [
        ClassRow(index if label.id is None else label.id, label.name, label.color or voc_color(index), label.ignore)
        for index, label in enumerate(labels)
    ]
    if all(row.id != IGNORE for row in rows):
        rows.append(ClassRow(IGNORE, VOID, BORDER, True))
    domain = Domain("classes", tuple(rows))
    return Export(tuple(labels), lambda: (_picture(root, path, domain) for path in paths))


def _labelmap(path: Path) -> list[Label]:
    """Read lines `name:r,g,b:parts:actions`; a line without a colour gets VOC's."""
    labels = []
    for line in read_text(path).splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(":")
            levels = [int(level) for level in rest.partition(":")[0].split(",") if level.strip()]
            labels.append(Label(name.strip(), (levels[0], levels[1], levels[2]) if len(levels) == 3 else None))
    return labels


def _picture(root: Path, path: Path, domain: Domain) -> Picture:
    name = "/".join(part for part in path.relative_to(root).parts if part not in FOLDERS)
    try:
        ids = read_label(path, domain).ids
    except ImageError as error:
        return Picture(name, None, (), [f"a mask: {error.message}"])
    names = {row.id: VOID if row.ignore else row.name for row in domain.classes}
    shapes = [Shape(names.get(value, VOID), mask=ids == value) for value in np.unique(ids).tolist()]
    return Picture(name, ids.shape, shapes)


def voc_color(index: int) -> tuple[int, int, int]:
    """Return VOC's colour of a class 0..255: its bits, three at a time, are the highest bits of red, green and blue."""
    red, green, blue = (sum((index >> 3 * bit + side & 1) << (7 - bit) for bit in range(3)) for side in range(3))
    return red, green, blue
