"""What to do next, from the figures of a run."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from trainer.data.layouts.files import first_of
from trainer.methods import METHODS
from trainer.recipes import RECIPES
from trainer.run import Run

WEAK, RARE, LOST, CONFUSED, UNFOUND = 0.7, 0.02, 0.85, 0.3, 0.01
"""A class is weak below this share of the mean IoU. It is rare below this share of the labelled pixels, too small
where perfect label maps of the run's size have a lower IoU and it has half of that, and confused where another class
gets this share of it. A class with a lower IoU than the last is not found; where many are not, the run was too short
to say more."""


def advice(
    run: Run, lines: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]], pixels: pd.DataFrame
) -> list[str]:
    """Return what to do, from metrics.jsonl, evaluations, those that say most first, and pixels by pair and class."""
    if not records:
        return [*_of_training(run, lines), "Measure the run with fewpair evaluate."]
    record = dict(ChainMap(*map(dict, records)))  # a cross-validation takes what it lacks from the run's own
    of_classes = _of_classes(record, pixels) if "confusion" in record else []
    seen = ["Keep some labelled photos apart, in val/: these were seen in training."]
    unseen = [each for each in records if "seen_in_training" not in each["figures"] and not _crossed(each)]
    return _of_training(run, lines) + of_classes + seen * (not unseen)


def _crossed(record: Mapping[str, Any]) -> bool:
    return str(record["split"]).startswith("cross-validation")


def scores(run: Run, lines: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[int, float]]]:
    """Return the name of the figure that chooses the best checkpoint, and its values on `val` by step."""
    for name in METHODS[run.method].chosen_by:
        if found := [(line["step"], line[f"val/{name}"]) for line in lines if f"val/{name}" in line]:
            return name.replace("_", " ").replace("iou", "IoU"), found
    return "", []


def _of_training(run: Run, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    name, values = scores(run, lines)
    if lines and lines[-1]["step"] < run.steps:
        return [f"The run stopped at step {lines[-1]['step']} of {run.steps}: fewpair train --resume continues it."]
    usual = RECIPES[run.recipe].steps if run.recipe in RECIPES else 0
    if len(values) < 2 and run.steps < usual / 2:
        return [f"The run had {run.steps} steps, its recipe has {usual}: train longer, before labelling more photos."]
    if len(values) < 2:
        return []
    (_, before), (_, last) = values[-2:]
    step, best = max(values, key=lambda each: each[1])
    if last == best and last - before > 0.01 * abs(best):
        return [f"{name} on val is still rising, {before:.3f} to {last:.3f}: train longer, --steps {2 * run.steps}."]
    if last < 0.95 * best:
        return [f"{name} on val fell from {best:.3f} at step {step} to {last:.3f}: label more photos, or stop there."]
    return []


def _of_classes(record: Mapping[str, Any], pixels: pd.DataFrame) -> list[str]:
    ious: dict[str, float] = {name: iou for name, iou in record["figures"]["per_class_iou"].items() if iou is not None}
    confusion = pd.DataFrame(record["confusion"], *[list(record["figures"]["per_class_iou"])] * 2)
    unfound = [name for name, iou in ious.items() if iou < UNFOUND]
    if len(unfound) > len(ious) / 3 and not _crossed(record):
        return [
            f"{len(unfound)} of {len(ious)} classes are hardly ever found: train longer, before labelling more photos."
        ]
    said = []
    for name in sorted(ious, key=lambda each: ious[each]):
        if ious[name] >= WEAK * np.mean(list(ious.values())):
            break
        share, photos = pixels[name].sum() / max(1, pixels.to_numpy().sum()), int((pixels[name] > 0).sum())
        others = (confusion.loc[name] / confusion.loc[name].sum()).drop(name)
        kept, more = record.get("iou_at_size", {}).get(name) or 1.0, record.get("photos_of_classes", {}).get(name, [])
        if ious[name] >= kept / 2 and kept < LOST:
            size = "x".join(map(str, record["size"]))
            remedy = f"too small, as perfect label maps of {size} have {kept:.2f}: train at a larger --size"
        elif share < RARE or photos < len(pixels) / 4:
            remedy = f"{100 * share:.2g} % of the labelled pixels, in {photos} of {len(pixels)} photos: label "
            remedy += f"these photos next: {first_of(more)}" if more else "more photos that show it"
        elif others.max() > CONFUSED:
            remedy = f"{100 * others.max():.0f} % of it is taken for {others.idxmax()}: label both by one rule"
        else:
            continue
        said.append(f"{name}, IoU {ious[name]:.2f}{' in the cross-validation' * _crossed(record)}: {remedy}.")
    return said
