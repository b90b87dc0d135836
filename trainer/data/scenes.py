"""An endless, deterministic source of street scenes: photo and label map drawn together, at any size."""

import numpy as np

from trainer.batch import Classes, class_table, random
from trainer.data.scenery import backdrop, facades, figures
from trainer.data.scenery.canvas import blank
from trainer.data.scenery.imagine import imagine

CLASSES: Classes = class_table(
    [
        (0, "sky", (128, 128, 128), False),
        (1, "building", (128, 0, 0), False),
        (2, "pole", (192, 192, 128), False),
        (3, "road", (128, 64, 128), False),
        (4, "sidewalk", (60, 40, 222), False),
        (5, "tree", (128, 128, 0), False),
        (6, "sign", (192, 128, 128), False),
        (7, "fence", (64, 64, 128), False),
        (8, "car", (64, 0, 128), False),
        (9, "pedestrian", (64, 64, 0), False),
        (10, "bicyclist", (0, 128, 192), False),
        (11, "void", (0, 0, 0), True),
    ]
)
"""CamVid's eleven classes and void, with CamVid's ids and colours."""

SEED = 2008


def draw(index: int, *, height: int, width: int, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Scene `index` of a split: its photo uint8[H,W,3] and its class indices uint8[H,W] (0..10, or IGNORE for void).

    What stands where depends on (split, index) alone; another size shows the same street.
    """
    street = imagine(random(SEED, index, f"scene {split}"))
    canvas = blank(street, height, width)
    for building in street.facades:
        facades.facade(canvas, building)
    backdrop.skyline(canvas)
    backdrop.sky(canvas)
    backdrop.ground(canvas)
    backdrop.shade_ground(canvas, figures.shadows(street))
    for fenced in street.fences:
        facades.fence(canvas, fenced)
    for thing in street.things:
        figures.draw(canvas, thing)
    backdrop.bonnet(canvas)
    return backdrop.weather(canvas, random(SEED, index, f"grain {split}")), canvas.label
