"""pix2pix (Isola et al. 2017): one translator from pairs alone, against a conditional discriminator (methods.md A.6)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from trainer import losses
from trainer.batch import Batch, Domain, LabelMap, Photo, Scores
from trainer.methods.base import Method, Player, Update, constant_then_linear
from trainer.methods.label_side import LabelAs, LabelSide
from trainer.networks.patchgan import PatchGAN
from trainer.networks.resnet import ResNetGenerator


@dataclass(frozen=True)
class Config:
    """The choices of `pix2pix`; the defaults are those of the hybrid paper's baseline (ResNet generator, relativistic game)."""

    direction: Literal["to_label", "to_photo"] = "to_label"
    """What the one generator makes."""
    width: int = 64
    """Channels of the first layer of generator and discriminator."""
    blocks: int = 9
    """Residual blocks of the generator."""
    label_as: LabelAs = "colours"
    """colours: label maps are RGB pictures (the paper). classes: one-hot in, logits out, cross-entropy (our own)."""
    game: Literal["relativistic", "vanilla"] = "relativistic"
    """The adversarial loss: the hybrid paper's, or pix2pix's own."""
    reconstruction: float = 100.0
    """lambda, on the L1 loss."""
    pairs_cross_entropy: float = 20.0
    """With label_as=classes, stands for lambda on the label side: the hybrid's ratio of the two weights."""
    lr: float = 2e-4
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.999
    """Decay of the generator's running average."""


class Pix2Pix(Method):
    """G against D(input, output) on the pairs: L = L_cGAN + lambda L1 (Isola et al., Eq. 4). The discriminator moves first.

    # Unlike the paper: no dropout and no batch statistics at test time; the hybrid paper's baseline has neither.
    """

    config_class = Config
    multiple_of = ResNetGenerator.multiple_of

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, seed=seed)
        self.side = side = LabelSide(label_domain, config.label_as)
        self.directions = frozenset({config.direction})
        towards_label = config.direction == "to_label"
        sizes: dict[str, Any] = {"width": config.width, "blocks": config.blocks}
        if towards_label:
            self.generator = ResNetGenerator(3, side.channels, tanh=not side.as_scores, **sizes)
        else:
            self.generator = ResNetGenerator(side.channels, 3, tanh=True, **sizes)
        self.critic = PatchGAN(3 + side.channels, width=config.width)

    def players(self) -> dict[str, Player]:
        lr, betas = self.config.lr, (0.5, 0.999)
        return {
            "critic": Player((self.critic,), lr, betas, constant_then_linear, None),
            "generator": Player((self.generator,), lr, betas, constant_then_linear, self.config.ema),
        }

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config, side = self.config, self.side
        photo, label = batch.paired.photo, batch.paired.label
        drawn = side.encode(label)
        real = torch.cat([photo, drawn], 1)
        if config.direction == "to_label":
            output = self.generator(photo)
            fake = torch.cat([photo, side.painted(output).to(photo.dtype)], 1)
        else:
            output = self.generator(drawn)
            fake = torch.cat([output.to(photo.dtype), drawn], 1)

        yield Update("critic", {"adversarial": self._critic_loss(self.critic(real), self.critic(fake.detach()))})

        with_real = self.critic(real).detach() if config.game == "relativistic" else None
        if config.direction == "to_label":
            weight = config.pairs_cross_entropy if side.as_scores else config.reconstruction
            pairs = weight * side.distance(output, label)
        else:
            pairs = config.reconstruction * losses.absolute_difference(output, photo)
        yield Update("generator", {"adversarial": self._generator_loss(self.critic(fake), with_real), "pairs": pairs})

    def _critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.config.game == "relativistic":
            return losses.relativistic(real, fake)
        # halved, so that the discriminator learns more slowly (Isola et al., section 3.3)
        return 0.5 * (losses.cross_entropy_logits(real, real=True) + losses.cross_entropy_logits(fake, real=False))

    def _generator_loss(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return losses.cross_entropy_logits(fake, real=True) if real is None else losses.relativistic(fake, real)

    def network(self, direction: Literal["to_label", "to_photo"]) -> ResNetGenerator | None:
        return self.generator if direction in self.directions else None

    def label_scores(self, photo: Photo) -> Scores | None:
        return self.side.scores(self.generator(photo)) if self.side.as_scores and "to_label" in self.directions else None

    def painted_label(self, photo: Photo) -> Photo | None:
        return self.generator(photo) if self.side.in_colours and "to_label" in self.directions else None

    def to_label(self, photo: Photo) -> LabelMap | Photo:
        if "to_label" not in self.directions:
            return super().to_label(photo)
        return self.side.decode(self.generator(photo))

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        if "to_photo" not in self.directions:
            return super().to_photo(label, noise)
        return self.generator(self.side.encode(label))
