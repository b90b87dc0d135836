"""OASIS of Schonfeld et al.: a discriminator that segments teaches a SPADE generator with noise, from pairs alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainer import semantic_losses
from trainer.batch import Batch, Domain, LabelMap, Photo, random
from trainer.methods.base import Player, Update, constant
from trainer.methods.from_labels import FromLabels
from trainer.networks.first_weights import FirstWeights, redraw
from trainer.networks.segmenting_discriminator import SegmentingDiscriminator
from trainer.networks.spade import NOISE, Norm, OasisGenerator


@dataclass(frozen=True)
class Config:
    """The choices of `oasis`; the defaults are the paper's (Schonfeld et al., sections 3 and 4, appendix A)."""

    width: int = 64
    """Channels of the last layer of the generator and of the discriminator."""
    norm: Norm = "batch"
    """batch: as published, synchronised between processes. instance: for batches of one."""
    noise: int = NOISE
    """Channels of the noise z."""
    label_mix: float = 10.0
    """Weight of the LabelMix consistency; Cityscapes has 5."""
    perceptual: float = 0.0
    """Weight of the VGG loss, which OASIS does without."""
    vgg: str | None = None
    """VGG-19's weights for it, a file; None: torchvision's, fetched once."""
    lr: float = 1e-4
    """Learning rate of the generator's Adam, constant; Cityscapes has 4e-4."""
    lr_discriminator: float = 4e-4
    """The same for the discriminator."""
    ema: float = 0.9999
    """Decay of the generator's running average; Cityscapes has 0.999."""
    first_weights: FirstWeights = "torch"
    """torch: what carries spectral norm begins as torch's convolutions do. xavier: as released, small like the rest."""


class Oasis(FromLabels):
    """L_G = CE(D(G(m, z)), m) against L_D = CE(D(x), m) + CE(D(G(m, z)), generated) + label_mix L_LM, classes balanced (Eq. 1 to 3).

    The generator moves first; the discriminator then sees new photos of the generator that has moved.
    """

    config_class = Config
    multiple_of = SegmentingDiscriminator.multiple_of
    config: Config

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        self.noise_shape = (config.noise,)
        self.generator = OasisGenerator(self.channels, width=config.width, norm=config.norm, noise=config.noise)
        self.discriminator = SegmentingDiscriminator(self.channels, width=config.width)
        redraw(config.first_weights, self.generator, self.discriminator)

    def players(self) -> dict[str, Player]:
        config, betas = self.config, (0.0, 0.999)
        return {
            "generator": Player((self.generator,), config.lr, betas, constant, config.ema),
            "discriminator": Player((self.discriminator,), config.lr_discriminator, betas, constant, None),
        }

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        yield Update("generator", self.generator_losses(batch, i))
        with torch.no_grad():
            fake = self.generated(batch.paired.label, i, "discriminator")
        bits = label_mix_bits(self.seed, i, self.classes) if self.config.label_mix else None
        yield Update(
            "discriminator",
            discriminator_losses(
                self.discriminator, batch.paired.photo, fake, batch.paired.label, bits=bits, label_mix=self.config.label_mix
            ),
        )

    def generator_losses(self, batch: Batch, i: int) -> dict[str, Tensor]:
        """What the generator minimises on the pairs."""
        photo, label = batch.paired.photo, batch.paired.label
        fake = self.generated(label, i, "generator")
        weights = semantic_losses.class_weights(label, self.channels)
        terms = {"adversarial": semantic_losses.segmentation(self.discriminator(fake), label, weights)}
        if self.perceptual is not None:
            terms["perceptual"] = self.config.perceptual * self.perceptual(fake, photo)
        return terms


def discriminator_losses(
    discriminator: SegmentingDiscriminator, photo: Photo, fake: Photo, label: LabelMap, *, bits: Tensor | None, label_mix: float
) -> dict[str, Tensor]:
    """Real photos are to be segmented, generated ones called that (Eq. 1), a mixture by `bits` answered by the mixed answers (Eq. 3)."""
    weights = semantic_losses.class_weights(label, discriminator.finish.out_channels - 1)
    on_real, on_fake = discriminator(photo), discriminator(fake)
    terms = {
        "real": semantic_losses.segmentation(on_real, label, weights),
        "fake": semantic_losses.generated_everywhere(on_fake),
    }
    if bits is not None:
        mask = semantic_losses.label_mix_mask(label, bits.to(label.device))
        on_mixed = discriminator(semantic_losses.mixed_by(mask, photo, fake.to(photo.dtype)))
        terms["label_mix"] = label_mix * semantic_losses.label_mix_consistency(on_mixed, on_real, on_fake, mask)
    return terms


def label_mix_bits(seed: int, i: int, classes: int) -> Tensor:
    """Whose pixels are taken from the real photo, Bool[C+1]: one draw for each class, and one for void, for the whole batch."""
    return torch.from_numpy(random(seed, i, "label mix").random(classes + 1) < 0.5)
