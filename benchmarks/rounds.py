"""Mean IoU of one small segmenter on the photos that each selection rule picks (docs/results/selection.md).

python -m benchmarks.rounds --root CAMVID --results rounds.jsonl

One JSON line for each run; called again it goes on with the runs that are missing, and prints the tables. `uncertain`
begins with the photos of `typical` and adds, in each round, those that the segmenter of the round before is not sure
of. The segmenter classifies pixels by frozen features (trainer/metrics/quick.py).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from serving.imaging.ranking import rank
from trainer.data.catalogue import open_dataset
from trainer.data.dataset import Dataset, resized
from trainer.data.loader import prepared
from trainer.data.selection.choose import select
from trainer.data.selection.features import open_features
from trainer.data.selection.rules import BY_FEATURES
from trainer.metrics.evaluate import classes_of
from trainer.metrics.quick import SIZE, Maps, QuickSegmenter, encoded
from trainer.metrics.segmentation import Confusion

RULES, COUNTS, SPLITS = ("random", "kmeans-medoid", "typical", "uncertain"), (5, 10, 20, 40), ("val", "devtest")
Line = dict[str, Any]
Key = tuple[str, int, int]


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--results", type=Path, required=True, help="a JSON line for each run is added here")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dataset = open_dataset("camvid", asked.root)
    train, cache = dataset.samples("train"), asked.results.parent / "features"
    features = open_features(None).of_samples(dataset, train, cache=cache)
    sides = {split: read(dataset, split) for split in ("train", *SPLITS)}
    lines = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results.exists() else []
    done: dict[Key, Line] = {(line["rule"], line["k"], line["seed"]): line for line in lines}
    for seed in range(asked.seeds):
        for k in COUNTS:
            for rule in RULES:
                if (rule, k, seed) in done or (rule == "uncertain" and k == COUNTS[0]):
                    continue
                if rule == "uncertain":
                    before = done[("typical" if k == COUNTS[1] else rule, k // 2, seed)]
                    unsure = np.array(before["uncertainty"])
                    rows = before["rows"] + rank(features, unsure, k - k // 2, labelled=before["rows"])[0]
                elif rule == "random":
                    rows = [train.index(pair) for pair in select(dataset, k=k, unpaired=0, seed=seed).pairs]
                else:
                    rows = BY_FEATURES[rule](features, k, seed)
                goes_on = rule == "uncertain" or (rule == "typical" and k == COUNTS[0])
                found = measured(dataset, sides, rows, seed, unsure=goes_on)
                line = {"rule": rule, "k": k, "seed": seed, "rows": rows, **found}
                with asked.results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                done[(rule, k, seed)] = line
                print(rule, k, seed, line["val"], line["devtest"], flush=True)
    for split in SPLITS:
        print(table(done, split, asked.seeds))


def read(dataset: Dataset, split: str) -> tuple[list[Maps], list[Tensor]]:
    """The features and the labels of a split."""
    samples = dataset.samples(split)
    labels = [prepared(dataset.read_label(sample), SIZE) for sample in samples]
    return encoded(map(dataset.read_photo, samples)), labels


def measured(
    dataset: Dataset, sides: dict[str, tuple[list[Maps], list[Tensor]]], rows: Sequence[int], seed: int, *, unsure: bool
) -> Line:
    """Train on these rows of `train`: mean IoU of val and devtest, the mean uncertainty of all photos of `train`."""
    classes = classes_of(dataset.label_domain)
    photos, labels = sides["train"]
    chosen = [photos[row] for row in rows], [labels[row] for row in rows]
    segmenter = QuickSegmenter(*chosen, classes=classes.count, seed=seed)
    found: Line = {}
    for split in SPLITS:
        confusion = Confusion(classes)
        for photo, label in zip(*sides[split], strict=True):
            predicted = segmenter.probabilities(photo).argmax(0).astype(np.uint8)
            confusion.add(label.numpy(), resized(predicted, SIZE))
        found[split] = confusion.mean_iou
    if unsure:
        found["uncertainty"] = [float(1 - segmenter.probabilities(photo).max(0).mean()) for photo in photos]
    return found


def table(done: dict[Key, Line], split: str, seeds: int) -> str:
    """Mean and standard deviation over the seeds, as Markdown; `uncertain` begins with `typical`."""
    text = [f"| {split} | " + " | ".join(f"k = {k}" for k in COUNTS) + " |", "|---" * (len(COUNTS) + 1) + "|"]
    for rule in RULES:
        cells = []
        for k in COUNTS:
            key = "typical" if rule == "uncertain" and k == COUNTS[0] else rule
            values = [done[(key, k, seed)][split] for seed in range(seeds) if (key, k, seed) in done]
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3f}{spread}" if values else "-")
        text.append(f"| `{rule}` | " + " | ".join(cells) + " |")
    return "\n".join([*text, ""])


if __name__ == "__main__":
    main()
