"""`fewpair import`: turn what a labelling tool exported into a folder that `fewpair train` reads."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from trainer.batch import IGNORE
from trainer.commands.arguments import parse
from trainer.commands.check import check_command
from trainer.data.class_table import read_classes
from trainer.data.formats.convert import BACKGROUND, Overlaps, Summary, Table, class_table, convert
from trainer.data.formats.photos import SPLITS, Photos
from trainer.data.formats.recognise import READERS, opened_export, read_export
from trainer.data.formats.shapes import VOID, Label
from trainer.data.layouts.files import first_of, number_of
from trainer.errors import UserError


@dataclass(frozen=True)
class ImportOptions:
    """Options of `fewpair import`."""

    export: Annotated[Path, tyro.conf.Positional]
    """The folder, ZIP or file that the tool exported."""
    out: Path
    """A new folder, which gets photos/, labels/, classes.csv, and overlay.png to look at; or one that has photos/: its
    photos get label maps, by its classes.csv if there is one."""
    photos: Path | None = None
    """The folder of the photos, if the export does not hold them."""
    classes: str | None = None
    """The classes in their order, as road,car or as a class table (CSV); None: the tool's own list."""
    overlaps: Overlaps | None = None
    """Which of two overlapping shapes counts: the later (order) or the smaller one (area). None: area for COCO, YOLO
    and binary masks, which have no painting order, else order."""
    unlabelled: str | None = None
    """What pixels in no shape are: void, or the name of a class. None: the tool's background class if it has one, else
    void."""


def import_labels(arguments: list[str]) -> int:
    """`fewpair import EXPORT --out FOLDER`: write the folder, check it, and report what was read and dropped."""
    options = parse(ImportOptions, "import", arguments, f"Import labels. Formats: {', '.join(READERS)}.")
    project = {split: own for split in ("", *SPLITS.values()) if (own := options.out / split / "photos").is_dir()}
    own_classes = options.out / "classes.csv"
    if options.out.exists() and any(options.out.iterdir()) and not project:
        raise UserError(f"--out {options.out} is not empty and has no photos/: name a new folder, or one with photos/")
    if project and options.photos is not None:
        raise UserError(f"--photos {options.photos}: the photos are those of {options.out}; leave --photos out")
    if options.photos is not None and not options.photos.is_dir():
        raise UserError(f"--photos {options.photos}: there is no such folder")
    if own_classes.exists() and options.classes is not None:
        raise UserError(f"--classes {options.classes}: the classes are those of {own_classes}; leave --classes out")
    given = _given(options.classes or str(own_classes)) if options.classes or own_classes.exists() else None
    with opened_export(options.export) as (root, files), tempfile.TemporaryDirectory() as embedded:
        name, export = read_export(root, files, given)
        labels = given or export.labels
        print(f"{options.export}: {name}", *export.remarks, sep="\n")
        if labels is None:
            labels = tuple(
                Label(label)
                for label in sorted({shape.label for picture in export.pictures() for shape in picture.shapes} - {VOID})
            )
            print("the export lists no classes: they are the labels that occur, by name (--classes fixes them)")
        background = next((label.name for label in labels if label.name in BACKGROUND), VOID)
        table = class_table(labels, options.unlabelled or background)
        named = [row.name for row in table.classes.rows if not row.ignore]
        if len(named) == 1 and options.unlabelled is None:
            raise UserError(
                f"{named[0]} is the only class and the pixels in no shape are void, so that nothing could be learnt: "
                "add --unlabelled background if they are background, or --unlabelled void"
            )
        if own_classes.exists():
            if options.unlabelled not in {None, VOID, *(label.name for label in given or ())}:
                raise UserError(f"--unlabelled {options.unlabelled}: it is no class of {own_classes}: add it there")
            if table.ids[table.outside] == IGNORE and not any(label.ignore for label in given or ()):
                raise UserError(
                    f"{own_classes} has no void class for the pixels in no shape: add the line "
                    "255,void,224,224,192,1 to it, or name their class with --unlabelled"
                )
        folders = project or {"": options.photos or root}
        photos = Photos(folders, masks=export.masks, embedded=None if project else Path(embedded))
        overlaps: Overlaps = options.overlaps or ("order" if export.ordered else "area")
        # beside a file, as in a folder of downloads, there may be photos that have nothing to do with it
        named_only = options.export.is_file() and files == [options.export] and options.photos is None
        summary = convert(export.pictures(), photos, options.out, table, overlaps, named_only=named_only)
    for line in _report(summary, table, overlaps):
        print(line)
    if not summary.read:
        raise UserError(f"{options.export}: no label could be read, for the reasons above")
    confirmed = ["--void", "255"] if options.unlabelled == VOID else []
    return check_command([str(options.out), "--out", str(options.out / "overlay.png"), *confirmed])


def _given(text: str) -> tuple[Label, ...]:
    if text.endswith(".csv"):
        return tuple(Label(row.name, row.color, row.ignore, row.id) for row in read_classes(Path(text)).rows)
    return tuple(Label(name) for part in text.split(",") if (name := part.strip()))


def _report(summary: Summary, table: Table, overlaps: Overlaps) -> Iterator[str]:
    yield f"wrote {number_of(len(summary.read), 'label map')}"
    shapes = [label for labels, _ in summary.read.values() for label in labels]
    pixels, outside, overlapping = sum((numbers for _, numbers in summary.read.values()), np.zeros(3, np.int64))
    for label, number in table.ids.items():
        if label in shapes:
            yield f"  {number:>3}  {label:<24}{number_of(shapes.count(label), 'shape')}"
    if outside:
        share = f"{100 * outside / pixels:.3g} % of their pixels are in no shape"
        yield f"{share}: {table.outside} (--unlabelled void, or --unlabelled CLASS, decides)"
    if overlapping:
        share = f"{100 * overlapping / pixels:.3g} % are in shapes of several classes"
        yield f"{share}: the {'later' if overlaps == 'order' else 'smaller'} shape counts (--overlaps order or area)"
    for kind, found in (("note", summary.notes), ("dropped", summary.dropped)):
        for reason, names in ((reason, names) for reason, names in found.items() if names):
            yield f"{kind}: {reason} ({len(names)}: {first_of(list(dict.fromkeys(names)))})"
