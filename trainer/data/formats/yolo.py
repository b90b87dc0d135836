"""YOLO segmentation: a text file a photo, `class x y x y ...` as shares of its size; `data.yaml` lists the classes."""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from trainer.data.formats.geometry import polygon
from trainer.data.formats.shapes import Export, Label, Picture, Shape, Unusable, read_text, shapes_of
from trainer.errors import UserError

LINE = re.compile(r"\s*\d+(\s+[-+.\deE]+){4,}\s*")
"""A class and coordinates."""


def is_label_file(path: Path) -> bool:
    """Whether one of the lines is a class and coordinates."""
    try:
        return any(LINE.fullmatch(line) for line in path.read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError:
        return False


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read the files by the classes of `data.yaml` or `classes.txt`, else by a list of names, if given."""
    names = _names(root)
    if names is None and (given is None or any(label.id is not None for label in given)):
        raise UserError(
            f"{root} holds YOLO labels without a list of their classes (data.yaml or classes.txt): "
            "write the names in the order of their numbers, one a line, into classes.txt beside the labels"
        )
    labels = tuple(given or ()) if names is None else tuple(Label(name) for name in names)
    return Export(labels, lambda: (_picture(root, path, labels) for path in paths), ordered=False)


def _names(root: Path) -> list[str] | None:
    for path in sorted([*root.rglob("*.yaml"), *root.rglob("*.yml")]):
        try:
            document = yaml.safe_load(read_text(path))
        except yaml.YAMLError as error:
            raise UserError(f"{path} cannot be read as YAML ({error})") from error
        names = document.get("names") if isinstance(document, dict) else None
        if isinstance(names, str):
            raise UserError(f"{path}: names is {names}, which is no list of classes: write it as names: [{names}]")
        if isinstance(names, dict):
            numbers = sorted(map(str, names))
            if numbers != sorted(map(str, range(len(names)))):
                raise UserError(f"{path}: names has the numbers {', '.join(numbers)}: number the classes from 0 on")
            names = [names[key] for key in sorted(names, key=int)]
        if names:
            return [str(name) for name in names]
    listed = next(iter(sorted(root.rglob("classes.txt"))), None)
    return None if listed is None else read_text(listed).strip().splitlines()


def _picture(root: Path, path: Path, labels: Sequence[Label]) -> Picture:
    """Points stay shares of the photo: a size of 1x1 is scaled to the photo's."""
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    shapes, dropped = shapes_of(lines, lambda words: _shape(words, labels))
    folder = ["images" if part == "labels" else part for part in path.parent.relative_to(root).parts]
    return Picture("/".join([*folder, path.stem]), (1, 1), shapes, dropped)


def _shape(words: Sequence[str], labels: Sequence[Label]) -> Shape:
    number = int(words[0])
    if number >= len(labels):
        raise Unusable(f"class {number}, of {len(labels)} classes")
    if len(words) == 5:
        raise Unusable("an annotation with a box alone")
    return Shape(labels[number].name, (polygon([float(word) for word in words[1:]]),))
