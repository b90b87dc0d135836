"""Measures the flicker of frames that runs make of the poses of a clip, into a table of a results page.

python -m benchmarks.flicker runs/walker runs/frame-by-frame --split val --into docs/results/dance.md

Flicker is the mean change from frame to frame, in levels of 0 to 255, of the pixels that stay as they are in the real
frames. A run that takes the frame before is given its own last frame, as in `fewpair predict`.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from benchmarks.model_page import between_markers
from trainer.data.dataset import Dataset, Sample, resized
from trainer.data.loader import photo_to_uint8, prepared
from trainer.methods.base import Method
from trainer.metrics.predict import Size, evaluating, predict_photos
from trainer.training.checkpointing import load_method, open_run

STILL = 1
"""The most levels by which a real pixel differs from the one before where it counts as unchanged."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--into", type=Path, required=True)
    options = parser.parse_args()
    lines = ["| run | method | steps | seed | frames | flicker | change of moving pixels (real) | error |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for path in options.runs:
        folder = open_run(path)
        dataset = folder.dataset()
        clip = [sample for sample in dataset.samples(options.split) if sample.complete]
        method, run, step = load_method(path, checkpoint="last")
        real = np.stack([resized(dataset.read_photo(sample), run.size) for sample in clip]).astype(float)
        made = frames(method, dataset, clip, run.size).astype(float)
        still = np.stack([abs(one - other).max(-1) <= STILL for one, other in pairwise(real)])
        change, own = (np.stack([abs(one - other).mean(-1) for one, other in pairwise(each)]) for each in (made, real))
        figures = f"{change[still].mean():.2f} | {change[~still].mean():.1f} ({own[~still].mean():.1f})"
        error = f"{abs(made - real).mean():.2f}"
        lines.append(f"| `{path.name}` | {run.method} | {step} | {run.seed} | {len(clip)} | {figures} | {error} |")
        print(lines[-1], flush=True)
    between_markers(options.into, "flicker", "\n".join(lines))


def frames(method: Method, dataset: Dataset, clip: list[Sample], size: Size) -> np.ndarray:
    """The frames uint8[N,h,w,3] of a clip, one after the other."""
    labels = [dataset.read_label(sample) for sample in clip]
    if not method.takes_previous:
        return np.concatenate([predict_photos(method, [label], size=size, draws=[0]) for label in labels])
    made: list[np.ndarray] = []
    with evaluating(method, "cpu"):
        photo = torch.zeros(1, 3, *size)
        for label in labels:
            photo = method.next_photo(prepared(label, size)[None], photo)
            made.append(photo_to_uint8(photo)[0])
    return np.stack(made)


if __name__ == "__main__":
    main()
