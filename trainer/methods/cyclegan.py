"""CycleGAN (Zhu et al. 2017): two translators from unpaired samples alone (methods.md A.7)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from trainer import losses
from trainer.batch import Batch, Domain, LabelMap, Photo, Scores
from trainer.methods.base import Method, PicturePool, Player, Update, constant_then_linear
from trainer.methods.label_side import LabelAs, LabelSide
from trainer.networks.patchgan import PatchGAN
from trainer.networks.resnet import ResNetGenerator


@dataclass(frozen=True)
class Config:
    """The choices of `cyclegan`; the defaults are the paper's, with the released code's identity loss."""

    width: int = 64
    """Channels of the first layer of generators and discriminators."""
    blocks: int = 9
    """Residual blocks of each generator."""
    label_as: LabelAs = "colours"
    """colours: label maps are RGB pictures (the paper). classes: one-hot in, logits out, cross-entropy (our own)."""
    cycle: float = 10.0
    """lambda, on the cycle loss."""
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


class CycleGAN(Method):
    """Two generators, two unconditional 70x70 discriminators, LSGAN; the generators move first, then the discriminators.

    L = LSGAN in both directions + lambda (cycle L1 in both directions) + 0.5 lambda (identity L1); reads the unpaired half alone.
    """

    config_class = Config
    directions = frozenset({"to_label", "to_photo"})
    multiple_of = ResNetGenerator.multiple_of

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, seed=seed)
        self.side = side = LabelSide(label_domain, config.label_as)
        width, blocks = config.width, config.blocks
        self.label_generator = ResNetGenerator(3, side.channels, width=width, blocks=blocks, tanh=not side.as_scores)
        self.photo_generator = ResNetGenerator(side.channels, 3, width=width, blocks=blocks, tanh=True)
        self.label_critic = PatchGAN(side.channels, width=width)
        self.photo_critic = PatchGAN(3, width=width)
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
        config, side = self.config, self.side
        photo, label = batch.unpaired.photo, batch.unpaired.label
        drawn = side.encode(label)

        fake_label = side.painted(self.label_generator(photo))
        fake_photo = self.photo_generator(drawn)
        terms = {
            "adversarial_label": losses.least_squares(self.label_critic(fake_label), real=True),
            "adversarial_photo": losses.least_squares(self.photo_critic(fake_photo), real=True),
            "cycle_photo": config.cycle * losses.absolute_difference(self.photo_generator(fake_label), photo),
            "cycle_label": (config.cycle_cross_entropy if side.as_scores else config.cycle)
            * side.distance(self.label_generator(fake_photo), label),
        }
        if side.same_as_photo and config.identity > 0:
            weight = config.identity * config.cycle
            terms["identity_label"] = weight * side.distance(self.label_generator(drawn), label)
            terms["identity_photo"] = weight * losses.absolute_difference(self.photo_generator(photo), photo)
        yield Update("generators", terms)

        yield Update(
            "critics",
            {
                "label": _slow(self.label_critic, drawn, self.label_pool(fake_label, i)),
                "photo": _slow(self.photo_critic, photo, self.photo_pool(fake_photo, i)),
            },
        )

    def network(self, direction: Literal["to_label", "to_photo"]) -> ResNetGenerator | None:
        return self.label_generator if direction == "to_label" else self.photo_generator

    def label_scores(self, photo: Photo) -> Scores | None:
        return self.side.scores(self.label_generator(photo)) if self.side.as_scores else None

    def painted_label(self, photo: Photo) -> Photo | None:
        return self.label_generator(photo) if self.side.in_colours else None

    def to_label(self, photo: Photo) -> LabelMap | Photo:
        return self.side.decode(self.label_generator(photo))

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        return self.photo_generator(self.side.encode(label))


def _slow(critic: PatchGAN, real: Tensor, fake: Tensor) -> Tensor:
    """1/2 [(D(real) - 1)^2 + D(fake)^2]: halved, so that the discriminator learns more slowly (Zhu et al., section 4)."""
    return 0.5 * (losses.least_squares(critic(real), real=True) + losses.least_squares(critic(fake), real=False))
