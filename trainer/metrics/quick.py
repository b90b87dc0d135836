"""A segmenter that trains in seconds: a classifier of pixels by the features of a frozen, pretrained encoder."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate

from trainer.data.loader import prepared
from trainer.losses import cross_entropy, soft_dice
from trainer.methods.base import polynomial
from trainer.metrics.predict import Size
from trainer.networks.encoders import DEFAULT, load_encoder

SIZE, AREA = (96, 128), 192 * 256
"""Height and width at which photos are read; about how many pixels in `by_other_folds`."""
WIDTH, STEPS, BATCH, POINTS, RATE = 64, 200, 4, 128, 3e-3

Maps = list[Tensor]
"""A photo's feature maps Float[C,h,w], from stride 4 on."""


def encoded(photos: Iterable[np.ndarray], *, size: Size = SIZE) -> list[Maps]:
    """The features of photos uint8[H,W,3], one after another."""
    encoder = load_encoder(DEFAULT)
    with torch.inference_mode():
        return [[each[0].clone() for each in encoder(prepared(photo, size)[None])[1:]] for photo in photos]


class QuickSegmenter:
    """A classifier of pixels by their features at every stride (hypercolumns, Hariharan et al. 2015).

    It learns from points of photos and their labels Long[H,W], by cross-entropy + soft Dice.
    """

    def __init__(self, photos: Sequence[Maps], labels: Sequence[Tensor], *, classes: int, seed: int) -> None:
        torch.manual_seed(seed)
        channels = sum(len(each) for each in photos[0])
        hidden = [nn.BatchNorm2d(channels, affine=False), nn.Conv2d(channels, WIDTH, 1), nn.ReLU()]
        self.head = nn.Sequential(*hidden, nn.Conv2d(WIDTH, classes, 1))
        optimiser = torch.optim.Adam(self.head.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: polynomial(step, STEPS))
        for _ in range(STEPS):
            rows = torch.randint(len(photos), (BATCH,)).tolist()
            points = 2 * torch.rand(BATCH, 1, POINTS, 2) - 1
            maps = (torch.stack(level) for level in zip(*(photos[row] for row in rows), strict=True))
            features = torch.cat([grid_sample(each, points, align_corners=False) for each in maps], 1)
            label = torch.stack([labels[row][None].float() for row in rows])
            label = grid_sample(label, points, mode="nearest", align_corners=False)[:, 0].long()
            scores = self.head(features)
            (cross_entropy(scores, label) + soft_dice(scores, label)).backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
        self.head.eval()

    def probabilities(self, photo: Maps) -> np.ndarray:
        """Float32[C,h,w] at the finest map's size."""
        size = photo[0].shape[-2:]
        maps = [interpolate(each[None], size=size, mode="bilinear", align_corners=False) for each in photo]
        with torch.no_grad():
            return torch.softmax(self.head(torch.cat(maps, 1))[0], 0).numpy()


def by_other_folds(
    photos: Iterable[np.ndarray], labels: Iterable[np.ndarray], size: Size, *, classes: int, folds: int, seed: int
) -> Iterator[np.ndarray]:
    """The probabilities Float32[C,h,w] of each photo, by a segmenter that learned from the other folds' photos.

    Photos are uint8[H,W,3], labels their class indices uint8[H,W], in 2 or more folds: photo i is in fold i % folds.
    """
    maps = encoded(photos, size=size)
    learned = [prepared(label, size) for label in labels]
    rows = [[row for row in range(len(maps)) if row % folds != fold] for fold in range(folds)]
    segmenters = [
        QuickSegmenter([maps[row] for row in kept], [learned[row] for row in kept], classes=classes, seed=seed)
        for kept in rows
    ]
    return (segmenters[row % folds].probabilities(photo) for row, photo in enumerate(maps))
