"""COCO JSON: polygons, and masks as run lengths, by columns over the whole picture. Roboflow writes it too."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainer.data.formats.geometry import mask_of_runs, polygon
from trainer.data.formats.shapes import Export, Label, Picture, Shape, Unusable, color_of, read_json, shapes_of
from trainer.data.layouts.files import number_of


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read files such as `instances_train.json`; the classes are their categories by ids, numbers or their text."""
    categories: list[dict[str, Any]] = []
    used, lost = set(), 0
    for path in paths:
        document = read_json(path)
        images = {str(image["id"]) for image in document["images"]}
        lost += sum(str(annotation["image_id"]) not in images for annotation in document["annotations"])
        used |= {str(annotation.get("category_id")) for annotation in document["annotations"]}
        categories += sorted(document["categories"], key=lambda each: (len(str(each["id"])), str(each["id"])))
    # Roboflow lists the name of the project too, as the supercategory of the classes
    parents = {each.get("supercategory") for each in categories if each.get("supercategory") != each["name"]}
    listed = [each for each in categories if str(each["id"]) in used or each["name"] not in parents]
    labels = {each["name"]: Label(each["name"], color_of(each.get("color"))) for each in listed}
    remarks = (f"dropped: {number_of(lost, 'annotation')} of images that are not listed",) if lost else ()
    return Export(tuple(labels.values()), lambda: _pictures(root, paths), ordered=False, remarks=remarks)


def _pictures(root: Path, paths: Sequence[Path]) -> Iterator[Picture]:
    for path in paths:
        document = read_json(path)
        by_image, names = defaultdict(list), {str(each["id"]): each["name"] for each in document["categories"]}
        for annotation in document["annotations"]:
            by_image[str(annotation["image_id"])].append(annotation)
        for image in document["images"]:
            name = path.parent.relative_to(root) / image["file_name"]
            size = (image["height"], image["width"])
            shapes, dropped = shapes_of(by_image[str(image["id"])], partial(_shape, names=names, size=size))
            yield Picture(name.as_posix(), size, shapes, dropped)


def _shape(annotation: dict[str, Any], names: dict[str, str], size: tuple[int, int]) -> Shape:
    label, outline = names[str(annotation["category_id"])], annotation.get("segmentation")
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
