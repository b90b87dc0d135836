"""Photos, label maps, class tables, domains, and the Batch that every training step gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from serving.imaging import domain
from serving.imaging.domain import ClassRow

IGNORE = 255
"""Void in a LabelMap: weight 0 in losses, all zero in one-hot, absent from metrics."""

Photo = Annotated[Tensor, "Float[B,3,H,W] in [-1,1]"]
LabelMap = Annotated[Tensor, "Long[B,H,W] in 0..C-1, or IGNORE (255)"]
OneHot = Annotated[Tensor, "Float[B,C,H,W] in {0,1}; all zero where ignored"]
Scores = Annotated[Tensor, "Float[B,C,H,W], unbounded (logits)"]

Phase = Literal["never", "first half", "throughout"]
"""A part of the training."""


@dataclass(frozen=True)
class Classes:
    """A class table. The class *index* 0..C-1 that networks use is the rank among the rows that are not ignored."""

    rows: tuple[ClassRow, ...]

    @property
    def real(self) -> tuple[ClassRow, ...]:
        """The C classes that count, in the order of their indices."""
        return tuple(row for row in self.rows if not row.ignore)

    @property
    def count(self) -> int:
        """C, the number of classes that count."""
        return len(self.real)

    @property
    def names(self) -> tuple[str, ...]:
        """The C names, by index."""
        return tuple(row.name for row in self.real)

    @property
    def palette(self) -> np.ndarray:
        """The colours by index, uint8[C,3]."""
        return np.array([row.color for row in self.real], dtype=np.uint8).reshape(-1, 3)

    @cached_property
    def imaging(self) -> domain.Domain:
        """The class table as `serving.imaging` takes it."""
        return domain.Domain("classes", self.rows)

    def index_to_color(self) -> np.ndarray:
        """Lookup uint8[256,3] from class index to colour; that of the first ignored row, else black, for any other."""
        void = next((row.color for row in self.rows if row.ignore), (0, 0, 0))
        return np.concatenate([self.palette, np.tile(np.array(void, np.uint8), (256 - self.count, 1))])

    def id_to_index(self) -> np.ndarray:
        """Lookup uint8[256] from a file's raw id to the class index; IGNORE for void and for ids outside the table."""
        lookup = np.full(256, IGNORE, dtype=np.uint8)
        for index, row in enumerate(self.real):
            lookup[row.id] = index
        return lookup

    def index_to_id(self) -> np.ndarray:
        """Lookup uint8[256] from class index to the file's raw id; the void id, else 255, for any other index."""
        void = next((row.id for row in self.rows if row.ignore), IGNORE)
        lookup = np.full(256, void, dtype=np.uint8)
        lookup[: self.count] = [row.id for row in self.real]
        return lookup


@dataclass(frozen=True)
class Domain:
    """One side of a dataset: label maps over a class table, or pictures."""

    kind: Literal["classes", "picture"]
    classes: Classes | None = None


@dataclass(frozen=True)
class Pairs:
    """Photos and labels of equal batch length; whether they belong together is said by the Batch."""

    photo: Photo
    label: LabelMap | Photo
    sides: Mapping[str, Tensor] = field(default_factory=dict)
    """Further sides that the method reads: pictures as Photo, ids as Long[B,H,W]. Empty in the unpaired half."""


@dataclass(frozen=True)
class Batch:
    """What every training step gets. Supervision is which half a method reads."""

    paired: Pairs
    """photo[i] and label[i] show the same scene."""
    unpaired: Pairs
    """Drawn independently: photo[i] says nothing of label[i]."""

    def to(self, device: torch.device, *, channels_last: bool = False) -> "Batch":
        """The same batch on another device, pictures in channels-last memory if asked."""

        def move(tensor: Tensor) -> Tensor:
            memory = torch.channels_last if channels_last and tensor.ndim == 4 else torch.preserve_format
            return tensor.to(device, non_blocking=True, memory_format=memory)

        def moved(half: Pairs) -> Pairs:
            return Pairs(move(half.photo), move(half.label), {name: move(side) for name, side in half.sides.items()})

        return Batch(moved(self.paired), moved(self.unpaired))


def random(seed: int, step: int, stream: str, index: int = 0) -> np.random.Generator:
    """The random generator of one draw: a function of (seed, step, stream, index) alone, so that resuming is exact."""
    return np.random.default_rng(np.random.SeedSequence([seed, step, index, *stream.encode()]))
