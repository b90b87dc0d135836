"""An endless, deterministic source of street scenes: photo and label map are rendered together, at any size."""

import numpy as np

from trainer.batch import random
from trainer.data.class_table import shipped
from trainer.data.synthetic import objects, surroundings
from trainer.data.synthetic.canvas import Canvas
from trainer.data.synthetic.scene import sample_scene

CLASSES = shipped("scenes")
"""CamVid's eleven classes and void, with CamVid's ids and colours."""
SEED = 2008


def draw(index: int, *, height: int, width: int, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Render scene `index` of a split: its photo uint8[H,W,3] and its class indices uint8[H,W] (0..10).

    The content depends on (split, index) alone: another size shows the same street.
    """
    scene = sample_scene(random(SEED, index, f"scene {split}"))
    canvas = Canvas(scene, height, width)
    for building in (each for each in scene.objects if each.kind == "building"):
        surroundings.draw_building(canvas, building)
    surroundings.draw_ground(canvas)
    surroundings.draw_sky(canvas)
    for thing in (each for each in scene.objects if each.kind not in ("building", "fence", "lamp", "sign")):
        objects.draw_shadow(canvas, thing)
    for thing in (each for each in scene.objects if each.kind != "building"):
        (surroundings.draw_fence if thing.kind == "fence" else objects.draw_object)(canvas, thing)
    return surroundings.apply_weather(canvas, random(SEED, index, f"grain {split}")), canvas.label
