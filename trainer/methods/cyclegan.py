"""CycleGAN (Zhu et al. 2017): two translators from unpaired samples alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from trainer import losses
from trainer.batch import Batch, Domain
from trainer.games import GAMES, GameName
from trainer.methods.base import PicturePool, Player, Update, constant_then_linear
from trainer.methods.label_side import LabelAs, LabelSide
from trainer.methods.two_generators import TwoGenerators
from trainer.networks.generators import GeneratorName, generator_named
from trainer.networks.patchgan import Norm, Patch, PatchGAN, smallest_side


@dataclass(frozen=True)
class Config:
    """The choices of `cyclegan`; the defaults are the paper's, with the released code's identity loss."""

    width: int = 64
    """Channels of the first layer of generators and discriminators."""
    blocks: int = 9
    """Residual blocks of each ResNet generator."""
    generator: GeneratorName = "resnet"
    """resnet (the paper), or pix2pix's U-Net with or without skip connections (the UCSD report)."""
    levels: int = 8
    """How often a U-Net halves the picture, whose sides are multiples of 2^levels; 8 for 256x256."""
    patch: Patch = 70
    """Receptive field of the discriminators in pixels."""
    norm: Norm = "instance"
    """In the discriminators."""
    label_as: LabelAs = "colours"
    """colours: label maps are RGB pictures (the paper). classes: one-hot in, logits out, cross-entropy (our own)."""
    game: GameName = "lsgan"
    """The adversarial loss."""
    cycle: float = 10.0
    """lambda, on the cycle loss."""
    cycle_distance: losses.Distance = "l1"
    """l1 (the paper), l2, or half of each; on colours and photos."""
    cycle_cross_entropy: float = 3.0
    """With label_as=classes, stands for lambda on the label side."""
    identity: float = 0.5
    """On the identity loss, as a share of `cycle`; the term exists only where label and photo have equally many channels (colours)."""
    pool: int = 50
    """Fakes kept for each discriminator."""
    lr: float = 2e-4
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.999
    """Decay of the generators' running average."""


class CycleGAN(TwoGenerators):
    """Two generators, two unconditional 70x70 discriminators; the generators move first, then the discriminators.

    L = LSGAN in both directions + lambda (cycle L1 in both directions) + 0.5 lambda (identity L1); reads the unpaired half alone.
    """

    config_class = Config

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        self.side = side = LabelSide(label_domain, config.label_as)
        sizes: dict[str, Any] = {"width": config.width, "blocks": config.blocks, "levels": config.levels}
        self.label_generator = generator_named(config.generator, 3, side.channels, tanh=not side.as_scores, **sizes)
        self.photo_generator = generator_named(config.generator, side.channels, 3, tanh=True, **sizes)
        self.label_critic = PatchGAN(side.channels, width=config.width, patch=config.patch, norm=config.norm)
        self.photo_critic = PatchGAN(3, width=config.width, patch=config.patch, norm=config.norm)
        self.multiple_of, self.smallest = self.label_generator.multiple_of, smallest_side(config.patch)
        self.label_pool = PicturePool(config.pool, seed=seed, stream="pool/label")
        self.photo_pool = PicturePool(config.pool, seed=seed, stream="pool/photo")

    def players(self) -> dict[str, Player]:
        lr, betas = self.config.lr, (0.5, 0.999)
        return {
            "generators": Player((self.label_generator, self.photo_generator), lr, betas, constant_then_linear, self.config.ema),
            "critics": Player((self.label_critic, self.photo_critic), lr, betas, constant_then_linear, None),
        }

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"unpaired"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config, side, game = self.config, self.side, GAMES[self.config.game]
        photo, label = batch.unpaired.photo, batch.unpaired.label
        drawn = side.encode(label)

        fake_label = side.painted(self.label_generator(photo))
        fake_photo = self.photo_generator(drawn)
        again_photo, again_label = self.photo_generator(fake_label), self.label_generator(fake_photo)
        terms = {
            "adversarial_label": game.generator(self.label_critic(fake_label), game.known(self.label_critic, drawn)),
            "adversarial_photo": game.generator(self.photo_critic(fake_photo), game.known(self.photo_critic, photo)),
            "cycle_photo": config.cycle * losses.difference(again_photo, photo, kind=config.cycle_distance),
            "cycle_label": (config.cycle_cross_entropy if side.as_scores else config.cycle)
            * side.distance(again_label, label, config.cycle_distance),
        }
        if side.same_as_photo and config.identity > 0:
            weight = config.identity * config.cycle
            terms["identity_label"] = weight * side.distance(self.label_generator(drawn), label)
            terms["identity_photo"] = weight * losses.absolute_difference(self.photo_generator(photo), photo)
        yield Update("generators", terms)

        old_label, old_photo = self.label_pool(fake_label, i), self.photo_pool(fake_photo, i)
        yield Update(
            "critics",
            {
                "label": game.critic(self.label_critic(drawn), self.label_critic(old_label)),
                "photo": game.critic(self.photo_critic(photo), self.photo_critic(old_photo)),
            },
        )
