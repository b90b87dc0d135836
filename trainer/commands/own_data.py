"""Choose recipe, size and pool for a user's own data: `fewpair train` without a recipe."""

import dataclasses
import math
from itertools import pairwise
from typing import Literal

from trainer.data.dataset import Dataset
from trainer.data.layouts.files import number_of
from trainer.data.selection.selection import Selection
from trainer.errors import UserError
from trainer.recipes import RECIPES
from trainer.run import Run

MINUTES = {"mean-teacher-compact": 78, "painter-compact": 59}
"""Training time on one CPU core at the recipe's own size and steps (docs/results/camvid.md)."""


def recipe_for(dataset: Dataset, *, to: Literal["label", "photo"]) -> Run:
    """A recipe for all pairs and photos, at a size of their shape. Raises UserError without labels or classes."""
    samples = dataset.samples("train")
    pairs = [sample for sample in samples if sample.complete]
    if dataset.label_domain.classes is None:
        raise UserError(
            f"{dataset.place} has pictures on the label side: name a recipe, as in fewpair train "
            "hybrid-compact-colours ..."
        )
    if not pairs:
        raise UserError(
            f"{dataset.place}: no photo has a label map of the same file name yet; "
            "`fewpair pairs --unlabelled` says which photos to label"
        )
    recipe = RECIPES["mean-teacher-compact" if to == "label" else "painter-compact"]
    unit = 32 if to == "label" else 64  # a painter's smaller size is half of this one
    size = fitted_size(dataset.size(pairs[0], "photo"), area=math.prod(recipe.size), unit=unit)
    return dataclasses.replace(
        recipe,
        data=dataset.name,
        root=None if dataset.root is None else str(dataset.root),
        pairs="all",
        unpaired=None,
        size=size,
        progressive=scaled_stages(recipe, size),
    )


def announce(run: Run, selection: Selection) -> None:
    """Print what `recipe_for` chose, and the expected minutes."""
    recipe = RECIPES[run.recipe]
    minutes = number_of(max(1, round(MINUTES[run.recipe] * _pixels(run) / _pixels(recipe))), "minute")
    print(
        f"{run.recipe}: {selection.counted()} at {run.size[0]}x{run.size[1]}, about {minutes} on one CPU core, less on "
        "several or on a GPU"
    )
    if run.method == "painter" and set(selection.unpaired_photos) - set(selection.pairs) and not run.config.segmenter:
        print(
            "the other photos are not read: train a segmenter first (without --to photo), then add --config.segmenter "
            "RUN"
        )


def fitted_size(photo: tuple[int, int], *, area: int, unit: int) -> tuple[int, int]:
    """A size of the photo's shape with about this many pixels, not larger than it, in multiples of `unit`."""
    scale = min(1.0, math.sqrt(area / math.prod(photo)))
    height, width = (max(64, round(side * scale / unit) * unit) for side in photo)
    return height, width


def scaled_stages(recipe: Run, size: tuple[int, int]) -> tuple[tuple[float, int, int], ...]:
    """The smaller sizes that training begins at: heights in proportion to `size`, and widths in its shape.

    Both are multiples of 32 from 64 on.
    """

    def rounded(side: float, most: int) -> int:
        return min(most, max(64, round(side / 32) * 32))

    heights = [(share, rounded(stage / recipe.size[0] * size[0], size[0])) for share, stage, _ in recipe.progressive]
    return tuple((share, height, rounded(height * size[1] / size[0], size[1])) for share, height in heights)


def _pixels(run: Run) -> float:
    """The pixels of all steps."""
    ends = [0.0, *(share for share, *_ in run.progressive), 1.0]
    sizes = [*((height, width) for _, height, width in run.progressive), run.size]
    shares = [after - before for before, after in pairwise(ends)]
    return run.steps * run.batch * sum(share * math.prod(size) for share, size in zip(shares, sizes, strict=True))
