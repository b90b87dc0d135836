"""OASIS of Schonfeld et al.: a discriminator that segments teaches a SPADE generator with noise, from pairs alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import losses
from trainer.batch import Batch, Domain, Pairs, random
from trainer.methods.base import Update
from trainer.methods.from_labels import FromLabels, NoiseConfig
from trainer.networks.init import initialise
from trainer.networks.segmenting_discriminator import SegmentingDiscriminator
from trainer.networks.spade import OasisGenerator


@dataclass(frozen=True)
class Config(NoiseConfig):
    """The choices of `oasis`; the defaults are the paper's (Schonfeld et al., sections 3 and 4, appendix A).

    The learning rates are constant. Cityscapes has lr 4e-4, label_mix 5 and ema 0.999.
    """

    label_mix: float = 10.0
    """Weight of the LabelMix consistency."""
    perceptual: float = 0.0
    """Weight of the VGG loss, which OASIS does without."""
    vgg: str | None = None
    """VGG-19's weights for it, a file; None: torchvision's, fetched once."""


class Oasis(FromLabels):
    """L_G = CE(D(G(m, z)), m); L_D = CE(D(x), m) + CE(D(G(m, z)), generated) + label_mix L_LM (Eq. 1 to 3).

    The generator moves first; the discriminator then sees new photos of the generator that has moved.
    """

    config_class = Config
    multiple_of = SegmentingDiscriminator.multiple_of
    config: Config

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.generator = OasisGenerator(self.channels, width=config.width, norm=config.norm, noise=config.noise)
        self.discriminator = SegmentingDiscriminator(self.channels, width=config.width)
        initialise(config.initialisation, self.generator, self.discriminator)

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        yield Update("generator", self.generator_losses(batch, i))
        terms = discriminator_losses(self, self.discriminator, batch.paired, i, label_mix=self.config.label_mix)
        yield Update("discriminator", terms)

    def generator_losses(self, batch: Batch, i: int) -> dict[str, Tensor]:
        """What the generator minimises on the pairs."""
        photo, label = batch.paired.photo, batch.paired.label
        fake = self.generated(label, i, "generator")
        weights = losses.class_weights(label, self.channels)
        terms = {"adversarial": losses.segmentation(self.discriminator(fake), label, weights)}
        if self.perceptual is not None:
            terms["perceptual"] = self.config.perceptual * self.perceptual(fake, photo)
        return terms


def discriminator_losses(
    method: FromLabels, discriminator: SegmentingDiscriminator, pairs: Pairs, i: int, *, label_mix: float
) -> dict[str, Tensor]:
    """Losses of real photos, of generated ones (Eq. 1), and of their mixture by class (LabelMix, Eq. 3)."""
    photo, label = pairs.photo, pairs.label
    with torch.no_grad():
        fake = method.generated(label, i, "discriminator")
    weights = losses.class_weights(label, method.channels)
    on_real, on_fake = discriminator(photo), discriminator(fake)
    terms = {"real": losses.segmentation(on_real, label, weights), "fake": losses.generated_everywhere(on_fake)}
    if label_mix:
        # one draw for each class and for void, for the whole batch: whose pixels come from the real photo
        bits = torch.from_numpy(random(method.seed, i, "label mix").random(method.classes + 1) < 0.5)
        mask = losses.label_mix_mask(label, bits.to(label.device))
        on_mixed = discriminator(losses.mix(mask, photo, fake.to(photo.dtype)))
        terms["label_mix"] = label_mix * losses.label_mix_consistency(on_mixed, on_real, on_fake, mask)
    return terms
