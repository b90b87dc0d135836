"""COCO JSON: polygons, and masks as run lengths, by columns over the whole picture. Roboflow writes it too."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainer.data.formats.geometry import mask_of_runs, polygon
from trainer.data.formats.shapes import Export, Label, Picture, Shape, Unusable, read_json, shapes_of


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read files such as `instances_train.json`; the classes are their categories in the order of their ids."""
    names: dict[str, Label] = {}
    for path in paths:
        document = read_json(path)
        used = {annotation.get("category_id") for annotation in document["annotations"]}
        parents = {category.get("supercategory") for category in document["categories"]}
        for category in sorted(document["categories"], key=lambda category: category["id"]):
            # Roboflow lists the name of the project first
            if category["id"] in used or category["name"] not in parents:
                color = category.get("color")
                names.setdefault(category["name"], Label(category["name"], tuple(color) if color else None))
    return Export(tuple(names.values()), lambda: _pictures(root, paths), ordered=False)


def _pictures(root: Path, paths: Sequence[Path]) -> Iterator[Picture]:
    for path in paths:
        document = read_json(path)
        names = {category["id"]: category["name"] for category in document["categories"]}
        by_image = defaultdict(list)
        for annotation in document["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        for image in document["images"]:
            name = path.parent.relative_to(root) / image["file_name"]
            size = (image["height"], image["width"])
            shapes, dropped = shapes_of(by_image[image["id"]], partial(_shape, names=names, size=size))
            yield Picture(name.as_posix(), size, shapes, dropped)


def _shape(annotation: dict[str, Any], names: dict[int, str], size: tuple[int, int]) -> Shape:
    label, outline = names[annotation["category_id"]], annotation.get("segmentation")
    if not outline:
        raise Unusable("an annotation with a box alone")
    if isinstance(outline, list):
        return Shape(label, tuple(polygon(part) for part in outline))
    if tuple(outline["size"]) != size:
        raise Unusable("a mask of another size than its picture")
    counts = outline["counts"]
    runs = run_lengths(counts) if isinstance(counts, str) else counts
    return Shape(label, mask=mask_of_runs(runs, size, by="columns"))


def run_lengths(text: str) -> list[int]:
    """Decode COCO's compressed counts: 5 bits a character, lowest first, bit 32 where more follow, bit 16 the sign.

    From the fourth on a count is written as the difference to the one before last.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text.encode():
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
