"""Built-in scenes are deterministic streets at any size, and not recoloured label maps."""

import hashlib
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

from trainer.batch import IGNORE
from trainer.data.synthetic.scenes import CLASSES, draw


@lru_cache(maxsize=1)
def forty():
    return [draw(index, height=180, width=240, split="val") for index in range(40)]


def test_a_scene_is_drawn_the_same_in_another_process():
    code = "import hashlib; from trainer.data.synthetic.scenes import draw; p, l = draw(7, height=96, width=128); "
    code += "print(hashlib.sha256(p.tobytes() + l.tobytes()).hexdigest())"
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    ).stdout.strip()
    photo, label = draw(7, height=96, width=128)
    assert told == hashlib.sha256(photo.tobytes() + label.tobytes()).hexdigest()


def test_scenes_of_other_numbers_and_splits_are_other_streets():
    labels = [
        draw(index, height=48, width=64, split=split)[1].tobytes()
        for split in ("train", "val", "test")
        for index in range(4)
    ]
    assert len(set(labels)) == 12


def test_another_size_shows_the_same_street():
    for index in range(4):
        small, large = draw(index, height=120, width=160)[1], draw(index, height=240, width=320)[1]
        assert (small == large[::2, ::2]).mean() > 0.93


def test_every_class_occurs_often_and_none_dominates():
    labels = [label for _, label in forty()]
    shares = np.stack([np.bincount(label[label != IGNORE], minlength=11) for label in labels]) / labels[0].size
    for index, name in enumerate(CLASSES.names):
        assert (shares[:, index] > 0).sum() >= 20, name
    share = dict(zip(CLASSES.names, shares.mean(0), strict=True))
    assert 0.22 < share["road"] < 0.40
    assert 0.15 < share["building"] < 0.30
    assert 0.10 < share["sky"] < 0.25
    assert 0.05 < share["tree"] < 0.18
    assert 0.02 < share["car"] < 0.10


def test_a_photo_is_not_a_recoloured_label_map():
    confusion = np.zeros((11, 11), np.int64)
    palette = CLASSES.palette.astype(int)
    for photo, label in forty():
        nearest = ((photo[:, :, None].astype(int) - palette) ** 2).sum(-1).argmin(-1)
        counted = label != IGNORE
        np.add.at(confusion, (label[counted], nearest[counted]), 1)
    hits = np.diag(confusion)
    mean_iou = float((hits / (confusion.sum(0) + confusion.sum(1) - hits)).mean())
    assert mean_iou < 0.35


def test_photo_and_label_share_their_edges():
    """Across a label edge the photo changes far more than across a pixel inside a class."""
    at_edge, inside = [], []
    for photo, label in forty()[:20]:
        step = np.abs(np.diff(photo.astype(int), axis=1)).sum(2)
        edge = label[:, 1:] != label[:, :-1]
        at_edge.append(step[edge].mean())
        inside.append(step[~edge].mean())
    assert np.mean(at_edge) > 4 * np.mean(inside)
