"""Tripathy, Kannala, Rahtu 2018: first all pairs, then unpaired samples, with discriminators on the cycle.

An approximate reproduction: there is no released code, and the weights and the form of the GAN loss are not published.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import losses
from trainer.batch import Batch, Domain, Pairs
from trainer.errors import UserError
from trainer.methods.base import ParameterGroup, Update
from trainer.methods.translator import Translator, TranslatorConfig
from trainer.networks.patchgan import PatchGAN
from trainer.networks.resnet import ResNetGenerator


@dataclass(frozen=True)
class Config(TranslatorConfig):
    """The choices of `tripathy`; what the paper leaves open is from pix2pix (weight of L1) and CycleGAN (the rest)."""

    paired_steps: int = 20_000
    """Steps of the first phase, on the pairs alone; the paper has 50 of 200 epochs: give a quarter of the steps."""
    gan_loss: losses.GanLossName = "lsgan"
    """The adversarial loss of all four discriminators."""
    reconstruction: float = 100.0
    """On the L1 loss of the pairs."""
    cycle: float = 1.0
    """On the adversarial loss of the conditional discriminators, in both phases."""
    pairs_cross_entropy: float = 20.0
    """With label_as=classes, stands for `reconstruction` on the label side: the hybrid's ratio of the two weights."""


class Tripathy(Translator):
    """Two generators, four discriminators, two phases; generators first, then discriminators, as in CycleGAN.

    `label_discriminator` and `photo_discriminator` (the paper's D1 and D2) see a picture alone.
    `label_pair_discriminator` and `photo_pair_discriminator` (D4 and D3) see a picture beside the one it was made from,
    and change their role with the phase:

    - on pairs (x, y) they are the discriminators of a conditional GAN: y beside x against G(x) beside x;
    - on unpaired x and y they replace the cycle loss: y beside F(y) against G(F(y)) beside F(y), F the other generator.
    """

    config_class = Config
    reads = frozenset({"pairs", "unpaired photos", "unpaired label maps"})
    multiple_of = ResNetGenerator.multiple_of

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.label_generator = self.build_generator("to_label")
        self.photo_generator = self.build_generator("to_photo")
        self.label_discriminator = PatchGAN(self.channels, width=config.width)
        self.photo_discriminator = PatchGAN(3, width=config.width)
        self.label_pair_discriminator = PatchGAN(self.channels + 3, width=config.width)
        self.photo_pair_discriminator = PatchGAN(3 + self.channels, width=config.width)

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        discriminators = (each for each in self.children() if isinstance(each, PatchGAN))
        return {
            "generators": self.adam(self.label_generator, self.photo_generator, ema=True),
            "discriminators": self.adam(*discriminators, ema=False),
        }

    def check_steps(self, steps: int) -> None:
        if self.config.paired_steps >= steps:
            raise UserError(
                f"--config.paired-steps {self.config.paired_steps} of --steps {steps}: the second phase, on unpaired "
                "samples, would never begin; give a quarter of the steps, as the paper does: --config.paired-steps "
                f"{steps // 4}"
            )

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        on_pairs = i < self.config.paired_steps
        half = batch.paired if on_pairs else batch.unpaired
        gan, photo, label = losses.GAN_LOSSES[self.config.gan_loss], half.photo, self.encode(half.label)
        raw_label = self.label_generator(photo)
        fake_label, fake_photo = self.probabilities(raw_label), self.photo_generator(label)
        if on_pairs:
            label_from, photo_from = photo, label  # what each pair discriminator sees beside the picture it judges
            judged_label, judged_photo = fake_label, fake_photo
        else:
            label_from, photo_from = fake_photo, fake_label
            judged_label = self.probabilities(self.label_generator(fake_photo))
            judged_photo = self.photo_generator(fake_label)

        label_pair, fake_label_pair = _beside(label, label_from), _beside(judged_label, label_from)
        photo_pair, fake_photo_pair = _beside(photo, photo_from), _beside(judged_photo, photo_from)
        cycle = self.config.cycle
        discriminators = {  # the network, its real and its fake inputs, and its weight for the generators
            "label": (self.label_discriminator, label, fake_label, 1.0),
            "photo": (self.photo_discriminator, photo, fake_photo, 1.0),
            "label_pair": (self.label_pair_discriminator, label_pair, fake_label_pair, cycle),
            "photo_pair": (self.photo_pair_discriminator, photo_pair, fake_photo_pair, cycle),
        }
        terms = {
            f"adversarial_{name}": weight * gan.generator(network(fake), gan.real_logits(network, real))
            for name, (network, real, fake, weight) in discriminators.items()
        }
        yield Update("generators", terms | (self._pairs(half, raw_label, fake_photo) if on_pairs else {}))
        terms = {
            name: gan.discriminator(network(real.detach()), network(fake.detach()))
            for name, (network, real, fake, _) in discriminators.items()
        }
        yield Update("discriminators", terms)

    def _pairs(self, half: Pairs, raw_label: Tensor, fake_photo: Tensor) -> dict[str, Tensor]:
        """The structural terms of the first phase. Unlike the paper: no perceptual distance, its option."""
        weight = self.config.pairs_cross_entropy if self.as_scores else self.config.reconstruction
        return {
            "pairs_label": weight * self.label_distance(raw_label, half.label),
            "pairs_photo": self.config.reconstruction * losses.difference(fake_photo, half.photo),
        }


def _beside(judged: Tensor, condition: Tensor) -> Tensor:
    """Float[B,C1+C2,H,W]: a picture and the one it is said to belong to, in channels."""
    return torch.cat([judged, condition.to(judged.dtype)], 1)
