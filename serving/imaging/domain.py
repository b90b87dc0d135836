"""The two sides of a model, label maps over a class table or pictures, and the scale at which a model works."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IGNORE = 255
"""The id of "no class" in label maps, unless the class table gives an ignored class another id."""


@dataclass(frozen=True)
class ClassRow:
    """One class: the id and the colour (red, green, blue) that stand for it in label maps.

    Pixels of an ignored class are void: they count neither in training nor in figures.
    """

    id: int
    name: str
    color: tuple[int, int, int]
    ignore: bool


@dataclass(frozen=True)
class Domain:
    """One side of a model: label maps over a class table, or pictures."""

    kind: Literal["classes", "picture"]
    classes: tuple[ClassRow, ...]

    @cached_property
    def void(self) -> int:
        """The id of pixels without a class: that of the first ignored class, else 255."""
        return next((row.id for row in self.classes if row.ignore), IGNORE)

    @cached_property
    def known_ids(self) -> frozenset[int]:
        """The ids that a label map may hold: those of the table, and 255 where the table has an ignored class."""
        ids = frozenset(row.id for row in self.classes)
        return ids | {IGNORE} if any(row.ignore for row in self.classes) else ids

    @cached_property
    def ignored_ids(self) -> frozenset[int]:
        """255, and the ids of the ignored classes."""
        return frozenset({IGNORE, *(row.id for row in self.classes if row.ignore)})

    @cached_property
    def palette(self) -> NDArray[np.uint8]:
        """uint8[256,3]: the colour of each id; ids without a class look like void."""
        void = next((row.color for row in self.classes if row.ignore), (0, 0, 0))
        table = np.tile(np.array(void, np.uint8), (256, 1))
        for row in self.classes:
            table[row.id] = row.color
        return table


@dataclass(frozen=True)
class Resize:
    """How an image is brought to the scale that the model was trained at."""

    rule: Literal["fit", "exact", "none"]
    height: int | None
    width: int | None
    filter: Literal["bicubic", "bilinear", "lanczos", "box"]
