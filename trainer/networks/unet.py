"""The U-Net generator of pix2pix, with and without its skip connections, and with the noise of BicycleGAN."""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from trainer.networks.normalisation import BatchNorm
from trainer.networks.resnet import initialise_normal
from trainer.networks.spade import with_noise

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

    With `noise` it is the generator of BicycleGAN (Zhu et al. 2017, section 4): noise Float[B,noise], spread over the
    map, is beside the input of every encoder convolution, but not in the skips. Norm is then instance norm, every
    convolution has a bias, and dropout is on the decoder layers of 8 times the width outside the bottleneck, three with
    8 levels, as in the PyTorch release. 54 794 627 parameters with 8 values of noise.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, width: int, levels: int, skips: bool, tanh: bool, noise: int = 0
    ) -> None:
        super().__init__()
        self.multiple_of = 2**levels
        self.skips = skips
        self.tanh = tanh
        channels = [width * min(2**level, 8) for level in range(levels)]
        norm: type[nn.InstanceNorm2d] | type[BatchNorm] = nn.InstanceNorm2d if noise else BatchNorm
        self.encoder = nn.ModuleList(
            _layer(
                nn.Conv2d(before + noise, after, 4, stride=2, padding=1, bias=noise > 0),
                norm=norm if 0 < level < levels - 1 else None,
            )
            for level, (before, after) in enumerate(zip([channels_in, *channels], channels, strict=False))
        )
        self.decoder = nn.ModuleList()
        for depth, level in enumerate(reversed(range(levels))):
            before = channels[level] * (2 if skips and depth > 0 else 1)
            after = channels[level - 1] if level else channels_out
            transposed = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=level == 0 or noise > 0)
            dropout = depth > 0 and level > 3 if noise else depth < DROPPED and level > 0
            self.decoder.append(_layer(transposed, norm=norm if level > 0 else None, dropout=dropout))
        initialise_normal(self)

    def forward(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        features, passed = picture, []
        for level, layer in enumerate(self.encoder):
            if noise is not None:
                features = with_noise(features, noise.to(features.dtype))
            features = layer(features if level == 0 else leaky_relu(features, 0.2))
            passed.append(features)
        features = passed.pop()
        for depth, layer in enumerate(self.decoder):
            if self.skips and depth > 0:
                features = torch.cat([features, passed.pop()], 1)
            features = layer(relu(features))
        return torch.tanh(features) if self.tanh else features


def _layer(
    convolution: nn.Conv2d | nn.ConvTranspose2d,
    *,
    norm: type[BatchNorm] | type[nn.InstanceNorm2d] | None,
    dropout: bool = False,
) -> nn.Sequential:
    """A (transposed) convolution, then norm and dropout where there are any."""
    parts = (convolution, norm(convolution.out_channels) if norm else None, nn.Dropout(0.5) if dropout else None)
    return nn.Sequential(*(part for part in parts if part is not None))
