"""The Haar transform, and the waveletSPADE generator that lives in it (USIS, Eskandar et al.)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, pixel_shuffle, pixel_unshuffle

from trainer.batch import OneHot, Photo
from trainer.networks.init import SpectralConv2d, xavier
from trainer.networks.spade import NOISE, Norm, Spade, doubled, every, with_noise


def haar(picture: Tensor) -> Tensor:
    """Float[B,C,2h,2w] -> Float[B,4C,h,w], grouped by band: C times LL, then LH, HL, HH. Orthonormal, computed in fp32.

    Of each block [a b / c d]: LL = (a+b+c+d)/2, LH = (a+b-c-d)/2, HL = (a-b+c-d)/2, HH = (a-b-c+d)/2.
    """
    blocks = pixel_unshuffle(picture.float(), 2).unflatten(1, (picture.shape[1], 4))
    return _mixed(blocks.unbind(2), 1).flatten(1, 2).to(picture.dtype)  # B,4,C,h,w -> B,4C,h,w


def inverse_haar(bands: Tensor) -> Tensor:
    """Float[B,4C,h,w] -> Float[B,C,2h,2w], the inverse of `haar`."""
    grouped = bands.float().unflatten(1, (4, bands.shape[1] // 4))
    return pixel_shuffle(_mixed(grouped.unbind(1), 2).flatten(1, 2), 2).to(bands.dtype)  # B,C,4,h,w -> B,C,2h,2w


def _mixed(four: tuple[Tensor, ...], place: int) -> Tensor:
    """The 4x4 mixing, its own inverse, by sums and differences; the four results are stacked at axis `place`."""
    a, b, c, d = four
    top, bottom, left, right = a + b, c + d, a - b, c - d
    return torch.stack([top + bottom, top - bottom, left + right, left - right], place) / 2


class WaveletSpadeGenerator(nn.Module):
    """Label map and noise -> photo; every feature map holds wavelet coefficients, and the inverse transform comes last.

    label Float[B,channels,H,W] one-hot, noise Float[B,noise] ~ N(0,1) -> Float[B,3,H,W] in (-1,1). H and W are
    multiples of 64. At width 64 (USIS calls it 16): 54 157 356 parameters for 35 channels, 56 829 996 for 151.

    # Unlike the released code: the norm on the shortcut that it builds and never uses is not built.
    """

    multiple_of = 64

    def __init__(self, channels: int, *, width: int, norm: Norm, noise: int = NOISE) -> None:
        super().__init__()
        if width % 4:
            near = f"{width // 4 * 4} or {width // 4 * 4 + 4}" if width > 4 else "4"
            raise ValueError(f"width {width} is not a multiple of 4, and there are four wavelet bands: take {near}")
        steps = [width * factor for factor in (16, 16, 16, 8, 4, 2, 1)]
        condition = noise + channels
        self.start = xavier(nn.Conv2d(condition, steps[0], 3, padding=1))
        self.blocks = nn.ModuleList(
            WaveletSpadeBlock(before, after, condition=condition, hidden=2 * width, norm=norm)
            for before, after in pairwise(steps)
        )
        self.finish = xavier(nn.Conv2d(width, 12, 1))

    def forward(self, label: OneHot, noise: Tensor) -> Photo:
        condition = with_noise(label, noise)
        features = self.start(every(condition, 64))
        for depth, block in enumerate(self.blocks):
            inner, shortcut = block(features, every(condition, 32 >> depth))
            last = depth == len(self.blocks) - 1
            features = inner + shortcut if last else doubled(inner) + doubled_in_space(shortcut)
        return torch.tanh(inverse_haar(self.finish(features)))


class WaveletSpadeBlock(nn.Module):
    """conv(LReLU(WS(conv(LReLU(WS(x)))))) and its shortcut: x, or a 1x1 convolution of x where channels change.

    Float[B,before,h,w], a condition of twice that size -> two of Float[B,after,h,w], under spectral norm.
    """

    def __init__(self, before: int, after: int, *, condition: int, hidden: int, norm: Norm) -> None:
        super().__init__()
        middle = min(before, after)
        self.spade_1 = WaveletSpade(before, condition=condition, hidden=hidden, norm=norm)
        self.conv_1 = SpectralConv2d(before, middle, 3, padding=1)
        self.spade_2 = WaveletSpade(middle, condition=condition, hidden=hidden, norm=norm)
        self.conv_2 = SpectralConv2d(middle, after, 3, padding=1)
        self.shortcut = nn.Identity() if before == after else SpectralConv2d(before, after, 1, bias=False)

    def forward(self, features: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.conv_1(leaky_relu(self.spade_1(features, condition), 0.2))
        inner = self.conv_2(leaky_relu(self.spade_2(inner, condition), 0.2))
        return inner, self.shortcut(features)


class WaveletSpade(Spade):
    """SPADE between inverse and forward Haar transform: Float[B,channels,h,w], condition Float[B,condition,2h,2w]."""

    def __init__(self, channels: int, *, condition: int, hidden: int, norm: Norm) -> None:
        super().__init__(channels // 4, condition=condition, hidden=hidden, norm=norm)

    def forward(self, features: Tensor, condition: Tensor, code: Tensor | None = None) -> Tensor:
        return haar(super().forward(inverse_haar(features), condition, code))


def doubled_in_space(bands: Tensor) -> Tensor:
    """Enlarge the picture behind wavelet coefficients (bilinear): Float[B,4C,h,w] -> Float[B,4C,2h,2w]."""
    return haar(interpolate(inverse_haar(bands), scale_factor=2.0, mode="bilinear", align_corners=False))
