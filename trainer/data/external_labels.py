"""Unpaired label maps from another dataset (`--unpaired-labels`), with a mapping from its classes to the run's own."""

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from trainer.batch import Classes, random
from trainer.data.catalogue import CATALOGUE, open_dataset
from trainer.data.dataset import Dataset
from trainer.data.selection.selection import Selection, external_labels
from trainer.errors import UserError, suggestion

VOID = "void"
"""In a class mapping: the class is ignored."""

ClassMapping = Mapping[str, str | None]
"""{class of the other dataset: class of the run, or None for void}, for every class of the other dataset."""


def open_source(text: str) -> Dataset:
    """Open the dataset that `NAME:FOLDER` (`labels:data/carla`), or NAME alone, refers to."""
    name, colon, root = text.partition(":")
    if name not in CATALOGUE or (colon and not root):
        raise UserError(
            f"--unpaired-labels {text}: write DATASET:FOLDER, as in labels:data/carla; datasets are "
            f"{', '.join(CATALOGUE)}"
        )
    try:
        source = open_dataset(name, Path(root) if root else None)
    except UserError as error:
        raise UserError(f"--unpaired-labels {text}: {error}") from error
    if not any(sample.label for sample in source.samples("train")):
        raise UserError(f"--unpaired-labels {text}: {source.place} has no label maps in its training split")
    return source


def source_text(source: Dataset) -> str:
    """The argument of `open_source` for a dataset, with an absolute folder."""
    return source.name if source.root is None else f"{source.name}:{source.root.resolve()}"


def with_external_labels(
    selection: Selection, source: Dataset, *, label_map: Path | None, count: int | None
) -> Selection:
    """Replace the unpaired labels by up to `count` random label maps of another training split (None: all).

    `label_map` is a CSV file `from,to` of class names, needed unless names are equal. Raises UserError.
    """
    dataset = selection.dataset
    if not selection.unpaired_photos:
        raise UserError(
            f"--unpaired-labels {source.name}: there are no unpaired photos beside them: use --unpaired all"
        )
    own, theirs = dataset.label_domain.classes, source.label_domain.classes
    if (own is None) != (theirs is None):
        kinds = [each.label_domain.kind.replace("picture", "pictures") for each in (source, dataset)]
        raise UserError(
            f"--unpaired-labels {source.name}: its labels are {kinds[0]}, those of {dataset.name} {kinds[1]}"
        )
    mapping = None
    if own is not None and theirs is not None:
        names = (source.place, dataset.name)
        mapping = _read(label_map, theirs, own, names=names) if label_map else _same_names(theirs, own, names=names)
    elif label_map is not None:
        raise UserError(f"--label-map {label_map}: the labels of {source.name} are pictures without classes to map")
    found = [sample for sample in source.samples("train") if sample.label is not None]
    order = random(selection.seed, 0, "unpaired labels").permutation(len(found))[:count]
    return dataclasses.replace(
        selection,
        unpaired_labels=tuple(found[place] for place in sorted(order)),
        external=external_labels(dataset, source, mapping),
        label_map=mapping,
    )


def _same_names(theirs: Classes, own: Classes, *, names: tuple[str, str]) -> ClassMapping:
    unknown = [name for name in theirs.names if name not in own.names]
    if unknown:
        raise UserError(
            f"{names[0]} has classes that {names[1]} lacks: {', '.join(unknown)}; map each class with --label-map "
            f"FILE.csv, whose first line is from,to and which has a line for each of {', '.join(theirs.names)} (to: "
            f"{', '.join(own.names)}, or {VOID})"
        )
    return {name: name for name in theirs.names}


def _read(path: Path, theirs: Classes, own: Classes, *, names: tuple[str, str]) -> ClassMapping:
    """The mapping in a CSV file `from,to`; every class of the other table that is not void has a line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(file)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--label-map {path} cannot be read ({error}); a CSV file from,to is needed") from error
    if [cell.lower() for cell in header] != ["from", "to"]:
        raise UserError(f"{path} line 1 is {','.join(header)!r}; the first line of a label map is from,to")
    ignored = {row.name for row in theirs.rows if row.ignore}
    targets = {name: name for name in own.names} | {VOID: None} | {row.name: None for row in own.rows if row.ignore}
    mapping: dict[str, str | None] = {}
    for number, row in enumerate(rows, 2):
        if not any(row):
            continue
        where = f"{path} line {number}"
        if len(row) != 2 or not all(row):
            raise UserError(f"{where}: {','.join(row)!r} is not NAME,CLASS or NAME,{VOID}")
        name, target = row
        for word, known, place in ((name, {*theirs.names, *ignored}, names[0]), (target, targets.keys(), names[1])):
            if word not in known:
                has = f"; it has {', '.join(known)}"
                raise UserError(f"{where}: {place} has no class {word!r}{suggestion(word, known, otherwise=has)}")
        if name in mapping:
            raise UserError(f"{where}: {name} is mapped to {mapping[name] or VOID} already")
        if name in ignored and targets[target] is not None:
            raise UserError(f"{where}: {name} is void in {names[0]} and cannot become {target}: write {VOID}")
        mapping[name] = targets[target]
    missing = [name for name in theirs.names if name not in mapping]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)} of {names[0]}: add a line NAME,CLASS or NAME,{VOID} each")
    if all(mapping[name] is None for name in theirs.names):
        raise UserError(f"{path} maps every class of {names[0]} to {VOID}: no label would be left")
    return {name: mapping[name] for name in theirs.names}
