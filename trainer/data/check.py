"""Check the files of a dataset: broken files, sizes, ids and colours, pixels of each class, near-duplicate photos."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy.spatial.distance import cdist

from serving.imaging.labels import read_label
from trainer.batch import IGNORE, Classes
from trainer.data.dataset import SIDES, Dataset, Sample, image_errors
from trainer.data.layouts.files import first_of
from trainer.data.selection.selection import Selection
from trainer.errors import UserError

DECODED = 50
"""How many photos `fewpair train` decodes; of the others it reads the headers (about 0.1 ms each)."""
COMPARED = 2000
"""At most how many photos are compared with each other."""
SAME = 3.0
"""Two photos are near-duplicates if their 16x16 thumbnails differ by less than this many levels on average."""


_REMEDY_255 = (
    "if 255 is meant to be a class, write that class's id instead (import again into a new folder, with --unlabelled "
    "NAME); if it means not labelled, confirm it with --void 255, of fewpair check and of fewpair train"
)


@dataclass
class Report:
    """What was found in a dataset's files."""

    classes: Classes | None
    errors: list[str] = field(default_factory=list)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Int64[C+1]: pixels of each class, and of void."""
    unlabelled: int = 0
    """Pixels with the value 255."""
    masks: list[str] = field(default_factory=list)
    """The label maps of one class and 255."""
    beside_255: set[int] = field(default_factory=set)
    """The classes in label maps that hold 255."""
    indexed: int = 0
    """Indexed images without the class colours in their palettes, whose indices are taken as ids."""
    thumbnails: dict[str, np.ndarray] = field(default_factory=dict)
    """{photo: uint8[16*16*3]}"""

    def class_problems(self, *, void: bool) -> tuple[list[str], list[str]]:
        """Return errors and warnings about the classes; `void` confirms that 255 is void on purpose."""
        if self.classes is None or not self.pixels.any():
            return [], []
        counts = dict(zip(self.classes.names, self.pixels[:-1].tolist(), strict=True))
        absent = [name for name, count in counts.items() if not count]
        present = [name for name, count in counts.items() if count]
        if not absent:
            if self.masks and len(present) == 2 and len(self.beside_255) == 1 and not void:
                missing = next(name for place, name in enumerate(present) if place not in self.beside_255)
                problem = f"{missing} is in no label map that holds 255 ({first_of(self.masks)})"
                return [f"{problem}: {_REMEDY_255}"], []
            if void or len(present) > 1:
                return [], []
            problem = f"{present[0]} is the only class of the table, so every pixel is {present[0]} or void"
            return [f"{problem}: give the rest a class, or confirm with --void 255 that it is void"], []
        problem = f"{first_of(absent)} {'occurs' if len(absent) == 1 else 'occur'} in no label map"
        if self.unlabelled:
            share = 100 * self.unlabelled / self.pixels.sum()
            problem += f"; the value 255, which is read as void, is in {share:.3g} % of the pixels"
        has_void = any(row.id == IGNORE for row in self.classes.rows)
        if void or not (len(present) <= 1 or (self.unlabelled and not has_void)):
            return [], [problem]
        if self.unlabelled:
            remedy = _REMEDY_255
        else:
            remedy = "label the others too, or confirm with --void 255 that everything else is void"
            problem += f": {present[0] if present else 'no class'} alone is labelled"
        return [f"{problem}: {remedy}"], []

    def palette_warnings(self) -> list[str]:
        """Return a warning where indices are taken as ids though the palettes show other colours."""
        if not self.indexed:
            return []
        maps = "label map is an indexed image" if self.indexed == 1 else "label maps are indexed images"
        return [
            f"{self.indexed} {maps} whose palette lacks colours of the class table, so the indices are taken as ids: "
            "`fewpair check ROOT --out check.png` shows whether they are"
        ]

    def near_duplicates(self) -> tuple[list[tuple[str, str]], int]:
        """Photos that look nearly the same, where one of so many photos is compared."""
        step = max(1, -(-len(self.thumbnails) // COMPARED))
        names = list(self.thumbnails)[::step]
        if len(names) < 2:
            return [], step
        rows = np.stack([self.thumbnails[name] for name in names])
        near = np.triu(cdist(rows, rows, "cityblock") < SAME * rows.shape[1], 1)
        return [(names[one], names[other]) for one, other in np.argwhere(near)], step


def check(dataset: Dataset, samples: Iterable[Sample], *, decoded: int | None) -> Report:
    """Read all label maps and the first `decoded` photos (None: all), of the other photos the headers."""
    classes = dataset.label_domain.classes
    report = Report(classes, pixels=np.zeros(0 if classes is None else classes.count + 1, np.int64))
    for place, sample in enumerate(samples):
        for side in SIDES:
            if sample.path(side) is None:
                continue
            try:
                if side == "label":
                    _read_label(dataset, sample, report)
                elif decoded is None or place < decoded:
                    photo = Image.fromarray(dataset.read_photo(sample)).resize((16, 16), Image.Resampling.BOX)
                    report.thumbnails[sample.photo or ""] = np.asarray(photo).reshape(-1)
                else:
                    dataset.size(sample, "photo")
            except UserError as error:
                report.errors.append(str(error))
    return report


def check_selection(selection: Selection, *, void: bool) -> None:
    """Check what a run learns from, and `val`, before it starts; print warnings. Raises UserError with all errors."""
    dataset, known = selection.dataset, set(selection.pairs)
    photos = [Sample(each.name, each.photo, None) for each in selection.unpaired_photos if each not in known]
    labels = [Sample(each.name, None, each.label) for each in selection.unpaired_labels if each not in known]
    val = [sample for sample in dataset.splits.get("val", ()) if sample.complete]
    report = check(dataset, selection.pairs, decoded=DECODED)
    others = ((dataset, photos, 0), (selection.labels_from, labels, 0), (dataset, val, DECODED))
    reports = [report, *(check(each, samples, decoded=n) for each, samples, n in others if each.root)]  # else drawn
    errors, warnings = report.class_problems(void=void)
    warnings += report.palette_warnings()
    errors += grouped([error for each in reports for error in each.errors], every=False)
    for warning in warnings:
        print(f"warning: {warning}")
    if errors:
        more = "" if len(errors) <= 10 else f"\n(and {len(errors) - 10} more: `fewpair check` lists all)"
        raise UserError("\n".join(errors[:10]) + more)


def grouped(errors: Sequence[str], *, every: bool) -> list[str]:
    """Errors that differ in the file and in numbers alone, as one: the first, and how many, or which, have the same."""
    groups: dict[str, list[str]] = {}
    for error in dict.fromkeys(errors):
        path, _, message = error.partition(": ") if ": " in error else ("", "", error)
        groups.setdefault(re.sub(r"\d+", "", message) if path else error, []).append(error)
    lines = []
    for same in groups.values():
        others = [error.partition(": ")[0] for error in same[1:]]
        names = f": {', '.join(others)}" if every else ""
        count = f"{len(others)} more files have" if len(others) > 1 else "1 more file has"
        lines.append(same[0] + (f" ({count} the same problem{names})" if others else ""))
    return lines


def class_table(report: Report) -> list[str]:
    """Lines with the share of each class in the labelled and void pixels."""
    if report.classes is None or not report.pixels.any():
        return []
    names: Sequence[str] = (*report.classes.names, "(void)")
    shares = 100 * report.pixels / report.pixels.sum()
    return [f"  {name:<24}{share:8.3f} %" for name, share in zip(names, shares.tolist(), strict=True)]


def _read_label(dataset: Dataset, sample: Sample, report: Report) -> None:
    label = dataset.read_label(sample)  # compares its size with the photo's
    if report.classes is None:
        return
    counts = np.bincount(label.ravel(), minlength=256)
    report.pixels += np.append(counts[: report.classes.count], counts[IGNORE])
    if type(dataset) is Dataset:
        path = dataset.file(sample, "label")
        with image_errors(path):
            label_image = read_label(path, report.classes.imaging)
            with Image.open(path) as image:
                report.indexed += image.mode == "P" and label_image.spelling == "ids"
        if unlabelled := int((label_image.ids == IGNORE).sum()):
            report.unlabelled += unlabelled
            held = np.flatnonzero(counts[: report.classes.count]).tolist()
            report.beside_255.update(held)
            report.masks += [str(path)] * (len(held) == 1)
