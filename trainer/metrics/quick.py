"""A segmenter that trains in seconds: a small decoder on the features of a frozen, pretrained encoder."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainer.data.loader import prepare_photo
from trainer.losses import cross_entropy, soft_dice
from trainer.methods.base import polynomial
from trainer.metrics.predict import Size
from trainer.networks.encoders import DEFAULT, load_encoder
from trainer.networks.pyramid import PyramidDecoder

SIZE = (96, 128)
"""Height and width at which photos are read; labels are learned at half of it."""
WIDTH, BATCH, STEPS, RATE = 32, 4, 200, 3e-3

Maps = list[Tensor]
"""A photo's feature maps Float[C,h,w], from stride 4 on."""


def encoded(photos: Iterable[np.ndarray], *, size: Size = SIZE) -> list[Maps]:
    """The features of photos uint8[H,W,3], one after another."""
    encoder = load_encoder(DEFAULT)
    with torch.inference_mode():
        return [[each[0].clone() for each in encoder(prepare_photo(photo, size)[None])[1:]] for photo in photos]


class QuickSegmenter:
    """A decoder trained on the features of photos and their labels Long[H,W], by cross-entropy + soft Dice."""

    def __init__(self, photos: Sequence[Maps], labels: Sequence[Tensor], *, classes: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.decoder = PyramidDecoder(tuple(len(each) for each in photos[0]), classes, width=WIDTH)
        self.size = labels[0].shape
        optimiser = torch.optim.Adam(self.decoder.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: polynomial(step, STEPS))
        for _ in range(STEPS):
            rows = torch.randint(len(photos), (BATCH,)).tolist()
            label = torch.stack([labels[row] for row in rows])
            scores = self._scores([photos[row] for row in rows])
            (cross_entropy(scores, label) + soft_dice(scores, label)).backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()

    def probabilities(self, photo: Maps) -> np.ndarray:
        """Float32[C,H,W] at the labels' size."""
        with torch.no_grad():
            return torch.softmax(self._scores([photo])[0], 0).numpy()

    def _scores(self, photos: Sequence[Maps]) -> Tensor:
        maps = [torch.stack(level) for level in zip(*photos, strict=True)]
        return interpolate(self.decoder(maps), size=self.size, mode="bilinear", align_corners=False)
