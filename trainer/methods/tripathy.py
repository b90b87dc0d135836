"""Tripathy, Kannala, Rahtu 2018: first all pairs, then unpaired samples, with the cycle judged by discriminators.

An approximate reproduction: there is no released code, and the weights and the form of the game are not public.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainer import losses
from trainer.batch import Batch, Domain, Pairs
from trainer.errors import UserError
from trainer.games import GAMES, GameName
from trainer.methods.base import Player, Update, constant_then_linear
from trainer.methods.label_side import LabelAs, LabelSide
from trainer.methods.two_generators import TwoGenerators
from trainer.networks.patchgan import PatchGAN
from trainer.networks.resnet import ResNetGenerator


@dataclass(frozen=True)
class Config:
    """The choices of `tripathy`; what the paper leaves open is taken from pix2pix (the weight of L1) and CycleGAN (the rest)."""

    paired_steps: int = 20_000
    """Steps of the first phase, on the pairs alone; all later ones read unpaired samples alone. The paper: 50 of 200 epochs, so give
    a quarter of the run's steps."""
    width: int = 64
    """Channels of the first layer of generators and discriminators."""
    blocks: int = 9
    """Residual blocks of each generator."""
    label_as: LabelAs = "colours"
    """colours: label maps are RGB pictures (the paper). classes: one-hot in, logits out, cross-entropy (our own)."""
    game: GameName = "lsgan"
    """The adversarial loss of all four discriminators."""
    reconstruction: float = 100.0
    """On the L1 loss of the pairs."""
    cycle: float = 1.0
    """On the adversarial loss of the conditional discriminators, in both phases."""
    pairs_cross_entropy: float = 20.0
    """With label_as=classes, stands for `reconstruction` on the label side: the hybrid's ratio of the two weights."""
    lr: float = 2e-4
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.999
    """Decay of the generators' running average."""


class Tripathy(TwoGenerators):
    """Two generators, four discriminators, two phases. The generators move first, then the discriminators, as in CycleGAN.

    `label_critic` and `photo_critic` (the paper's D1 and D2) judge a picture alone. `label_pair_critic` and `photo_pair_critic` (D4
    and D3) judge a picture beside the one it was made from, and change their role with the phase:

    - on pairs (x, y) they play a conditional GAN: y beside x against G(x) beside x;
    - on unpaired x and y they stand for the cycle loss: y beside F(y) against G(F(y)) beside F(y), F being the other generator.
    """

    config_class = Config
    multiple_of = ResNetGenerator.multiple_of

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        self.side = side = LabelSide(label_domain, config.label_as)
        width, blocks = config.width, config.blocks
        self.label_generator = ResNetGenerator(3, side.channels, width=width, blocks=blocks, tanh=not side.as_scores)
        self.photo_generator = ResNetGenerator(side.channels, 3, width=width, blocks=blocks, tanh=True)
        self.label_critic = PatchGAN(side.channels, width=width)
        self.photo_critic = PatchGAN(3, width=width)
        self.label_pair_critic = PatchGAN(side.channels + 3, width=width)
        self.photo_pair_critic = PatchGAN(3 + side.channels, width=width)

    def players(self) -> dict[str, Player]:
        lr, betas = self.config.lr, (0.5, 0.999)
        critics = (self.label_critic, self.photo_critic, self.label_pair_critic, self.photo_pair_critic)
        return {
            "generators": Player((self.label_generator, self.photo_generator), lr, betas, constant_then_linear, self.config.ema),
            "critics": Player(critics, lr, betas, constant_then_linear, None),
        }

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs", "unpaired"})

    def check_steps(self, steps: int) -> None:
        if self.config.paired_steps >= steps:
            raise UserError(
                f"--config.paired-steps {self.config.paired_steps} of --steps {steps}: the second phase, on unpaired samples, would never "
                f"begin; give a quarter of the steps, as the paper does: --config.paired-steps {steps // 4}"
            )

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        on_pairs = i < self.config.paired_steps
        half = batch.paired if on_pairs else batch.unpaired
        game, photo, label = GAMES[self.config.game], half.photo, self.side.encode(half.label)
        raw_label = self.label_generator(photo)
        fake_label, fake_photo = self.side.painted(raw_label), self.photo_generator(label)
        if on_pairs:
            label_from, photo_from = photo, label  # what each pair critic sees beside the picture it judges
            judged_label, judged_photo = fake_label, fake_photo
        else:
            label_from, photo_from = fake_photo, fake_label
            judged_label, judged_photo = self.side.painted(self.label_generator(fake_photo)), self.photo_generator(fake_label)

        games = {  # the critic, what is real to it, what is fake
            "label": (self.label_critic, label, fake_label),
            "photo": (self.photo_critic, photo, fake_photo),
            "label_pair": (self.label_pair_critic, _beside(label, label_from), _beside(judged_label, label_from)),
            "photo_pair": (self.photo_pair_critic, _beside(photo, photo_from), _beside(judged_photo, photo_from)),
        }
        weights = {"label": 1.0, "photo": 1.0, "label_pair": self.config.cycle, "photo_pair": self.config.cycle}
        terms = {
            f"adversarial_{name}": weights[name] * game.generator(critic(fake), game.known(critic, real))
            for name, (critic, real, fake) in games.items()
        }
        yield Update("generators", terms | (self._pairs(half, raw_label, fake_photo) if on_pairs else {}))
        yield Update(
            "critics", {name: game.critic(critic(real.detach()), critic(fake.detach())) for name, (critic, real, fake) in games.items()}
        )

    def _pairs(self, half: Pairs, raw_label: Tensor, fake_photo: Tensor) -> dict[str, Tensor]:
        """The structural terms of the first phase. Unlike the paper: no perceptual (VGG) distance, which it has as an option."""
        weight = self.config.pairs_cross_entropy if self.side.as_scores else self.config.reconstruction
        return {
            "pairs_label": weight * self.side.distance(raw_label, half.label),
            "pairs_photo": self.config.reconstruction * losses.absolute_difference(fake_photo, half.photo),
        }


def _beside(judged: Tensor, condition: Tensor) -> Tensor:
    """Float[B,C1+C2,H,W]: a picture and the one it is said to belong to, in channels."""
    return torch.cat([judged, condition.to(judged.dtype)], 1)
