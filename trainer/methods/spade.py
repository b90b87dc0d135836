"""SPADE of Park et al.: spatially-adaptive normalisation and a multi-scale PatchGAN, from pairs alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer import losses
from trainer.batch import Batch, Domain
from trainer.methods.base import Update, constant_then_linear
from trainer.methods.from_labels import FromLabels, FromLabelsConfig
from trainer.networks.init import initialise
from trainer.networks.patchgan import MultiScalePatchGAN
from trainer.networks.spade import SpadeGenerator


@dataclass(frozen=True)
class HingeConfig(FromLabelsConfig):
    """The options that `spade` and `cc_fpse` share.

    The learning rates are constant over the first half of the steps, then linear to zero.
    """

    more: bool = False
    """One doubling more in the generator: the papers' for 256x512."""
    feature_matching: float = 10.0
    """Weight of the L1 distance in the discriminators' features."""
    perceptual: float = 10.0
    """Weight of the VGG loss."""
    vgg: str | None = None
    """VGG-19's weights for it, a file; None: torchvision's, fetched once."""
    ema: float = 0.999
    """Decay of the generator's running average (ours; the papers evaluate the weights themselves: --weights raw)."""


@dataclass(frozen=True)
class Config(HingeConfig):
    """The choices of `spade`; the defaults are the paper's (Park et al., section 4, appendix A)."""

    scales: int = 2
    """Discriminators, each on pictures half as large as the one before."""


class HingeFromLabels(FromLabels):
    """L_G = -D(G(m), m) + feature_matching L_fm + perceptual L_vgg against the hinge loss of D(x, m) and D(G(m), m).

    The generator moves first; the discriminator then sees new photos of it. There is no noise and no encoder of styles.
    """

    config: HingeConfig
    discriminator: nn.Module
    """(photo, label) -> for each scale its outputs; the last are the logits."""
    betas = (0.0, 0.9)
    schedule = staticmethod(constant_then_linear)

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config, photo, label = self.config, batch.paired.photo, batch.paired.label
        drawn = self.encode(label)
        fake = self.generator(drawn)
        on_fake = self.discriminator(fake, drawn)
        terms = {"adversarial": torch.stack([losses.negative_mean(scale[-1]) for scale in on_fake]).mean()}
        if config.feature_matching:
            with torch.no_grad():
                on_real = self.discriminator(photo, drawn)
            terms["feature_matching"] = config.feature_matching * self.feature_matching(on_real, on_fake)
        if self.perceptual is not None:
            terms["perceptual"] = config.perceptual * self.perceptual(fake, photo)
        yield Update("generator", terms)

        with torch.no_grad():
            fake = self.generator(drawn)
        on_real, on_fake = self.discriminator(photo, drawn), self.discriminator(fake, drawn)
        terms = {
            "real": torch.stack([losses.hinge(scale[-1], real=True) for scale in on_real]).mean(),
            "fake": torch.stack([losses.hinge(scale[-1], real=False) for scale in on_fake]).mean(),
        }
        yield Update("discriminator", terms)

    def feature_matching(self, on_real: Sequence[Sequence[Tensor]], on_fake: Sequence[Sequence[Tensor]]) -> Tensor:
        """L_fm between the discriminator's outputs for real photos and for generated ones."""
        return losses.feature_matching_l1(on_real, on_fake)


class Spade(HingeFromLabels):
    """The SPADE generator against PatchGANs of several scales, by the losses of `HingeFromLabels`."""

    config_class = Config
    config: Config

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.generator = SpadeGenerator(self.channels, width=config.width, norm=config.norm, more=config.more)
        self.multiple_of = self.generator.multiple_of
        self.smallest = 2 * self.multiple_of  # norms want more than one pixel at the coarsest level
        self.discriminator = MultiScalePatchGAN(self.channels, width=config.width, scales=config.scales)
        initialise(config.initialisation, self.generator, self.discriminator)
