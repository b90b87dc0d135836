"""pix2pix (Isola et al. 2017): one translator from pairs alone, against a conditional discriminator."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from trainer import losses
from trainer.batch import Batch, Domain
from trainer.methods.base import Direction, ParameterGroup, Update
from trainer.methods.translator import NetworksConfig, Translator
from trainer.networks.patchgan import PatchGAN, smallest_side


@dataclass(frozen=True)
class Config(NetworksConfig):
    """The choices of `pix2pix`; the defaults are the hybrid paper's baseline (ResNet, relativistic GAN loss)."""

    direction: Literal["to_label", "to_photo"] = "to_label"
    """What the one generator makes."""
    gan_loss: losses.GanLossName = "relativistic"
    """The adversarial loss: relativistic is the hybrid paper's, vanilla pix2pix's own."""
    distance: losses.Distance = "l1"
    """Of an output from its pair: l1 (the paper), l2, or half of each (the UCSD report); on colours and photos."""
    reconstruction: float = 100.0
    """lambda, on the distance of the pairs."""
    pairs_cross_entropy: float = 20.0
    """With label_as=classes, stands for lambda on the label side: the hybrid's ratio of the two weights."""


class Pix2Pix(Translator):
    """G against D(input, output) on the pairs: L = L_cGAN + lambda L1 (Isola et al., Eq. 4); the discriminator first.

    The paper's network is generator=unet with norm=batch and gan_loss=vanilla. # Unlike the paper: no dropout at test
    time; batch norm then has each picture's own statistics.
    """

    config_class = Config

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.directions = frozenset({config.direction})
        self.generator = self.build_generator(config.direction, name=config.generator, levels=config.levels)
        self.discriminator = PatchGAN(3 + self.channels, width=config.width, patch=config.patch, norm=config.norm)
        self.multiple_of, self.smallest = self.generator.multiple_of, smallest_side(config.patch)

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        return {
            "discriminator": self.adam(self.discriminator, ema=False),
            "generator": self.adam(self.generator, ema=True),
        }

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config, gan = self.config, losses.GAN_LOSSES[self.config.gan_loss]
        photo, label = batch.paired.photo, batch.paired.label
        drawn = self.encode(label)
        real = torch.cat([photo, drawn], 1)
        if config.direction == "to_label":
            output = self.generator(photo)
            fake = torch.cat([photo, self.probabilities(output).to(photo.dtype)], 1)
        else:
            output = self.generator(drawn)
            fake = torch.cat([output.to(photo.dtype), drawn], 1)

        adversarial = gan.discriminator(self.discriminator(real), self.discriminator(fake.detach()))
        yield Update("discriminator", {"adversarial": adversarial})

        if config.direction == "to_label":
            weight = config.pairs_cross_entropy if self.as_scores else config.reconstruction
            pairs = weight * self.label_distance(output, label, config.distance)
        else:
            pairs = config.reconstruction * losses.difference(output, photo, kind=config.distance)
        adversarial = gan.generator(self.discriminator(fake), gan.real_logits(self.discriminator, real))
        yield Update("generator", {"adversarial": adversarial, "pairs": pairs})

    def network(self, direction: Direction) -> nn.Module | None:
        return self.generator if direction in self.directions else None
