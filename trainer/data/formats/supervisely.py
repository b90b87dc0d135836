"""Supervisely: a JSON file a photo, polygons with holes and bitmaps; `meta.json` lists the classes."""

import base64
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.data.formats.geometry import box, polygon
from trainer.data.formats.shapes import Export, Label, Picture, Shape, Unusable, color_of, read_json, shapes_of


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read `ann/PHOTO.json` files beside `img/PHOTO`."""
    meta = next(iter(sorted(root.rglob("meta.json"))), None)
    listed = None if meta is None else read_json(meta)["classes"]
    labels = None if listed is None else tuple(Label(each["title"], color_of(each.get("color"))) for each in listed)
    return Export(labels, lambda: (_picture(root, path) for path in paths))


def _picture(root: Path, path: Path) -> Picture:
    document = read_json(path)
    shapes, dropped = shapes_of(document["objects"], _shape)
    folder = ["img" if part == "ann" else part for part in path.parent.relative_to(root).parts]
    size = (document["size"]["height"], document["size"]["width"])
    return Picture("/".join([*folder, path.name.removesuffix(".json")]), size, shapes, dropped)


def _shape(raw: dict[str, Any]) -> Shape:
    label, kind = raw["classTitle"].strip(), raw["geometryType"]
    if kind == "bitmap":
        with Image.open(io.BytesIO(zlib.decompress(base64.b64decode(raw["bitmap"]["data"])))) as picture:
            mask = np.asarray(picture.getchannel("A") if "A" in picture.getbands() else picture).astype(bool)
        return Shape(label, mask=mask, corner=tuple(raw["bitmap"]["origin"]))
    points = raw["points"]
    if kind == "polygon":
        return Shape(label, (polygon(points["exterior"]),), tuple(polygon(hole) for hole in points["interior"]))
    if kind == "rectangle":
        (left, top), (right, bottom) = points["exterior"]
        return Shape(label, (box(left, top, right, bottom),))
    raise Unusable(f"a shape without an area ({kind})")
