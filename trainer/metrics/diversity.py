"""Diversity of methods with noise: the distance between photos of one label map, beside that of real photos."""

from functools import partial
from itertools import cycle, islice

import numpy as np

from trainer.batch import random
from trainer.data.dataset import Dataset, resized
from trainer.methods.base import Method
from trainer.metrics.evaluate import Scope, labelled, mean_distance, spread
from trainer.metrics.predict import predict_photos
from trainer.metrics.segmentation import Figures
from trainer.progress import progress_bar

LABELS = 20
"""The most label maps that photos are generated from."""


def diversity(method: Method, dataset: Dataset, scope: Scope, *, seeds: int) -> Figures:
    """Return the mean distance in levels between `seeds` photos of one label map, over at most 20 label maps.

    `..._on_real` is the same mean over as many groups of real photos; None if the split has only one photo.
    """
    every = labelled(dataset, scope.split)
    samples = spread(every, min(scope.limit or LABELS, LABELS))
    bar = progress_bar(samples, what=f"diversity, {scope.split}", unit="sample", shown=scope.progress)
    generated = []
    for index, sample in enumerate(bar):
        labels = [dataset.read_label(sample)]
        made = partial(predict_photos, method, labels, size=scope.size, draws=[index], device=scope.device)
        generated.append(mean_distance(made(stream=f"diversity-{seed}")[0] for seed in range(seeds)))
    order = random(0, 0, "real photos").permutation(len(every))[: len(generated) * seeds]
    photos = [resized(dataset.read_photo(every[place]), scope.size) for place in order]
    size, endless = min(seeds, len(photos)), cycle(photos)
    real = [mean_distance(list(islice(endless, size))) for _ in generated] if size > 1 else []
    return {
        "diversity_l1_levels": float(np.mean(generated)),
        "diversity_l1_levels_on_real": float(np.mean(real)) if real else None,
    }
