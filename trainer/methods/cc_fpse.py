"""CC-FPSE of Liu et al.: kernels predicted from the label map, and a discriminator with a feature pyramid."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import losses
from trainer.batch import Domain
from trainer.methods.spade import HingeConfig, HingeFromLabels
from trainer.networks.cc_fpse import CcFpseGenerator, PyramidDiscriminator
from trainer.networks.init import initialise


@dataclass(frozen=True)
class Config(HingeConfig):
    """The choices of `cc_fpse`; the defaults are those of the released code (Liu et al. 2019)."""

    feature_matching: float = 20.0
    """Weight of the L1 distance in the discriminator's features."""
    recompute: bool = True
    """Compute the predicted kernels again in the backward pass instead of keeping them: less memory, more time."""


class CcFpse(HingeFromLabels):
    """SPADE's losses and order with another generator and another discriminator.

    The label map enters the discriminator by a product alone.
    """

    config_class = Config
    smallest = PyramidDiscriminator.smallest
    config: Config

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.generator = CcFpseGenerator(
            self.channels, width=config.width, norm=config.norm, more=config.more, recompute=config.recompute
        )
        self.multiple_of = self.generator.multiple_of
        self.smallest = max(self.smallest, 2 * self.multiple_of)  # norms want more than one pixel at the coarsest level
        self.discriminator = PyramidDiscriminator(self.channels, width=config.width)
        initialise(config.initialisation, self.generator, self.discriminator)

    def feature_matching(self, on_real: Sequence[Sequence[Tensor]], on_fake: Sequence[Sequence[Tensor]]) -> Tensor:
        """The mean over the encoder's four layers of mean |D_l(x) - D_l(x')|."""
        real, fake = ([layer for scale in outputs for layer in scale[:-1]] for outputs in (on_real, on_fake))
        return torch.stack([losses.difference(one, other) for one, other in zip(real, fake, strict=True)]).mean()
