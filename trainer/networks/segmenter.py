"""A small encoder-decoder for segmentation, fast enough to be trained from scratch on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

GROUPS = 8
"""Groups of every group norm; a width is a multiple of it."""


class Segmenter(nn.Module):
    """Photo Float[B,3,H,W] in [-1,1] -> logits Float[B,classes,H,W]; H and W are multiples of 16.

    Our own: four stride-2 stages of widths w to 8w, the last three with residual blocks; up to half the resolution with
    U-Net's skips (Ronneberger et al. 2015); logits enlarged bilinearly. Group norm (Wu and He 2018) keeps samples
    apart.
    """

    multiple_of = 16

    def __init__(self, classes: int, *, width: int) -> None:
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise ValueError(f"--config.width {width}: the segmenter's width is a multiple of {GROUPS}")
        wide = [width, 2 * width, 4 * width, 8 * width]
        self.stem = Convolution(3, wide[0], stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(Convolution(before, after, stride=2), *(Residual(after) for _ in range(blocks)))
            for before, after, blocks in ((wide[0], wide[1], 1), (wide[1], wide[2], 2), (wide[2], wide[3], 1))
        )
        self.merges = nn.ModuleList(Convolution(3 * beside, beside) for beside in wide[2::-1])  # what is below is 2x
        self.scores = nn.Conv2d(wide[0], classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.scores.weight, 0.0, 0.01)

    def forward(self, photo: Tensor) -> Tensor:
        features = self.stem(photo)
        skips = []
        for stage in self.stages:
            skips.append(features)
            features = stage(features)
        for merge, skip in zip(self.merges, reversed(skips), strict=True):
            features = merge(torch.cat([interpolate(features, scale_factor=2.0, mode="nearest"), skip], 1))
        return interpolate(self.scores(features), scale_factor=2.0, mode="bilinear", align_corners=False)


class Convolution(nn.Sequential):
    """conv 3x3, group norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(GROUPS, channels_out),
            nn.ReLU(),
        )


class Residual(nn.Module):
    """relu(x + [conv 3x3, norm, ReLU, conv 3x3, norm](x)) (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Convolution(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        return relu(features + self.second(self.first(features)))
