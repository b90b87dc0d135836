"""Everybody Dance Now (Chan et al. 2019): frames of a person from poses, each with the frame before, by pix2pixHD."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainer.batch import LabelMap, Pairs, Photo
from trainer.methods.pix2pixhd import Config as Pix2PixHDConfig
from trainer.methods.pix2pixhd import Pix2PixHD, half
from trainer.networks.patchgan import halved


@dataclass(frozen=True)
class Config(Pix2PixHDConfig):
    """The choices of `dance`; the defaults are the released code's."""

    edges: Literal["classes", "instances", "none"] = "none"
    """Poses are pictures, which have no classes."""
    frozen_steps: int = 0
    """The released code trains both generators at once in the second stage."""
    perceptual: float = 5.0
    """Weight of the VGG loss of each of the two frames."""


class Dance(Pix2PixHD):
    """G(p_t-1, 0) and G(p_t, G(p_t-1, 0)) against discriminators that see both frames beside both poses.

    (Chan et al., section 3.2, Eq. 2 and 4.) The stages, the losses and their order are those of pix2pixHD. No network
    for faces (section 3.3).
    """

    config_class = Config
    config: Config
    frames = 2
    takes_previous = True
    sides = frozenset({"previous_photo", "previous_label"})

    def _discriminator_inputs(self, pairs: Pairs, *, resting: bool) -> tuple[Tensor, Tensor, Tensor]:
        before, now = self.encode(pairs.sides["previous_label"]), self.encode(pairs.label)
        first = self.generated(_after(torch.zeros_like(pairs.photo), before), resting=resting)
        second = self.generated(_after(first, now), resting=resting)  # the gradient flows through the first frame
        real = torch.cat([pairs.sides["previous_photo"], pairs.photo], 1)
        return real, torch.cat([first, second], 1), torch.cat([before, now], 1)

    def next_photo(self, label: LabelMap | Photo, previous: Photo) -> Photo:
        if self.enhanced:
            return self.generated(_after(previous, self.encode(label)))
        small = self.generated(_after(halved(previous), self.encode(half(label))))
        return interpolate(small, scale_factor=2.0, mode="bilinear")

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        """The frame of a pose without one before it, as at the beginning of a clip."""
        return self.next_photo(label, label.new_zeros((len(label), 3, *label.shape[-2:]), dtype=torch.float32))


def _after(previous: Photo, drawn: Tensor) -> Tensor:
    """What the generator sees: the pose and the frame before it."""
    return torch.cat([drawn, previous], 1)
