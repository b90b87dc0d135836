"""Cityscapes' JSON: polygons in the order in which they are painted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.data.formats.geometry import polygon
from trainer.data.formats.shapes import Export, Label, Picture, Shape, read_json, shapes_of


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read NAME_gtFine_polygons.json files beside or below photos NAME_leftImg8bit.png; `cargroup` is `car`."""
    return Export(None, lambda: (_picture(root, path) for path in paths))


def _picture(root: Path, path: Path) -> Picture:
    document = read_json(path)
    shapes, dropped = shapes_of(document["objects"], _shape)
    city = path.stem.removesuffix("_polygons").rpartition("_gt")[0]
    name = path.parent.relative_to(root) / (f"{city}_leftImg8bit" if city else path.stem)
    return Picture(name.as_posix(), (document["imgHeight"], document["imgWidth"]), shapes, dropped)


def _shape(raw: dict[str, Any]) -> Shape | None:
    label = raw["label"].strip()
    if raw.get("deleted"):
        return None
    return Shape(label if label == "group" else label.removesuffix("group"), (polygon(raw["polygon"]),))
