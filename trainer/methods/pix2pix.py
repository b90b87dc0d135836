"""pix2pix (Isola et al. 2017): one translator from pairs alone, against a conditional discriminator."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainer import losses
from trainer.batch import Batch, Domain, LabelMap, Photo, Scores
from trainer.games import GAMES, GameName
from trainer.methods.base import Method, Player, Update, constant_then_linear
from trainer.methods.label_side import LabelAs, LabelSide
from trainer.networks.generators import GeneratorName, generator_named
from trainer.networks.patchgan import Norm, Patch, PatchGAN, smallest_side


@dataclass(frozen=True)
class Config:
    """The choices of `pix2pix`; the defaults are those of the hybrid paper's baseline (ResNet generator, relativistic game)."""

    direction: Literal["to_label", "to_photo"] = "to_label"
    """What the one generator makes."""
    width: int = 64
    """Channels of the first layer of generator and discriminator."""
    blocks: int = 9
    """Residual blocks of the ResNet generator."""
    generator: GeneratorName = "resnet"
    """resnet (the hybrid paper's), unet (pix2pix's own) or unet-no-skip."""
    levels: int = 8
    """How often a U-Net halves the picture, whose sides are multiples of 2^levels; 8 for 256x256."""
    patch: Patch = 70
    """Receptive field of the discriminator in pixels."""
    norm: Norm = "instance"
    """In the discriminator; batch is pix2pix's own."""
    label_as: LabelAs = "colours"
    """colours: label maps are RGB pictures (the paper). classes: one-hot in, logits out, cross-entropy (our own)."""
    game: GameName = "relativistic"
    """The adversarial loss: relativistic is the hybrid paper's, vanilla pix2pix's own."""
    distance: losses.Distance = "l1"
    """Of an output from its pair: l1 (the paper), l2, or half of each (the UCSD report); on colours and photos."""
    reconstruction: float = 100.0
    """lambda, on the distance of the pairs."""
    pairs_cross_entropy: float = 20.0
    """With label_as=classes, stands for lambda on the label side: the hybrid's ratio of the two weights."""
    lr: float = 2e-4
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.999
    """Decay of the generator's running average."""


class Pix2Pix(Method):
    """G against D(input, output) on the pairs: L = L_cGAN + lambda L1 (Isola et al., Eq. 4). The discriminator moves first.

    The paper's own network is generator=unet with norm=batch and game=vanilla. # Unlike the paper: no dropout at test time; batch
    norm then has each picture's own statistics, as the paper has with its test batches of one.
    """

    config_class = Config

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        self.side = side = LabelSide(label_domain, config.label_as)
        self.directions = frozenset({config.direction})
        towards_label = config.direction == "to_label"
        sizes: dict[str, Any] = {"width": config.width, "blocks": config.blocks, "levels": config.levels}
        if towards_label:
            self.generator = generator_named(config.generator, 3, side.channels, tanh=not side.as_scores, **sizes)
        else:
            self.generator = generator_named(config.generator, side.channels, 3, tanh=True, **sizes)
        self.critic = PatchGAN(3 + side.channels, width=config.width, patch=config.patch, norm=config.norm)
        self.multiple_of, self.smallest = self.generator.multiple_of, smallest_side(config.patch)

    def players(self) -> dict[str, Player]:
        lr, betas = self.config.lr, (0.5, 0.999)
        return {
            "critic": Player((self.critic,), lr, betas, constant_then_linear, None),
            "generator": Player((self.generator,), lr, betas, constant_then_linear, self.config.ema),
        }

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config, side, game = self.config, self.side, GAMES[self.config.game]
        photo, label = batch.paired.photo, batch.paired.label
        drawn = side.encode(label)
        real = torch.cat([photo, drawn], 1)
        if config.direction == "to_label":
            output = self.generator(photo)
            fake = torch.cat([photo, side.painted(output).to(photo.dtype)], 1)
        else:
            output = self.generator(drawn)
            fake = torch.cat([output.to(photo.dtype), drawn], 1)

        yield Update("critic", {"adversarial": game.critic(self.critic(real), self.critic(fake.detach()))})

        if config.direction == "to_label":
            weight = config.pairs_cross_entropy if side.as_scores else config.reconstruction
            pairs = weight * side.distance(output, label, config.distance)
        else:
            pairs = config.reconstruction * losses.difference(output, photo, kind=config.distance)
        adversarial = game.generator(self.critic(fake), game.known(self.critic, real))
        yield Update("generator", {"adversarial": adversarial, "pairs": pairs})

    def network(self, direction: Literal["to_label", "to_photo"]) -> nn.Module | None:
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
