"""CycleGAN (Zhu et al. 2017): two translators from unpaired samples alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from trainer import losses
from trainer.batch import Batch, Domain
from trainer.methods.base import ParameterGroup, PicturePool, Update
from trainer.methods.translator import NetworksConfig, Translator
from trainer.networks.patchgan import PatchGAN, smallest_side


@dataclass(frozen=True)
class Config(NetworksConfig):
    """The choices of `cyclegan`; the defaults are the paper's, with the released code's identity loss."""

    gan_loss: losses.GanLossName = "lsgan"
    """The adversarial loss."""
    cycle: float = 10.0
    """lambda, on the cycle loss."""
    cycle_distance: losses.Distance = "l1"
    """l1 (the paper), l2, or half of each; on colours and photos."""
    cycle_cross_entropy: float = 3.0
    """With label_as=classes, stands for lambda on the label side."""
    identity: float = 0.5
    """Weight of the identity loss as a share of `cycle`; only where labels are colours."""
    pool: int = 50
    """Fakes kept for each discriminator."""


class CycleGAN(Translator):
    """Two generators, two unconditional 70x70 discriminators; the generators move first, then the discriminators.

    L = LSGAN + lambda cycle L1 + 0.5 lambda identity L1, in both directions; reads the unpaired half alone.
    """

    config_class = Config
    reads = frozenset({"unpaired photos", "unpaired label maps"})

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.label_generator = self.build_generator("to_label", name=config.generator, levels=config.levels)
        self.photo_generator = self.build_generator("to_photo", name=config.generator, levels=config.levels)
        self.label_discriminator = PatchGAN(self.channels, width=config.width, patch=config.patch, norm=config.norm)
        self.photo_discriminator = PatchGAN(3, width=config.width, patch=config.patch, norm=config.norm)
        self.multiple_of, self.smallest = self.label_generator.multiple_of, smallest_side(config.patch)
        self.label_pool = PicturePool(config.pool, seed=seed, stream="pool/label")
        self.photo_pool = PicturePool(config.pool, seed=seed, stream="pool/photo")

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        return {
            "generators": self.adam(self.label_generator, self.photo_generator, ema=True),
            "discriminators": self.adam(self.label_discriminator, self.photo_discriminator, ema=False),
        }

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config, gan = self.config, losses.GAN_LOSSES[self.config.gan_loss]
        photo, label = batch.unpaired.photo, batch.unpaired.label
        drawn = self.encode(label)

        label_d, photo_d = self.label_discriminator, self.photo_discriminator
        fake_label = self.probabilities(self.label_generator(photo))
        fake_photo = self.photo_generator(drawn)
        again_photo, again_label = self.photo_generator(fake_label), self.label_generator(fake_photo)
        cycle_label = config.cycle_cross_entropy if self.as_scores else config.cycle
        terms = {
            "adversarial_label": gan.generator(label_d(fake_label), gan.real_logits(label_d, drawn)),
            "adversarial_photo": gan.generator(photo_d(fake_photo), gan.real_logits(photo_d, photo)),
            "cycle_photo": config.cycle * losses.difference(again_photo, photo, kind=config.cycle_distance),
            "cycle_label": cycle_label * self.label_distance(again_label, label, config.cycle_distance),
        }
        if not self.as_scores and config.identity > 0:
            weight = config.identity * config.cycle
            terms["identity_label"] = weight * self.label_distance(self.label_generator(drawn), label)
            terms["identity_photo"] = weight * losses.difference(self.photo_generator(photo), photo)
        yield Update("generators", terms)

        old_label, old_photo = self.label_pool(fake_label, i), self.photo_pool(fake_photo, i)
        terms = {
            "label": gan.discriminator(label_d(drawn), label_d(old_label)),
            "photo": gan.discriminator(photo_d(photo), photo_d(old_photo)),
        }
        yield Update("discriminators", terms)
