"""The projected discriminator: small heads on the frozen features of a pretrained encoder (Sauer et al. 2021)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trainer.distributed import sum_over_processes, world
from trainer.networks.init import SpectralConv2d

MIXED = 64
"""Channels of every mixed feature map."""


class ProjectedDiscriminator(nn.Module):
    """Feature maps of an encoder, from fine to coarse -> one map of logits Float[B,1,h,w] for each.

    The features are mixed across channels (1x1) and across scales (enlarged and added from coarse to fine, 3x3) by
    random convolutions that are never trained (sections 3.1 and 3.2); a head of two convolutions reads each mixed
    map. The encoder is the caller's: its features serve a feature loss too.

    # Unlike the paper: heads answer once a place instead of once an image, all maps are mixed to the same width, and
    # each stage is divided by the size of its features on the first real photos: those of EfficientNet-Lite are about
    # 8, where a hinge loss saturates at once.
    """

    rms: Tensor

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.across_channels = nn.ModuleList(nn.Conv2d(each, MIXED, 1, bias=False) for each in channels)
        self.across_scales = nn.ModuleList(nn.Conv2d(MIXED, MIXED, 3, padding=1, bias=False) for _ in channels)
        for convolution in [*self.across_channels, *self.across_scales]:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="linear")  # type: ignore[arg-type]
            convolution.requires_grad_(False)
        self.heads = nn.ModuleList(
            nn.Sequential(
                SpectralConv2d(MIXED, 2 * MIXED, 3, padding=1),
                nn.LeakyReLU(0.2),
                SpectralConv2d(2 * MIXED, 1, 3, padding=1),
            )
            for _ in channels
        )
        self.register_buffer("rms", torch.zeros(len(channels)))

    def calibrate(self, features: Sequence[Tensor]) -> None:
        """Take the root mean square of each map of real photos, of all processes, as its scale, once."""
        if not self.rms.any():
            squares = torch.stack([each.float().square().mean() for each in features])
            self.rms.copy_((sum_over_processes(squares) / world()).sqrt())

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        mixed: list[Tensor] = []
        above: Tensor | None = None
        layers = list(zip(self.across_channels, self.across_scales, features, self.rms, strict=True))
        for channel, scale, feature, rms in reversed(layers):
            here = channel(feature / rms)
            if above is not None:
                coarser = interpolate(above, size=here.shape[-2:], mode="bilinear", align_corners=False)
                here = (here + coarser) * math.sqrt(0.5)
            above = scale(here)
            mixed.insert(0, above)
        return [head(each) for head, each in zip(self.heads, mixed, strict=True)]


def relative_l1(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """The mean over maps of |real - fake| / |real|, means over samples and pixels; the real features are targets."""
    terms = [
        (one.detach().float() - other.float()).abs().mean() / one.detach().float().abs().mean().clamp(min=1e-6)
        for one, other in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()
