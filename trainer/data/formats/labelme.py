"""labelme: one JSON file a photo, which may hold the photo; `labels.txt` lists the classes."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.data.formats.geometry import box, ellipse, polygon
from trainer.data.formats.shapes import Export, Label, Picture, Shape, Unusable, read_json, read_text, shapes_of


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read the files; later shapes are painted over earlier ones."""
    listed = listed_names(root)
    labels = None if listed is None else tuple(Label(name) for name in listed)
    return Export(labels, lambda: (_picture(root, path) for path in paths))


def listed_names(root: Path) -> list[str] | None:
    """Return the names in what labelme reads with --labels, else in what its converters write; None without either."""
    path = next(iter([*sorted(root.rglob("labels.txt")), *sorted(root.rglob("class_names.txt"))]), None)
    return None if path is None else [name for line in read_text(path).splitlines() if (name := line.strip())]


def _picture(root: Path, path: Path) -> Picture:
    document = read_json(path)
    shapes, dropped = shapes_of(document["shapes"], _shape)
    size = (document.get("imageHeight"), document.get("imageWidth"))
    embedded = document.get("imageData")
    name = path.relative_to(root).parent / document["imagePath"]
    photo = base64.b64decode(embedded) if embedded else None
    return Picture(name.as_posix(), None if None in size else size, shapes, dropped, photo=photo)


def _shape(raw: dict[str, Any]) -> Shape:
    label, kind, points = raw["label"].strip(), raw.get("shape_type") or "polygon", np.array(raw["points"], float)
    if kind == "polygon":
        return Shape(label, (polygon(points),))
    if kind == "rectangle":
        low, high = points.min(axis=0), points.max(axis=0)
        return Shape(label, (box(low[0], low[1], high[0], high[1]),))
    if kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        return Shape(label, (ellipse(points[0, 0], points[0, 1], radius, radius),))
    if kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(raw["mask"]))) as picture:
            mask = np.asarray(picture).astype(bool)
        left, top = points[0].astype(int).tolist()
        return Shape(label, mask=mask, corner=(left, top))
    raise Unusable(f"a shape without an area ({kind})")
