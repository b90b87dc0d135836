"""Write an export as photos/, labels/ and classes.csv, the layout `folders`, and count what was read and dropped."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from serving.imaging.decode import encode_label, image_size
from serving.imaging.domain import ClassRow
from trainer.batch import IGNORE, Classes
from trainer.data.class_table import class_rows
from trainer.data.dataset import image_errors
from trainer.data.formats.geometry import rasterised
from trainer.data.formats.photos import Photos
from trainer.data.formats.shapes import VOID, Label, Picture, Unusable
from trainer.data.formats.voc import BORDER, voc_color
from trainer.data.layouts.files import PICTURES, first_of
from trainer.errors import BrokenFile, UserError

Overlaps = Literal["order", "area"]
BACKGROUND = ("background", "_background_")
"""What tools call the pixels in no shape."""
IGNORED = ("__ignore__", VOID, "unlabeled", "unlabelled")


@dataclass(frozen=True)
class Table:
    """The class table, the id of every label, and the label of pixels in no shape."""

    classes: Classes
    ids: dict[str, int]
    outside: str


@dataclass
class Summary:
    """What was read and what was dropped."""

    read: dict[str, tuple[list[str], np.ndarray]] = field(default_factory=dict)
    """{picture: the labels of its shapes, and how many pixels it has, in no shape, and in several classes' shapes}"""
    dropped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """{reason: the photos}"""
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def class_table(labels: Sequence[Label], unlabelled: str) -> Table:
    """Number the classes in the order of the labels. `unlabelled` is void or a class, which comes first if new.

    Labels with ids are the rows of a class table and stay as they are, void ones too; else void is 255. Each class has
    its own colour: the label's, unless an earlier one has it.
    """
    twice = [name for name, count in Counter(label.name for label in labels).items() if count > 1]
    if twice:
        raise UserError(f"the classes have {first_of(twice)} twice: give each class a name of its own with --classes")
    if unlabelled not in {VOID, *(label.name for label in labels)}:
        labels = [Label(unlabelled, (0, 0, 0)), *labels]
    numbers = (number for number in range(IGNORE) if number not in {label.id for label in labels})
    colours = (
        color for color in map(voc_color, range(1, 256)) if color not in {BORDER, *(label.color for label in labels)}
    )
    void = next((label.id for label in labels if label.ignore and label.id is not None), IGNORE)
    ids: dict[str, int] = {VOID: void}
    rows: list[ClassRow] = []
    for label in labels:
        if label.id is None and (label.name in IGNORED or (label.name in BACKGROUND and unlabelled == VOID)):
            ids[label.name] = void
        elif len(rows) == IGNORE:
            raise UserError(f"the labels have more than {IGNORE} classes: list fewer with --classes")
        else:
            ids[label.name] = next(numbers) if label.id is None else label.id
            color = label.color or ((0, 0, 0) if label.name in BACKGROUND else None)
            taken = {row.color for row in rows}
            color = next(colours) if color is None or color in taken else color
            rows.append(ClassRow(ids[label.name], label.name, color, label.ignore))
    if all(row.ignore for row in rows):
        raise UserError("the labels have no class but void: list the classes with --classes")
    if not any(row.ignore for row in rows):
        border = next(colours) if BORDER in {row.color for row in rows} else BORDER
        rows.append(ClassRow(void, VOID, border, ignore=True))
    return Table(Classes(tuple(rows)), ids, unlabelled)


def convert(
    pictures: Iterable[Picture], photos: Photos, out: Path, table: Table, overlaps: Overlaps, *, named_only: bool
) -> Summary:
    """Write photos, label maps for those with shapes, and the class table; nothing where the export cannot be read.

    Photos and label maps that are there stay. named_only: photos that the export does not name are left out.
    """
    summary = Summary()
    summary.dropped["another photo has the same name"] += photos.same_name
    labelled: dict[Path, tuple[tuple[int, ...], str]] = {}
    named: set[Path] = set()
    files: dict[Path, bytes] = {}
    for picture in pictures:
        for reason in picture.dropped:
            summary.dropped[reason].append(picture.name)
        if picture.note is not None:
            summary.notes[picture.note].append(picture.name)
        try:
            photo, score = photos.find(picture)
            named.add(photo)
            earlier = labelled.get(photo)
            if earlier is not None and earlier[0] >= score:
                raise Unusable(f"labels of a photo that has labels from {earlier[1]} already")
            split, name = photos.targets[photo]
            target = (out / split / "labels" / name).with_suffix(".png")
            if earlier is None and any(target.with_suffix(ending).exists() for ending in PICTURES):
                raise Unusable("labels of a photo that has a label map in --out: remove that to replace it")
            with image_errors(photo):
                size = image_size(photo)
            label = encode_label(painted(picture, size, table, overlaps, summary), table.classes.imaging)
        except (Unusable, BrokenFile) as reason:
            summary.dropped[str(reason)].append(picture.name)
            continue
        if earlier is not None:
            del summary.read[earlier[1]]
            summary.dropped["replaced by labels whose path matches the photo better"].append(earlier[1])
        labelled[photo] = (score, picture.name)
        files[target] = label
    summary.notes["labels were given to a photo of that name in another folder"] += [
        f"{name} to {Path(*photos.targets[photo])}" for photo, (score, name) in labelled.items() if not score[0]
    ]
    if labelled and not (out / "classes.csv").exists():  # before the label maps, whose ids mean nothing without it
        out.mkdir(parents=True, exist_ok=True)
        (out / "classes.csv").write_text(class_rows(table.classes), encoding="utf-8")
    for photo, (split, name) in photos.targets.items() if labelled else ():
        target = out / split / "photos" / name
        if not target.exists() and (photo in named or not named_only):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, target)
    for target, label in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(label)
    return summary


def painted(picture: Picture, size: tuple[int, int], table: Table, overlaps: Overlaps, summary: Summary) -> np.ndarray:
    """Return the ids uint8[H,W] of a picture's shapes at its photo's size. Raises Unusable where there is no label."""
    if picture.size not in (None, (1, 1), size):
        expected = "x".join(map(str, picture.size or ()))
        turned = ", before its EXIF rotation" if picture.size == size[::-1] else ""
        raise Unusable(f"labels for a photo of {expected} (height x width{turned}), which is {size[0]}x{size[1]}")
    placed = []
    for shape in picture.shapes:
        if picture.size == (1, 1):
            shape = replace(shape, polygons=tuple(ring * size[::-1] for ring in shape.polygons))
        try:
            if shape.label not in table.ids:
                raise Unusable(f"the label {shape.label!r}, which is not in the class table")
            placed.append((shape.label, *rasterised(shape, size)))
        except Unusable as reason:
            summary.dropped[str(reason)].append(picture.name)
    if not placed:
        every = "every" if picture.dropped or picture.shapes else "no"
        raise Unusable(f"{every} shape: the photo counts as unlabelled")
    outside = table.ids[table.outside]
    if outside != table.ids[VOID] and len(placed) < len(picture.shapes) + len(picture.dropped):
        summary.notes[f"where shapes were dropped, the pixels are {table.outside}"].append(picture.name)
    if overlaps == "area":
        placed.sort(key=lambda each: -int(each[2].sum()))
    ids, covered, overlapping = np.full(size, outside, np.uint8), np.zeros(size, bool), np.zeros(size, bool)
    for label, place, mask in placed:
        overlapping[place] |= mask & covered[place] & (ids[place] != table.ids[label])
        covered[place] |= mask
        ids[place][mask] = table.ids[label]
    pixels = np.array([ids.size, (~covered).sum(), overlapping.sum()])
    summary.read[picture.name] = ([label for label, *_ in placed], pixels)
    return ids
