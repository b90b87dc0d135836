"""The U-Net discriminator of OASIS, which segments photos into the classes and "generated"."""

from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu

from trainer.batch import Photo, Scores
from trainer.networks.frozen import in_fp32
from trainer.networks.init import SpectralConv2d, xavier
from trainer.networks.spade import doubled


class SegmentingDiscriminator(nn.Module):
    """Photo Float[B,3,H,W] -> logits Float[B,channels+1,H,W]: 0 is "generated", k+1 semantic channel k.

    Six residual blocks down and six up, skips between them, no norm layers, spectral norm on every convolution but the
    last (Schonfeld et al., section 3.1). H and W are multiples of 64. At full width (64) there are 22 251 364
    parameters for 35 channels and 22 258 904 for 151.
    """

    multiple_of = 64

    def __init__(self, channels: int, *, width: int) -> None:
        super().__init__()
        steps = [3, *(width * factor for factor in (2, 2, 4, 4, 8, 8))]
        self.encoder = nn.ModuleList(
            ResidualBlock(before, after, resize="down", leading=depth > 0)
            for depth, (before, after) in enumerate(pairwise(steps))
        )
        after_decoder = [width * factor for factor in (8, 4, 4, 2, 2, 1)]
        joined = zip(after_decoder[:-1], reversed(steps[1:6]), strict=True)
        before_decoder = [steps[6], *(after + skip for after, skip in joined)]
        self.decoder = nn.ModuleList(
            ResidualBlock(before, after, resize="up", leading=True)
            for before, after in zip(before_decoder, after_decoder, strict=True)
        )
        self.finish = xavier(nn.Conv2d(width, channels + 1, 1))

    def forward(self, photo: Photo) -> Scores:
        return self.with_features(photo)[0]

    def with_features(self, photo: Photo) -> tuple[Scores, tuple[Tensor, ...]]:
        """The logits, in fp32, and the outputs of the twelve blocks in their order, for feature matching."""
        down = list(accumulate(self.encoder, lambda features, block: block(features), initial=photo))
        up = [self.decoder[0](down[-1])]
        for block, skip in zip(list(self.decoder)[1:], reversed(down[1:6]), strict=True):
            up.append(block(torch.cat([skip, up[-1]], 1)))
        with in_fp32(photo):
            scores = self.finish(up[-1].to(self.finish.weight.dtype))
        return scores, (*down[1:], *up)


class ResidualBlock(nn.Module):
    """[LReLU, (x2), conv, LReLU, conv, (pool)](x) + [(x2), conv 1x1 where channels change, (pool)](x).

    `leading` false leaves out the first LReLU: the first block sees the photo itself.
    """

    def __init__(self, before: int, after: int, *, resize: str, leading: bool) -> None:
        super().__init__()
        self.up = resize == "up"
        self.leading = leading
        self.conv_1 = SpectralConv2d(before, after, 3, padding=1)
        self.conv_2 = SpectralConv2d(after, after, 3, padding=1)
        self.shortcut = nn.Identity() if before == after else SpectralConv2d(before, after, 1)

    def forward(self, features: Tensor) -> Tensor:
        inner = leaky_relu(features, 0.2) if self.leading else features
        inner = self.conv_1(doubled(inner) if self.up else inner)
        inner = self.conv_2(leaky_relu(inner, 0.2))
        # A 1x1 convolution commutes with both ways of resizing, so it is taken where there are fewer pixels.
        if self.up:
            return inner + doubled(self.shortcut(features))
        return avg_pool2d(inner, 2) + self.shortcut(avg_pool2d(features, 2))
