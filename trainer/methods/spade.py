"""SPADE of Park et al.: spatially-adaptive normalisation, a multi-scale PatchGAN, from pairs alone; the baseline before OASIS."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from trainer import semantic_losses
from trainer.batch import Batch, Domain
from trainer.methods.base import Player, Update, constant_then_linear
from trainer.methods.from_labels import FromLabels
from trainer.networks.first_weights import FirstWeights, redraw
from trainer.networks.multiscale_patchgan import MultiScalePatchGAN
from trainer.networks.spade import Norm, SpadeGenerator


@dataclass(frozen=True)
class Config:
    """The choices of `spade`; the defaults are the paper's (Park et al., section 4, appendix A)."""

    width: int = 64
    """Channels of the generator's last layer and of the discriminators' first."""
    norm: Norm = "batch"
    """batch: as published, synchronised between processes. instance: for batches of one."""
    more: bool = False
    """One doubling more in the generator: the paper's for 256x512."""
    scales: int = 2
    """Discriminators, each on pictures half as large as the one before."""
    feature_matching: float = 10.0
    """Weight of the L1 distance in the discriminators' features."""
    perceptual: float = 10.0
    """Weight of the VGG loss."""
    vgg: str | None = None
    """VGG-19's weights for it, a file; None: torchvision's, fetched once."""
    lr: float = 1e-4
    """Learning rate of the generator's Adam, constant over the first half of the steps, then linear to zero."""
    lr_discriminator: float = 4e-4
    """The same for the discriminators."""
    ema: float = 0.999
    """Decay of the generator's running average (ours; the paper evaluates the weights themselves: --weights raw)."""
    first_weights: FirstWeights = "torch"
    """torch: what carries spectral norm begins as torch's convolutions do. xavier: as released, small like the rest."""


class Spade(FromLabels):
    """L_G = -D(G(m), m) + feature_matching L_fm + perceptual L_vgg against the hinge loss of D(x, m) and D(G(m), m).

    The generator moves first; the discriminators then see new photos of it. There is no noise and no encoder of styles.
    """

    config_class = Config
    config: Config

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        self.generator = generator = SpadeGenerator(self.channels, width=config.width, norm=config.norm, more=config.more)
        self.multiple_of = generator.multiple_of
        self.critic = MultiScalePatchGAN(self.channels, width=config.width, scales=config.scales)
        redraw(config.first_weights, self.generator, self.critic)

    def players(self) -> dict[str, Player]:
        config, betas = self.config, (0.0, 0.9)
        return {
            "generator": Player((self.generator,), config.lr, betas, constant_then_linear, config.ema),
            "critic": Player((self.critic,), config.lr_discriminator, betas, constant_then_linear, None),
        }

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config, photo, label = self.config, batch.paired.photo, batch.paired.label
        drawn = self.encode(label)
        fake = self.generator(drawn)
        judged = self.critic(fake, drawn)
        terms = {"adversarial": torch.stack([semantic_losses.minus_mean(scale[-1]) for scale in judged]).mean()}
        if config.feature_matching:
            with torch.no_grad():
                known = self.critic(photo, drawn)
            terms["feature_matching"] = config.feature_matching * semantic_losses.feature_matching_l1(known, judged)
        if self.perceptual is not None:
            terms["perceptual"] = config.perceptual * self.perceptual(fake, photo)
        yield Update("generator", terms)

        with torch.no_grad():
            fake = self.generator(drawn)
        on_real, on_fake = self.critic(photo, drawn), self.critic(fake, drawn)
        yield Update(
            "critic",
            {
                "real": torch.stack([semantic_losses.hinge(scale[-1], real=True) for scale in on_real]).mean(),
                "fake": torch.stack([semantic_losses.hinge(scale[-1], real=False) for scale in on_fake]).mean(),
            },
        )
