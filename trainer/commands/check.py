"""`fewpair check`: report every problem of a dataset at once, with an overlay sheet."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from trainer.batch import IGNORE
from trainer.commands.arguments import opened, parse
from trainer.data.catalogue import CATALOGUE
from trainer.data.check import check, class_table, grouped
from trainer.data.dataset import Dataset, Sample
from trainer.data.layouts.files import number_of
from trainer.data.loader import photo_to_uint8, prepare_photo
from trainer.data.selection.selection import first_of
from trainer.errors import UserError
from trainer.grids import sample_grid
from trainer.metrics.evaluate import spread
from trainer.metrics.pictures import paint_label

SHOWN, WIDTH = 12, 320
"""How many samples the overlay sheet shows, and how wide."""


@dataclass(frozen=True)
class CheckOptions:
    """Options of `fewpair check`."""

    root: Annotated[Path, tyro.conf.Positional]
    """The dataset's folder."""
    data: str = "folders"
    """The dataset: one of the catalogue."""
    out: Path | None = None
    """Where to write a sheet (PNG) of labels over their photos, with a legend; None: no sheet."""
    void: int | None = None
    """255 confirms that pixels with this value are not labelled on purpose."""


def check_command(arguments: list[str]) -> int:
    """`fewpair check ROOT`: 0 if training can start, 1 if there are errors."""
    asked = parse(CheckOptions, "check", arguments, f"Check a dataset. Datasets: {', '.join(CATALOGUE)}.")
    if asked.void not in (None, IGNORE):
        raise UserError(f"--void {asked.void}: only 255 can be void without a row in the class table")
    dataset = opened(asked.data, asked.root)
    samples = [sample for split in dataset.splits.values() for sample in split]
    report = check(dataset, samples, decoded=None)
    errors, warnings = report.class_problems(void=asked.void is not None)
    errors += grouped(report.errors)
    twins = report.near_duplicates()
    if twins:
        shown = first_of([f"{one} and {other}" for one, other in twins])
        warnings.append(f"{number_of(len(twins), 'pair')} of near-duplicate photos: {shown}")
    complete = [sample for sample in samples if sample.complete]
    print(f"{dataset.place}: {number_of(len(samples), 'sample')}, {len(complete)} with photo and label")
    for line in class_table(report):
        print(line)
    for kind, lines in (("warning", warnings), ("error", errors)):
        for line in lines:
            print(f"{kind}: {line}")
    if asked.out is not None and complete:
        _write_sheet(asked.out, dataset, complete)
        print(f"overlay sheet: {asked.out}")
    print("no errors" if not errors else number_of(len(errors), "error"))
    return 1 if errors else 0


def _write_sheet(path: Path, dataset: Dataset, samples: list[Sample]) -> None:
    """Write photos, and labels over their photos, with a legend of the class colours."""
    rows, names = [], []
    for sample in spread(samples, SHOWN):
        with suppress(UserError):  # reported already
            photo, label = dataset.read_photo(sample), dataset.read_label(sample)
            size = (max(1, round(photo.shape[0] * WIDTH / photo.shape[1])), WIDTH)
            small = photo_to_uint8(prepare_photo(photo, size))
            rows.append({"photo": small, "label over photo": small // 2 + paint_label(dataset, label, size) // 2})
            names.append(sample.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    sample_grid(rows, names=names, classes=dataset.label_domain.classes).save(path)
