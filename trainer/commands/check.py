"""`fewpair check`: report every problem of a dataset at once, with an overlay sheet."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageDraw

from trainer.commands.arguments import confirms_void, opened, parse
from trainer.commands.own_data import fitted_size
from trainer.data.catalogue import CATALOGUE
from trainer.data.check import check, class_table, grouped
from trainer.data.dataset import SIDES, Dataset, Sample, resized
from trainer.data.layouts.files import counted, first_of, number_of
from trainer.errors import UserError
from trainer.grids import sample_grid
from trainer.metrics.evaluate import classes_of, spread
from trainer.metrics.predict import paint_label, predict_probabilities
from trainer.metrics.quick import AREA, by_other_folds
from trainer.metrics.suspects import Region, regions, suspects
from trainer.training.checkpointing import load_method, open_run

SHOWN, WIDTH = 12, 320
"""How many samples the sheets show, and how wide."""
LISTED = 50
"""How many regions that are probably wrong are printed."""


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
    """255 confirms that void pixels are not labelled on purpose."""
    with_run: Annotated[Path | None, tyro.conf.arg(aliases=["--with"])] = None
    """A run: also list labelled regions that are probably wrong. Where it learned from these labels, two small
    segmenters, each of which learns from one half of the photos, judge the other half."""


def check_command(arguments: list[str]) -> int:
    """`fewpair check ROOT`: 0 if training can start, 1 if there are errors."""
    options = parse(CheckOptions, "check", arguments, f"Check a dataset. Datasets: {', '.join(CATALOGUE)}.")
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out}: give a .png file")
    dataset = opened(options.data, options.root)
    samples = [sample for split in dataset.splits.values() for sample in split]
    report = check(dataset, samples, decoded=None)
    errors, warnings = report.class_problems(void=confirms_void(options.void))
    warnings += report.palette_warnings()
    errors += grouped(report.errors, every=True)
    alike, step = report.near_duplicates()
    if alike:
        shown = first_of([f"{one} and {other}" for one, other in alike])
        among = "" if step == 1 else f" (one of {step} photos was compared)"
        warnings.append(f"{number_of(len(alike), 'pair')} of near-duplicate photos{among}: {shown}")
    complete = [sample for sample in samples if sample.complete]
    alone = [sum(sample.path(side) is None for sample in samples) for side in SIDES]
    print(f"{dataset.place}: {counted(len(complete), *alone)}")
    for line in class_table(report):
        print(line)
    for kind, lines in (("warning", warnings), ("error", errors)):
        for line in lines:
            print(f"{kind}: {line}")
    if options.with_run is not None and not errors:
        _list_suspects(options.with_run, dataset, complete, sheet=options.out)
    elif options.out is not None and complete:
        rows = _write_sheet(options.out, dataset, complete)
        print(f"overlay sheet: {options.out} ({rows} of {number_of(len(complete), 'label map')})")
    print("no errors" if not errors else number_of(len(errors), "error"))
    return 1 if errors else 0


def _list_suspects(run: Path, dataset: Dataset, samples: list[Sample], *, sheet: Path | None) -> None:
    """Print the regions that are probably labelled wrongly, and show the first of them on the sheet."""
    open_run(run)
    learned = {pair["photo_sha256"] for pair in json.loads((run / "pairs.json").read_text(encoding="utf-8"))["pairs"]}
    seen = any(dataset.digest(sample, "photo") in learned for sample in samples)
    if seen:
        print(f"{run} learned from these labels: two small segmenters judge them, each the half that it did not see")
        if len(samples) < 2:
            raise UserError(f"{dataset.place} has {len(samples)} labelled photos: two halves need 2 or more")
        size = fitted_size(dataset.size(samples[0], "photo"), area=AREA, unit=32)
        photos, labels = map(dataset.read_photo, samples), map(dataset.read_label, samples)
        classes = classes_of(dataset.label_domain).count
        probabilities = by_other_folds(photos, labels, size, classes=classes, folds=2, seed=0)
    else:
        method, settings, _ = load_method(run)
        if classes_of(method.label_domain).names != classes_of(dataset.label_domain).names:
            raise UserError(
                f"--with {run}: its classes are not those of {dataset.place}: name a run of the same classes"
            )
        photos = map(dataset.read_photo, samples)
        probabilities = (predict_probabilities(method, photo, size=settings.size) for photo in photos)
    names, found, predicted = classes_of(dataset.label_domain).names, [], []
    for place, each in enumerate(probabilities):
        found += list(regions(place, dataset.read_label(samples[place]), each))
        predicted.append(each.argmax(0).astype(np.uint8))
    wrong, rows, titles = suspects(found), [], []
    print(f"{number_of(len(wrong), 'region')} of {len(found)} probably labelled wrongly, the likeliest first:")
    for rank, (_, region, likelier) in enumerate(wrong[:LISTED], 1):
        sample = samples[region.place]
        height, width = dataset.size(sample, "label")
        sides = zip(region.box, (width, height, width, height), strict=True)
        left, top, right, bottom = (round(share * side) for share, side in sides)
        finding = f"{names[region.label]}, the model says {names[likelier]}"
        print(f"{rank:>4}  {sample.label}  x {left} to {right}, y {top} to {bottom}: {finding}")
        if sheet is not None and rank <= SHOWN:
            rows.append(_shown(dataset, sample, predicted[region.place], region))
            titles.append(f"{sample.name}: {finding}")
    if sheet is not None and rows:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        sample_grid(rows, names=titles, classes=dataset.label_domain.classes).save(sheet)
        print(f"sheet: {sheet}")


def _shown(dataset: Dataset, sample: Sample, predicted: np.ndarray, region: Region) -> dict[str, np.ndarray]:
    """A region's label, the model's prediction and the photo, with the region framed."""
    photo, label = _small(dataset, sample)
    size = photo.shape[:2]
    pictures = {"label": label, "model": paint_label(dataset, predicted, size), "photo": photo}
    frame = [share * side for share, side in zip(region.box, size[::-1] * 2, strict=True)]
    for name, picture in pictures.items():
        framed = Image.fromarray(picture)
        ImageDraw.Draw(framed).rectangle(frame, outline=(255, 0, 0), width=2)
        pictures[name] = np.asarray(framed)
    return pictures


def _write_sheet(path: Path, dataset: Dataset, samples: list[Sample]) -> int:
    """Write photos, and labels over their photos, with a legend of the class colours; return how many."""
    rows, names = [], []
    for sample in spread(samples, SHOWN):
        with suppress(UserError):  # reported already
            photo, label = _small(dataset, sample)
            rows.append({"photo": photo, "label over photo": photo // 2 + label // 2})
            names.append(sample.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    sample_grid(rows, names=names, classes=dataset.label_domain.classes).save(path)
    return len(rows)


def _small(dataset: Dataset, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """A photo and its label in colours, uint8[h,WIDTH,3]."""
    photo = dataset.read_photo(sample)
    size = (max(1, round(photo.shape[0] * WIDTH / photo.shape[1])), WIDTH)
    return resized(photo, size), paint_label(dataset, dataset.read_label(sample), size)
