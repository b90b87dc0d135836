"""The photo encoder of BicycleGAN: residual blocks that halve the map, then mean and deviation of a code."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu

from trainer.batch import Photo


class ResidualEncoder(nn.Module):
    """Photo Float[B,3,H,W] -> mean and deviation of its code, Float[B,values] each (Zhu et al. 2017, section 4).

    A stride-2 convolution to `width` channels, `blocks` residual blocks to 2, 3, 4 and again 4 times the width, each of
    which halves the map, and its mean. H and W are multiples of 2^(blocks+1). At width 64 and with 8 values: 2 590 032
    parameters with 4 blocks, 1 344 080 with 3.

    # Unlike the released code: the mean is over the whole map, whatever its size, not over 8x8.
    """

    def __init__(self, values: int, *, width: int, blocks: int) -> None:
        super().__init__()
        channels = [width * min(level, 4) for level in range(1, blocks + 2)]
        self.start = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.blocks = nn.Sequential(*(_Block(before, after) for before, after in pairwise(channels)))
        self.mean, self.log_variance = (nn.Linear(channels[-1], values) for _ in range(2))

    def forward(self, photo: Photo) -> tuple[Tensor, Tensor]:
        features = leaky_relu(self.blocks(self.start(photo)), 0.2).mean((2, 3))
        return self.mean(features).float(), torch.exp(self.log_variance(features).float() / 2)


class _Block(nn.Module):
    """Pre-activated: two 3x3 convolutions, the map halved, and a 1x1 convolution of the halved input beside them."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(before, before, 3, padding=1)
        self.outer = nn.Conv2d(before, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)
        self.norm = nn.InstanceNorm2d(before)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.inner(leaky_relu(self.norm(features), 0.2))
        outer = self.outer(leaky_relu(self.norm(inner), 0.2))
        return avg_pool2d(outer, 2) + self.shortcut(avg_pool2d(features, 2))
