"""A sheet that sets methods side by side: the same samples in the rows, the methods' answers in the columns, what they are at the foot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from trainer.data.catalogue import Dataset, Sample
from trainer.data.loader import photo_to_uint8, prepare_label, prepare_photo
from trainer.errors import UserError
from trainer.methods.base import Method
from trainer.metrics.evaluate import Size, labelled, predict_label, predict_photo
from trainer.metrics.pictures import colourise, sheet
from trainer.metrics.provenance import Provenance

Direction = Literal["to_label", "to_photo"]
CELL = 192
"""Pixels of width that smaller pictures are enlarged towards, by whole pixels."""


@dataclass(frozen=True)
class Contestant:
    """A trained method with the name of its columns."""

    name: str
    method: Method
    provenance: Provenance


@dataclass(frozen=True)
class Row:
    """One sample of the split."""

    sample: Sample
    place: int
    """In the split, which numbers its noise."""
    photo: np.ndarray
    """uint8[H,W,3]."""
    label: np.ndarray
    """As the dataset reads it."""


def common_direction(contestants: Sequence[Contestant], asked: Direction | None) -> Direction:
    """The direction that is asked for, or else label -> photo where all offer it, or else photo -> label.

    Raises UserError where they offer none in common.
    """
    directions: tuple[Direction, ...] = ("to_photo", "to_label") if asked is None else (asked,)
    for direction in directions:
        if all(direction in one.method.directions for one in contestants):
            return direction
    offered = "; ".join(f"{one.name} offers {' and '.join(sorted(one.method.directions))}" for one in contestants)
    raise UserError(f"these runs cannot stand on one sheet{'' if asked is None else f' of {asked}'}: {offered}")


def comparison(
    contestants: Sequence[Contestant],
    dataset: Dataset,
    *,
    split: str,
    size: Size,
    direction: Direction,
    samples: int,
    seeds: int,
    device: str | torch.device = "cpu",
) -> Image.Image:
    """`samples` rows spread evenly over the split, all pictures at the network's resolution.

    to_photo: the label, the true photo, then each method's; `seeds` of them where it takes noise, the first by the noise that
    `evaluate_to_photo` gives this sample. to_label: the photo, the truth, then each method's label map.
    """
    rows = _rows(dataset, split, samples)
    photos = [photo_to_uint8(prepare_photo(row.photo, size)) for row in rows]
    labels = [_painted(dataset, prepared_label(row.label, size)) for row in rows]
    columns = [("label", labels), ("true photo", photos)] if direction == "to_photo" else [("photo", photos), ("truth", labels)]
    for one in contestants:
        if direction == "to_label":
            cells = [_painted(dataset, predict_label(one.method, row.photo, size=size, device=device)) for row in rows]
            columns.append((one.name, cells))
            continue
        for seed in range(seeds if one.method.noise_shape is not None else 1):
            stream = "evaluation" if seed == 0 else f"comparison-{seed}"
            cells = [predict_photo(one.method, row.label, size=size, device=device, draw=row.place, stream=stream) for row in rows]
            columns.append((_heading(one, seed, seeds), cells))
    return sheet(
        [heading for heading, _ in columns],
        list(zip(*(cells for _, cells in columns), strict=True)),
        scale=max(1, CELL // size[1]),
        names=[row.sample.name for row in rows],
        caption=_caption(contestants, dataset, direction, rows=len(rows), split=split),
    )


def prepared_label(label: np.ndarray, size: Size) -> np.ndarray:
    """A label as the dataset reads it -> uint8[h,w] class indices or IGNORE, or uint8[h,w,3], at the network's resolution."""
    prepared = prepare_label(label, size)
    return photo_to_uint8(prepared) if label.ndim == 3 else prepared.numpy().astype(np.uint8)


def _rows(dataset: Dataset, split: str, samples: int) -> list[Row]:
    if samples < 1:
        raise UserError(f"--samples {samples} leaves the sheet without rows: give 1 or more")
    places = {sample: place for place, sample in enumerate(labelled(dataset, split))}
    chosen = labelled(dataset, split, limit=samples)
    return [Row(sample, places[sample], dataset.read_photo(sample), dataset.read_label(sample)) for sample in chosen]


def _painted(dataset: Dataset, label: np.ndarray) -> np.ndarray:
    classes = dataset.label_domain.classes
    return label if classes is None else colourise(label, classes)


def _heading(one: Contestant, seed: int, seeds: int) -> str:
    return one.name if seeds == 1 or one.method.noise_shape is None else f"{one.name}, seed {seed}"


def _caption(contestants: Sequence[Contestant], dataset: Dataset, direction: Direction, *, rows: int, split: str) -> str:
    """What the rows are, then a line a method."""
    words = "label -> photo" if direction == "to_photo" else "photo -> label"
    lines = [f"{words} on {contestants[0].provenance.material}: {rows} of {len(labelled(dataset, split))} samples, spread evenly"]
    for one in contestants:
        about = one.provenance
        lines.append(f"{one.name}: {about.recipe or about.method}, {about.training}")
    return "\n".join(lines)
