"""CC-FPSE: a generator with kernels predicted from the label map, and a discriminator with a feature pyramid."""

import operator
from functools import reduce
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, pad
from torch.utils.checkpoint import checkpoint

from trainer.batch import OneHot, Photo
from trainer.networks.init import SpectralConv2d
from trainer.networks.spade import Norm, Spade, doubled, every


class CcFpseGenerator(nn.Module):
    """Label map -> photo, without noise: seven conditional blocks (Liu et al. 2019).

    label Float[B,channels,H,W] one-hot -> Float[B,3,H,W] in (-1,1). H and W are multiples of 32, or, with `more` (the
    published choice for 256x512: one doubling more, between the two middle blocks), of 64. At full width (64) there
    are 119 940 867 parameters for 36 channels with `more`. `recompute`: see `ConditionalConv`.
    """

    def __init__(self, channels: int, *, width: int, norm: Norm, more: bool, recompute: bool) -> None:
        super().__init__()
        self.more = more
        self.multiple_of = 64 if more else 32
        self.layout = LayoutPyramid(channels, width=width, levels=7 if more else 6, norm=norm)
        steps = [width * factor for factor in (16, 16, 16, 16, 8, 4, 2, 1)]
        # Unlike the paper: the start is a convolution of the label map, the released code's where there is no encoder
        # of styles, not noise. Its test scripts encode that noise from the real photo of the test sample.
        self.start = nn.Conv2d(channels, steps[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            ConditionalBlock(
                before, after, condition=channels + width, hidden=2 * width, norm=norm, recompute=recompute
            )
            for before, after in pairwise(steps)
        )
        self.finish = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, label: OneHot) -> Photo:
        conditions, level = self.layout(label), 0
        features = self.start(every(label, self.multiple_of))
        for depth, block in enumerate(self.blocks):
            if depth and (depth != 2 or self.more):  # the two middle blocks are of one size, unless `more`
                features, level = doubled(features), level + 1
            features = block(features, conditions[level])
        return torch.tanh(self.finish(leaky_relu(features, 0.2)))


class LayoutPyramid(nn.Module):
    """Float[B,channels,H,W] one-hot -> conditions Float[B,channels+width,h,w], from H / 2^(levels-1) to H.

    A convolution at each size on the way down; on the way up each map is enlarged, added to a 1x1 convolution of the
    encoder's of that size, and convolved. A condition is the label map of its size ("nearest") and the map.
    """

    def __init__(self, channels: int, *, width: int, levels: int, norm: Norm) -> None:
        super().__init__()
        inner = [_layer(width, width, 3, norm=norm, stride=2) for _ in range(levels - 1)]
        self.encoder = nn.ModuleList([_layer(channels, width, 3, norm=norm), *inner])
        self.lateral = nn.ModuleList(_layer(width, width, 1, norm=norm) for _ in range(levels - 1))
        self.decoder = nn.ModuleList(_layer(width, width, 3, norm=norm) for _ in range(levels - 1))

    def forward(self, label: OneHot) -> list[Tensor]:
        *finer, coarsest = list(accumulate(self.encoder, lambda features, layer: layer(features), initial=label))[1:]
        maps = [coarsest]
        for lateral, smooth, skip in zip(self.lateral, self.decoder, reversed(finer), strict=True):
            maps.append(smooth(doubled(maps[-1]) + lateral(skip)))
        return [torch.cat([every(label, 2**depth), each], 1) for depth, each in enumerate(reversed(maps))][::-1]


class ConditionalBlock(nn.Module):
    """shortcut(x) + two conditional convolutions, Float[B,before,h,w] -> Float[B,after,h,w] (their CC block).

    The shortcut is x where the channels stay, else a 1x1 convolution, with spectral norm, of SPADE(x).
    """

    def __init__(self, before: int, after: int, *, condition: int, hidden: int, norm: Norm, recompute: bool) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = (
            ConditionalConv(each, after, condition=condition, hidden=hidden, norm=norm, recompute=recompute)
            for each in (before, after)
        )
        self.spade_shortcut: Spade | None = None
        self.conv_shortcut: nn.Conv2d | None = None
        if before != after:
            self.spade_shortcut = Spade(before, condition=condition, hidden=hidden, norm=norm)
            self.conv_shortcut = SpectralConv2d(before, after, 1, bias=False)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        inner = self.conv_2(self.conv_1(features, condition), condition)
        if self.spade_shortcut is not None and self.conv_shortcut is not None:
            features = self.conv_shortcut(self.spade_shortcut(features, condition))
        return features + inner


class ConditionalConv(nn.Module):
    """LReLU(sigmoid(g(c)) conv1x1(norm(x) * K(c))), the kernels K and the gate g predicted from the condition c.

    features Float[B,before,h,w], condition Float[B,condition,h,w] -> Float[B,after,h,w]. The kernels are nine times as
    large as the features. With `recompute` they, and all else behind the norm, are not kept in training but computed
    again for the backward pass; the norm is outside, so that its statistics move once.
    """

    def __init__(self, before: int, after: int, *, condition: int, hidden: int, norm: Norm, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        self.norm = _norm(norm, before)
        self.kernels, self.gate = (
            nn.Sequential(nn.Conv2d(condition, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, count, 3, padding=1))
            for count in (9 * before, after)
        )
        self.pointwise = nn.Conv2d(before, after, 1)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        features = self.norm(features)
        if self.recompute and self.training:
            return checkpoint(self._convolved, features, condition, use_reentrant=False, preserve_rng_state=False)
        return self._convolved(features, condition)

    def _convolved(self, features: Tensor, condition: Tensor) -> Tensor:
        features = self.pointwise(convolved(features, self.kernels(condition)))
        return leaky_relu(torch.sigmoid(self.gate(condition)) * features, 0.2)


def convolved(features: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each channel with a 3x3 kernel of its own at every pixel: sum_t K_t(p) x(p + o_t), zeros outside.

    features Float[B,C,h,w], kernels Float[B,9C,h,w]: the C channels of the first offset, top left, then those of the
    next, row by row. Nine shifted multiply-adds, which need no copies of the features as unfolding does, and export.

    # Unlike the released code: there the nine offsets of a channel are neighbours, which only renames outputs.
    """
    height, width = features.shape[2:]
    padded = pad(features, (1, 1, 1, 1))
    rows = (padded.narrow(2, top, height) for top in range(3))
    shifted = (row.narrow(3, left, width) for row in rows for left in range(3))
    return reduce(operator.add, map(operator.mul, kernels.chunk(9, 1), shifted))


class PyramidDiscriminator(nn.Module):
    """Photo Float[B,3,H,W] and label Float[B,channels,H,W] one-hot -> outputs at 1/4, 1/8 and 1/16 of the size.

    The last output of each scale is its logits Float[B,1,h,w]: a score of the pyramid's features plus their inner
    product with the label's embedding (Liu et al. 2019). Before it come the encoder's features of that
    size, after those of 1/16 also the last ones of 1/32. The trunk sees the photo alone. H and W are multiples of 32.
    At full width (64) there are 5 175 873 parameters for 36 channels.
    """

    smallest = 64
    """At 32x32 the last map has one pixel, of which instance norm leaves nothing."""

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        steps = [3, *(width * factor for factor in (1, 2, 4, 8, 8))]
        self.encoder = nn.ModuleList(_layer(before, after, 3, norm=None, stride=2) for before, after in pairwise(steps))
        self.lateral = nn.ModuleList(_layer(each, 4 * width, 1, norm=None) for each in steps[2:])
        self.smooth = nn.ModuleList(_layer(4 * width, 2 * width, 3, norm=None) for _ in range(3))
        self.score = nn.Conv2d(2 * width, 1, 1)
        self.segment = nn.Conv2d(2 * width, 2 * width, 1)
        self.embedding = nn.Conv2d(channels, 2 * width, 1)

    def forward(self, photo: Photo, label: OneHot) -> list[list[Tensor]]:
        features = list(accumulate(self.encoder, lambda maps, layer: layer(maps), initial=photo))[2:]
        pyramid = [lateral(each) for lateral, each in zip(self.lateral, features, strict=True)]
        for level in (2, 1, 0):
            enlarged = interpolate(pyramid[level + 1], scale_factor=2.0, mode="bilinear", align_corners=False)
            pyramid[level] = enlarged + pyramid[level]
        answers = []
        for level, smooth in enumerate(self.smooth):
            found = smooth(pyramid[level])
            # the embedding is linear: it commutes with the mean over pixels, and there are fewer of those afterwards
            meant = self.embedding(avg_pool2d(label, 4 * 2**level))
            answers.append([features[level], self.score(found) + (meant * self.segment(found)).sum(1, keepdim=True)])
        answers[-1].insert(1, features[-1])
        return answers


def _layer(before: int, after: int, side: int, *, norm: Norm | None, stride: int = 1) -> nn.Sequential:
    convolution = SpectralConv2d(before, after, side, stride=stride, padding=side // 2, bias=False)
    return nn.Sequential(convolution, _norm(norm, after), nn.LeakyReLU(0.2))


def _norm(norm: Norm | None, channels: int) -> nn.Module:
    """Batch or instance norm with scale and shift; None: instance norm without."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels, affine=norm is not None)
