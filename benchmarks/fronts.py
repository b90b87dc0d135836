"""Draws label maps of building fronts in the classes of the CMP facade database, for the examples of a facades model.

python -m benchmarks.fronts FOLDER
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 256
FACADE, WINDOW, DOOR, CORNICE, SILL, BALCONY, BLIND, _, MOLDING, PILLAR, SHOP = range(1, 12)
"""0 is the background."""


class Front(NamedTuple):
    """A front; lengths in pixels."""

    left: int
    right: int
    top: int
    storeys: int
    columns: int
    window: float
    """Width of a window as a share of its column."""
    cornices: bool = False
    blinds: bool = False
    pillars: bool = False
    balconies: tuple[int, ...] = ()
    """Columns that have balconies on the storeys in the middle."""
    shops: bool = False


FRONTS = {
    "five-storeys": Front(6, 250, 26, 5, 6, 0.45, cornices=True),
    "balconies": Front(14, 242, 34, 4, 5, 0.42, cornices=True, balconies=(1, 3)),
    "shutters": Front(10, 246, 60, 3, 4, 0.32, blinds=True),
    "shops-and-pillars": Front(0, 256, 22, 4, 5, 0.5, pillars=True, shops=True),
}


def draw(front: Front) -> np.ndarray:
    """Return class ids, uint8[256,256]."""
    ids = np.zeros((SIDE, SIDE), np.uint8)

    def fill(label: int, top: float, bottom: float, left: float, right: float) -> None:
        ids[round(top) : round(bottom), max(0, round(left)) : round(right)] = label

    ground = SIDE - 8
    fill(FACADE, front.top, ground, front.left, front.right)
    fill(MOLDING, front.top, front.top + 11, front.left - 3, front.right + 3)
    height, width = (ground - front.top - 11) / front.storeys, (front.right - front.left) / front.columns
    for storey in range(front.storeys):
        top = front.top + 11 + storey * height
        street = storey == front.storeys - 1
        for column in range(front.columns):
            left = front.left + column * width
            one, other = left + width * (1 - front.window) / 2, left + width * (1 + front.window) / 2
            first, last = top + 0.24 * height, top + 0.8 * height
            if front.pillars and column and not street:
                fill(PILLAR, top, top + height, left - 3, left + 3)
            if street and front.shops:
                fill(SHOP, first, ground, left + 5, left + width - 5)
                continue
            if street and column == front.columns // 2:
                fill(DOOR, first, ground, one - 2, other + 2)
                continue
            fill(WINDOW, first, last, one, other)
            if front.blinds:
                fill(BLIND, first, last, one - width * 0.17, one)
                fill(BLIND, first, last, other, other + width * 0.17)
            if front.cornices and not street:
                fill(CORNICE, first - 8, first - 1, one - 4, other + 4)
            fill(SILL, last, last + 5, one - 3, other + 3)
            if column in front.balconies and 0 < storey and not street:
                fill(BALCONY, last - 0.2 * height, last + 8, one - 9, other + 9)
        if storey in (0, front.storeys - 2):
            fill(MOLDING, top + height - 5, top + height + 1, front.left, front.right)
    return ids


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    for name, front in FRONTS.items():
        Image.fromarray(draw(front)).save(Path(sys.argv[1], f"{name}.png"))
