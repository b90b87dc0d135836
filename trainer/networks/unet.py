"""The U-Net generator of pix2pix, with and without its skip connections."""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from trainer.networks.normalisation import BatchNorm
from trainer.networks.resnet import initialise

DROPPED = 3
"""How many decoder layers have dropout (Isola et al., appendix 6.1.1: the first three)."""


class UNetGenerator(nn.Module):
    """`levels` stride-2 convolutions down, as many transposed ones up, each beside the features of its encoder.

    Input Float[B,channels_in,H,W], output Float[B,channels_out,H,W]: in (-1,1) where `tanh`, logits otherwise. H and W
    are multiples of 2^levels, `multiple_of`. Full width (64) with 8 levels, 3 channels in and out, has 54 413 955
    parameters, without skips 39 075 459: no convolution has a bias but the last. Batch norm follows every layer but the
    first, the bottleneck (1x1 at 256x256 and 8 levels, where a batch of one would leave nothing) and the last.

    Dropout (1/2) is on the first three decoder layers, as in the paper; in the PyTorch release it is one later. Unlike
    the paper: `eval()` turns it off, so that the output is a function of the input (see BatchNorm).
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, width: int, levels: int, skips: bool, tanh: bool
    ) -> None:
        super().__init__()
        self.multiple_of = 2**levels
        self.skips = skips
        self.tanh = tanh
        channels = [width * min(2**level, 8) for level in range(levels)]
        self.encoder = nn.ModuleList(
            _layer(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), norm=0 < level < levels - 1)
            for level, (before, after) in enumerate(zip([channels_in, *channels], channels, strict=False))
        )
        self.decoder = nn.ModuleList()
        for depth, level in enumerate(reversed(range(levels))):
            before = channels[level] * (2 if skips and depth > 0 else 1)
            after = channels[level - 1] if level else channels_out
            transposed = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=level == 0)
            self.decoder.append(_layer(transposed, norm=level > 0, dropout=depth < DROPPED and level > 0))
        initialise(self)

    def forward(self, picture: Tensor) -> Tensor:
        features, passed = picture, []
        for level, layer in enumerate(self.encoder):
            features = layer(features if level == 0 else leaky_relu(features, 0.2))
            passed.append(features)
        features = passed.pop()
        for depth, layer in enumerate(self.decoder):
            if self.skips and depth > 0:
                features = torch.cat([features, passed.pop()], 1)
            features = layer(relu(features))
        return torch.tanh(features) if self.tanh else features


def _layer(convolution: nn.Conv2d | nn.ConvTranspose2d, *, norm: bool, dropout: bool = False) -> nn.Sequential:
    """A (transposed) convolution, then batch norm and dropout where there are any."""
    parts = (convolution, BatchNorm(convolution.out_channels) if norm else None, nn.Dropout(0.5) if dropout else None)
    return nn.Sequential(*(part for part in parts if part is not None))
