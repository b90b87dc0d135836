"""How many wrong labels `fewpair check --with RUN` finds: regions get another class, two segmenters judge them.

python -m benchmarks.wrong_labels --root CAMVID [--photos 100] [--share .05] [--seed 0]
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.figures import Figure, report
from trainer.data.catalogue import open_dataset
from trainer.metrics.evaluate import classes_of, spread
from trainer.metrics.quick import by_other_folds
from trainer.metrics.suspects import Region, regions, suspects


def main() -> None:
    """Inject errors, rank, print precision at three recalls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dataset, rng = open_dataset("camvid", asked.root), np.random.default_rng(asked.seed)
    samples = spread(dataset.samples("train"), asked.photos)
    labels = [dataset.read_label(sample) for sample in samples]
    classes = classes_of(dataset.label_domain).count
    nothing = np.zeros((classes, 1, 1), np.float32)
    found = [region for place, label in enumerate(labels) for region in regions(place, label, nothing)]
    wrong = [np.zeros(label.shape, bool) for label in labels]
    picked = [found[each] for each in rng.choice(len(found), round(asked.share * len(found)), replace=False)]
    for region in picked:
        label, inside = labels[region.place], pixels(region, labels[region.place].shape)
        others = [index for index in np.unique(label[label < classes]).tolist() if index != region.label]
        label[inside], wrong[region.place][inside] = rng.choice(others), True
    photos = map(dataset.read_photo, samples)
    predicted = by_other_folds(photos, labels, (192, 256), classes=classes, folds=2, seed=asked.seed)
    judged = [region for place, each in enumerate(predicted) for region in regions(place, labels[place], each)]
    ranked = [each.region for each in suspects(judged)]
    hits = np.cumsum([is_wrong(region, wrong) for region in ranked])
    total, figures = sum(is_wrong(region, wrong) for region in judged), []
    for recall in (0.25, 0.5, 0.75):
        rank = int(np.argmax(hits >= recall * total)) + 1
        reached = bool((hits >= recall * total).any())
        of = {"recall": recall, "photos": asked.photos, "seed": asked.seed, "regions": len(judged), "wrong": int(total)}
        note = f"the first {rank} suspects" if reached else "not reached"
        figures.append(Figure("precision", hits[rank - 1] / rank if reached else None, "", of, note))
    report("fewpair check --with RUN", figures)


def is_wrong(region: Region, wrong: list[np.ndarray]) -> bool:
    """Whether most of the region has a class that it was given here."""
    mask = wrong[region.place]
    return bool(mask[pixels(region, mask.shape)].mean() > 0.5)


def pixels(region: Region, shape: tuple[int, ...]) -> np.ndarray:
    """The region as bool[H,W] of a map of at most 512 pixels a side, which is read as it is."""
    whole, sides = np.zeros(shape, bool), zip(region.box, (shape[1], shape[0]) * 2, strict=True)
    left, top, right, bottom = (round(share * side) for share, side in sides)
    whole[top:bottom, left:right] = region.mask
    return whole


if __name__ == "__main__":
    main()
