"""A method with noise that is small and whose photos can be told in advance."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer.batch import Domain, LabelMap, Photo
from trainer.methods.base import Method


@dataclass(frozen=True)
class Config:
    """How much the noise shows."""

    loudness: float = 0.2
    """Times the mean of the noise, added to the photo."""


class Noisy(Method):
    """Paints class 1 light and the rest dark, and shifts each photo's levels by its noise; makes photos alone."""

    config_class = Config
    directions = frozenset({"to_photo"})
    noise_shape = (2, 3, 4)

    def __init__(self, config: Any, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.loudness = nn.Parameter(torch.tensor(config.loudness))

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        assert noise is not None
        shade = torch.where(label == 1, 0.3, -0.3)[:, None].expand(-1, 3, -1, -1)
        return shade + self.loudness * noise.mean(dim=(1, 2, 3), keepdim=True)
