"""PatchGAN discriminators: those of pix2pix and BicycleGAN, and the multi-scale one of pix2pixHD and SPADE."""

from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from trainer.batch import OneHot, Photo
from trainer.networks.init import SpectralConv2d, xavier
from trainer.networks.normalisation import BatchNorm
from trainer.networks.resnet import initialise_normal

Patch = Literal[1, 16, 34, 70, 142, 286]
Norm = Literal["instance", "batch"]

LAYERS: dict[Patch, int] = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}
"""Stride-2 layers by receptive field r in pixels: r <- 2 r + 2 for each, from 7 pixels of the two last convolutions."""


class PatchGAN(nn.Module):
    """Score patches: Float[B,channels_in,H,W] -> logits Float[B,1,h,w], without sigmoid.

    `patch` is the receptive field in pixels: 70 is the papers' default, 1 the pixelGAN. The first and last convolution
    are not normalised. At width 64 and patch 70: 2 764 737 parameters with 3 channels in and instance norm, 2 768 705
    with 6 and batch norm.
    """

    def __init__(self, channels_in: int, *, width: int, patch: Patch = 70, norm: Norm = "instance") -> None:
        super().__init__()
        count = LAYERS[patch]
        side, stride, padding = (4, 2, 1) if count else (1, 1, 0)  # the pixelGAN has 1x1 convolutions alone
        stack: list[nn.Module] = [nn.Conv2d(channels_in, width, side, stride, padding), nn.LeakyReLU(0.2)]
        channels = width
        for depth in range(1, max(count, 1) + 1):
            wider, stride = width * min(2**depth, 8), 2 if depth < count else 1
            convolution = nn.Conv2d(channels, wider, side, stride, padding, bias=norm == "instance")
            stack += [convolution, (nn.InstanceNorm2d if norm == "instance" else BatchNorm)(wider), nn.LeakyReLU(0.2)]
            channels = wider
        stack.append(nn.Conv2d(channels, 1, side, padding=padding))
        self.model = nn.Sequential(*stack)
        initialise_normal(self)

    def forward(self, picture: Tensor) -> Tensor:
        return self.model(picture)


class TwoScalePatchGAN(nn.Module):
    """Photo Float[B,3,H,W] -> logits of a PatchGAN on the photo, and of one of half the width on the photo halved.

    The unconditional discriminator of BicycleGAN: 3 458 978 parameters at width 64 and patch 70.
    """

    def __init__(self, *, width: int, patch: Patch) -> None:
        super().__init__()
        self.fine = PatchGAN(3, width=width, patch=patch)
        self.coarse = PatchGAN(3, width=(width + 1) // 2, patch=patch)

    def forward(self, photo: Photo) -> tuple[Tensor, Tensor]:
        return self.fine(photo), self.coarse(halved(photo))


class MultiScalePatchGAN(nn.Module):
    """Photo Float[B,3,H,W] and label Float[B,channels,H,W] one-hot -> for each scale the outputs of five layers.

    The last output of a scale is its logits Float[B,1,h,w]. Scale s sees both pictures halved s times; with `skip` they
    were halved so often before, and the finer scales are left out. Park et al. pass real and generated photos in one
    batch; instance norm keeps samples apart, so that makes no difference. Without `spectral` (pix2pixHD) weights begin
    as N(0, 0.02), and a scale has 2 801 601 parameters at width 64 with 36 channels.
    """

    def __init__(self, channels: int, *, width: int, scales: int = 2, spectral: bool = True) -> None:
        super().__init__()
        # The name is in checkpoints.
        self.critics = nn.ModuleList(_Scale(3 + channels, width, spectral=spectral) for _ in range(scales))
        if not spectral:
            initialise_normal(self)

    def forward(self, photo: Photo, label: OneHot, *, skip: int = 0) -> list[list[Tensor]]:
        picture = torch.cat([label, photo], 1)
        answers = []
        for scale in self.critics[skip:]:
            answers.append(scale(picture))
            picture = halved(picture)
        return answers


class _Scale(nn.Module):
    """Stride-2 convolutions (k4 p2) to 1, 2, 4 times the width, stride 1 to 8 times, then a logit per patch."""

    def __init__(self, channels: int, width: int, *, spectral: bool) -> None:
        super().__init__()
        convolution = SpectralConv2d if spectral else nn.Conv2d
        first = nn.Sequential(xavier(nn.Conv2d(channels, width, 4, stride=2, padding=2)), nn.LeakyReLU(0.2))
        inner = [
            nn.Sequential(
                # instance norm removes the bias, which pix2pixHD has
                convolution(width * before, width * after, 4, stride=stride, padding=2, bias=not spectral),
                nn.InstanceNorm2d(width * after),
                nn.LeakyReLU(0.2),
            )
            for before, after, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1))
        ]
        self.layers = nn.ModuleList([first, *inner, xavier(nn.Conv2d(8 * width, 1, 4, padding=2))])

    def forward(self, picture: Tensor) -> list[Tensor]:
        return list(accumulate(self.layers, lambda features, layer: layer(features), initial=picture))[1:]


def halved(picture: Tensor) -> Tensor:
    """Float[B,C,H,W] -> Float[B,C,H/2,W/2]: 3x3 means about every second pixel, without the padding (pix2pixHD)."""
    return avg_pool2d(picture, 3, stride=2, padding=1, count_include_pad=False)


def smallest_side(patch: Patch) -> int:
    """Return the least height and width that leave the last norm more than one value and the map one logit."""
    return 3 * 2 ** LAYERS[patch] if LAYERS[patch] else 2
