"""SPADE and what is built of it: the generators of OASIS and of SPADE itself."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, linear, pad

from trainer.batch import OneHot, Photo
from trainer.networks.init import SpectralConv2d, xavier

Padding = Literal["zeros", "reflect"]
Norm = Literal["batch", "instance"]
"""batch: as published, synchronised between processes. instance: for batches of one."""

NOISE = 64
"""Channels of the published noise z."""


class SpadeGenerator(nn.Module):
    """Label map -> photo, without noise (Park et al., section 3 and appendix A): seven SPADE blocks.

    label Float[B,channels,H,W] one-hot -> Float[B,3,H,W] in (-1,1). H and W are multiples of 32, or, with `more` (the
    published choice for 256x512: one doubling more, between the two middle blocks), of 64.
    """

    def __init__(self, channels: int, *, width: int, norm: Norm, more: bool, blocks: int = 7) -> None:
        super().__init__()
        self.more = more
        self.multiple_of = 2 ** (blocks - 1) if more else 2 ** (blocks - 2)
        steps = [width * factor for factor in (16, 16, 16, 16, 8, 4, 2, 1)][-blocks - 1 :]
        self.start = xavier(nn.Conv2d(channels, steps[0], 3, padding=1))
        self.blocks = nn.ModuleList(
            SpadeBlock(before, after, condition=channels, hidden=2 * width, norm=norm)
            for before, after in pairwise(steps)
        )
        self.finish = xavier(nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, label: OneHot, noise: Tensor | None = None) -> Photo:
        condition, factor = label if noise is None else with_noise(label, noise), self.multiple_of
        features = self.start(every(condition, factor))
        for depth, block in enumerate(self.blocks):
            if depth and (depth != 2 or self.more):  # the two middle blocks are of one size, unless `more`
                features, factor = doubled(features), factor // 2
            features = block(features, every(condition, factor))
        return torch.tanh(self.finish(leaky_relu(features, 0.2)))


class OasisGenerator(SpadeGenerator):
    """Label map and noise -> photo (Schonfeld et al., section 3.2): six SPADE blocks, nearest x2 between them.

    label Float[B,channels,H,W] one-hot, noise Float[B,noise] ~ N(0,1), one vector for each image, spread over its
    pixels -> Float[B,3,H,W] in (-1,1). H and W are multiples of 32. At full width (64), with noise 64, there are
    71 107 523 parameters for 35 channels and 74 314 691 for 151. In training with batch norm a batch of one must be
    larger than 32x32.
    """

    def __init__(self, channels: int, *, width: int, norm: Norm, noise: int = NOISE) -> None:
        super().__init__(noise + channels, width=width, norm=norm, more=True, blocks=6)


class SpadeBlock(nn.Module):
    """shortcut(x) + conv(LReLU(SPADE(conv(LReLU(SPADE(x)))))), Float[B,before,h,w] -> Float[B,after,h,w]
    (Park et al., figure 4).

    The shortcut is x where the channels stay, else a 1x1 convolution of SPADE(x). The convolutions carry spectral
    norm; those inside SPADE do not. padding: torch's `padding_mode` of all.
    """

    def __init__(
        self, before: int, after: int, *, condition: int, hidden: int, norm: Norm, padding: Padding = "zeros"
    ) -> None:
        super().__init__()
        middle = min(before, after)
        self.spade_1 = Spade(before, condition=condition, hidden=hidden, norm=norm, padding=padding)
        self.conv_1 = SpectralConv2d(before, middle, 3, padding=1, padding_mode=padding)
        self.spade_2 = Spade(middle, condition=condition, hidden=hidden, norm=norm, padding=padding)
        self.conv_2 = SpectralConv2d(middle, after, 3, padding=1, padding_mode=padding)
        self.spade_shortcut: Spade | None = None
        self.conv_shortcut: nn.Conv2d | None = None
        if before != after:
            self.spade_shortcut = Spade(before, condition=condition, hidden=hidden, norm=norm, padding=padding)
            self.conv_shortcut = SpectralConv2d(before, after, 1, bias=False)

    def forward(self, features: Tensor, condition: Tensor, code: Tensor | None = None) -> Tensor:
        inner = self.conv_1(leaky_relu(self.spade_1(features, condition, code), 0.2))
        inner = self.conv_2(leaky_relu(self.spade_2(inner, condition, code), 0.2))
        if self.spade_shortcut is not None and self.conv_shortcut is not None:
            features = self.conv_shortcut(self.spade_shortcut(features, condition, code))
        return features + inner


class Spade(nn.Module):
    """norm(x) (1 + gamma(m)) + beta(m), gamma and beta maps of the condition m (Park et al., Eq. 1).

    features Float[B,channels,h,w]; condition Float[B,condition,h,w], already of the features' size (see `every`), or
    its last channels alone, after `code` Float[B,values]: channels with one value for the whole map.
    """

    def __init__(self, channels: int, *, condition: int, hidden: int, norm: Norm, padding: Padding = "zeros") -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False) if norm == "batch" else nn.InstanceNorm2d(channels)
        self.shared = xavier(nn.Conv2d(condition, hidden, 3, padding=1, padding_mode=padding))
        self.gamma = xavier(nn.Conv2d(hidden, channels, 3, padding=1, padding_mode=padding))
        self.beta = xavier(nn.Conv2d(hidden, channels, 3, padding=1, padding_mode=padding))

    def forward(self, features: Tensor, condition: Tensor, code: Tensor | None = None) -> Tensor:
        shared = torch.relu(self.shared(condition) if code is None else with_code(self.shared, condition, code))
        return self.norm(features) * (1 + self.gamma(shared)) + self.beta(shared)


def with_code(layer: nn.Conv2d, condition: Tensor, code: Tensor) -> Tensor:
    """The 3x3 convolution, with mirrored borders, of the code Float[B,values] spread over the map and the condition.

    The code's share is one number for each output channel, so it costs no convolution.
    """
    constant, varying = layer.weight.split((code.shape[1], condition.shape[1]), 1)
    spread = linear(code, constant.sum((2, 3)), layer.bias)[:, :, None, None]
    return conv2d(pad(condition, (1, 1, 1, 1), mode="reflect"), varying) + spread


def with_noise(label: OneHot, noise: Tensor) -> Tensor:
    """The noise Float[B,Z], spread over the pixels, in front of the one-hot map: Float[B,Z+S,H,W]."""
    return torch.cat([noise[:, :, None, None].expand(-1, -1, *label.shape[2:]), label], 1)


def every(condition: Tensor, factor: int) -> Tensor:
    """Every factor-th pixel, as "nearest" resizes by a whole factor. A one-hot map stays one."""
    return condition if factor == 1 else condition[:, :, ::factor, ::factor]


def doubled(features: Tensor) -> Tensor:
    """Nearest x2."""
    return interpolate(features, scale_factor=2.0, mode="nearest")
