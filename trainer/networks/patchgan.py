"""The PatchGAN discriminators of pix2pix: one logit for each overlapping patch."""

from typing import Literal

from torch import Tensor, nn

from trainer.networks.normalisation import BatchNorm, InstanceNorm
from trainer.networks.resnet import initialise

Patch = Literal[1, 16, 34, 70, 142, 286]
Norm = Literal["instance", "batch"]

LAYERS: dict[Patch, int] = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}
"""n by the receptive field in pixels: r <- 2 r + 2 for each stride-2 layer, from the 7 pixels that the two last convolutions see."""


class PatchGAN(nn.Module):
    """Scores patches: Float[B,channels_in,H,W] -> logits Float[B,1,h,w]; no sigmoid.

    `patch` is the receptive field in pixels: 70 is the default of the papers, 1 the pixelGAN. The first and the last convolution are
    not normalised; a convolution before batch norm has no bias. At full width (64) and patch 70 the map of a 256x256 picture is 30x30;
    there are 2 764 737 parameters with 3 channels in and instance norm, 2 768 705 with 6 channels in and batch norm.
    """

    def __init__(self, channels_in: int, *, width: int, patch: Patch = 70, norm: Norm = "instance") -> None:
        super().__init__()
        count = LAYERS[patch]
        stack: list[nn.Module]
        if count == 0:
            stack = [
                nn.Conv2d(channels_in, width, 1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, 2 * width, 1, bias=norm == "instance"),
                _normalised(norm, 2 * width),
                nn.LeakyReLU(0.2),
                nn.Conv2d(2 * width, 1, 1),
            ]
        else:
            stack = [nn.Conv2d(channels_in, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            channels = width
            for depth in range(1, count + 1):
                wider = width * min(2**depth, 8)
                stack += [
                    nn.Conv2d(channels, wider, 4, stride=2 if depth < count else 1, padding=1, bias=norm == "instance"),
                    _normalised(norm, wider),
                    nn.LeakyReLU(0.2),
                ]
                channels = wider
            stack.append(nn.Conv2d(channels, 1, 4, padding=1))
        self.model = nn.Sequential(*stack)
        initialise(self)

    def forward(self, picture: Tensor) -> Tensor:
        return self.model(picture)


def smallest_side(patch: Patch) -> int:
    """The least height and width that leave the last norm more than one value and the map one logit."""
    return 3 * 2 ** LAYERS[patch] if LAYERS[patch] else 2


def _normalised(norm: Norm, channels: int) -> nn.Module:
    return InstanceNorm() if norm == "instance" else BatchNorm(channels)
