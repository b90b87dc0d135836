"""The SWAGAN discriminator (Gal et al.; the unconditional discriminator of USIS and of the semi-paired method)."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu

from trainer.batch import Photo
from trainer.errors import UserError
from trainer.networks.frozen import in_fp32
from trainer.networks.wavelet import haar, inverse_haar


class SwaganDiscriminator(nn.Module):
    """Photo Float[B,3,H,W] of the one `size` it was built for -> one logit each, Float[B,1].

    Works on wavelet coefficients down to a few pixels, with the minibatch deviation before the last layers; the first
    convolutions are 1x1, as in USIS. At width 64: 25 333 377 parameters at 256x512, 26 211 073 at 256x256.

    Raises UserError for a size that cannot be halved often enough.
    """

    def __init__(self, *, size: tuple[int, int], width: int) -> None:
        super().__init__()
        side = 2 ** round(math.log2(max(size)))
        levels = int(math.log2(side)) - 3
        self.multiple_of = 2 ** (levels + 1)
        if levels < 1 or any(length % self.multiple_of for length in size):
            unit = max(self.multiple_of, 4)
            raise UserError(
                f"the SWAGAN discriminator cannot take {size[0]}x{size[1]}: give multiples of {unit}, the larger at "
                "least 12"
            )
        steps = [_channels(side, width), *(_channels(side // 2 ** (level + 2), width) for level in range(levels))]
        self.halved = Blur(padding=1, stride=2)
        self.readers = nn.ModuleList(EqualisedConv(12, channels, 1) for channels in steps)
        self.blocks = nn.ModuleList(
            nn.Sequential(EqualisedConv(before, before, 3), EqualisedConv(before, after, 3, down=True))
            for before, after in pairwise(steps)
        )
        height, breadth = (length // self.multiple_of for length in size)
        self.last_conv = EqualisedConv(steps[-1] + 1, steps[-1], 3)
        self.last_linear = EqualisedLinear(steps[-1] * height * breadth, steps[-1])
        self.finish = EqualisedLinear(steps[-1], 1)

    def forward(self, photo: Photo) -> Tensor:
        bands = haar(photo)
        features = self.readers[0](bands)
        for reader, block in zip(list(self.readers)[1:], self.blocks, strict=True):
            bands = haar(self.halved(inverse_haar(bands)))
            features = block(features) + reader(bands)
        with in_fp32(photo):
            features = self.last_conv(with_spread(features.to(self.finish.weight.dtype)))
            return self.finish(_activated(self.last_linear(features.flatten(1))))


def with_spread(features: Tensor) -> Tensor:
    """Float[B,C,h,w] -> Float[B,C+1,h,w]: the new channel is the deviation within groups (Karras et al., section 3).

    Groups have the largest divisor of B up to 4 samples; a group of one has 1e-4, the root of the epsilon.
    """
    batch, channels, height, width = features.shape
    group = next(size for size in (4, 3, 2, 1) if batch % size == 0)
    wide = features.float().reshape(group, batch // group, channels, height, width)
    spread = (wide.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))  # one number for each group
    plane = spread.repeat(group).view(batch, 1, 1, 1).expand(-1, 1, height, width)
    return torch.cat([features, plane.to(features.dtype)], 1)


class EqualisedConv(nn.Module):
    """LReLU(conv(x, w / sqrt(fan in)) + b) sqrt 2, with w ~ N(0,1): the equalised learning rate of Karras et al.

    `down`: a blur and a stride of 2, so that each side is halved; else the size is kept.
    """

    def __init__(self, before: int, after: int, side: int, *, down: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, side, side))
        self.bias = nn.Parameter(torch.zeros(after))
        self.scale = 1 / math.sqrt(before * side * side)
        self.blur = Blur(padding=2, stride=1) if down else nn.Identity()
        self.stride, self.padding = (2, 0) if down else (1, side // 2)

    def forward(self, features: Tensor) -> Tensor:
        weight = self.weight * self.scale
        return _activated(conv2d(self.blur(features), weight, self.bias, stride=self.stride, padding=self.padding))


class EqualisedLinear(nn.Module):
    """x w^T / sqrt(fan in) + b, with w ~ N(0,1)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before))
        self.bias = nn.Parameter(torch.zeros(after))
        self.scale = 1 / math.sqrt(before)

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.linear(features, self.weight * self.scale, self.bias)


class Blur(nn.Module):
    """Each channel under the kernel [1,3,3,1] x [1,3,3,1] / 64; beyond the border there are zeros."""

    kernel: Tensor

    def __init__(self, *, padding: int, stride: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None], persistent=False)
        self.padding, self.stride = padding, stride

    def forward(self, features: Tensor) -> Tensor:
        channels = features.shape[1]
        kernel = self.kernel.expand(channels, 1, 4, 4)
        return conv2d(features, kernel, stride=self.stride, padding=self.padding, groups=channels)


def _activated(features: Tensor) -> Tensor:
    return leaky_relu(features, 0.2) * math.sqrt(2)


def _channels(side: int, width: int) -> int:
    """Channels where the picture would be `side` pixels: at full width 512 px 64, 256 128, 128 256, below 512."""
    return min(8 * width, max(1, width * 512 // side))
