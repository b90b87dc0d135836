"""CVAT for images 1.1: one XML file; masks are run lengths by rows inside their box."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.data.formats.geometry import box, ellipse, mask_of_runs, polygon, rotated
from trainer.data.formats.shapes import Export, Label, Picture, Shape, Unusable, color_of, shapes_of
from trainer.errors import UserError


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read `annotations.xml`; the classes are those of the task or project, in CVAT's order."""
    labels: dict[str, Label] = {}
    for path in paths:
        document = parsed(path)
        if document.find("track") is not None:
            raise UserError(f'{path} is "CVAT for video": export "CVAT for images 1.1"')
        for element in document.iterfind("./meta//labels/label"):
            name = element.findtext("name", "").strip()
            labels.setdefault(name, Label(name, color_of(element.findtext("color"))))
    return Export(tuple(labels.values()) or None, lambda: _pictures(paths))


def parsed(path: Path) -> ET.Element:
    """Return the root of an XML file. Raises UserError."""
    try:
        return ET.parse(path).getroot()
    except ET.ParseError as error:
        raise UserError(f"{path} cannot be read as XML ({error}): export it again") from error


def _pictures(paths: Sequence[Path]) -> Iterator[Picture]:
    for path in paths:
        for image in parsed(path).iterfind("image"):
            painted = sorted(image, key=lambda element: int(element.get("z_order", 0)))
            shapes, dropped = shapes_of(painted, _shape)
            size = int(image.attrib["height"]), int(image.attrib["width"])
            yield Picture(image.attrib["name"], size, shapes, dropped)


def _shape(element: ET.Element) -> Shape | None:
    if element.tag in ("tag", "attribute"):
        return None

    def numbers(*names: str) -> list[float]:
        return [float(element.attrib[name]) for name in names]

    label, degrees = element.attrib["label"].strip(), float(element.get("rotation", 0))
    if element.tag == "polygon":
        return Shape(label, (polygon([point.split(",") for point in element.attrib["points"].split(";")]),))
    if element.tag == "box":
        left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        centre = ((left + right) / 2, (top + bottom) / 2)
        return Shape(label, (rotated(box(left, top, right, bottom), degrees, about=centre),))
    if element.tag == "ellipse":
        x, y, radius_x, radius_y = numbers("cx", "cy", "rx", "ry")
        return Shape(label, (rotated(ellipse(x, y, radius_x, radius_y), degrees, about=(x, y)),))
    if element.tag == "mask":
        left, top, width, height = (int(value) for value in numbers("left", "top", "width", "height"))
        runs = [int(run) for run in element.attrib["rle"].split(",")]
        return Shape(label, mask=mask_of_runs(runs, (height, width), by="rows"), corner=(left, top))
    raise Unusable(f"a shape without an area ({element.tag})")
