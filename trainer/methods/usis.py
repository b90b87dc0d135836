"""USIS of Eskandar et al. 2022: photos from label maps without a single pair; a segmenter reads back what the generator paints."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainer import losses, semantic_losses
from trainer.batch import Batch, Domain, Photo
from trainer.methods.base import Player, Update, constant
from trainer.methods.from_labels import GENERATORS, FromLabels, GeneratorName
from trainer.networks.first_weights import FirstWeights, redraw
from trainer.networks.segmenting_discriminator import SegmentingDiscriminator
from trainer.networks.spade import NOISE, Norm
from trainer.networks.swagan import SwaganDiscriminator


@dataclass(frozen=True)
class Config:
    """The choices of `usis`; the defaults are the paper's (section 4)."""

    width: int = 64
    """Channels of the last layer of generator and segmenter, and of the first of the discriminator."""
    generator: GeneratorName = "wavelet"
    """wavelet: waveletSPADE. oasis: OASIS's."""
    norm: Norm = "batch"
    """batch: as published, synchronised between processes. instance: for batches of one."""
    noise: int = NOISE
    """Channels of the noise z."""
    segmentation: float = 1.0
    """Weight of the segmenter's word for the generator."""
    r1: float = 10.0
    """gamma of the gradient penalty on real photos."""
    r1_every: int = 16
    """Steps between penalties, each of which weighs as much more."""
    lr: float = 1e-4
    """Learning rate of the generator's Adam, constant."""
    lr_discriminator: float = 1e-4
    """The same for the segmenter and the discriminator; the released code has 4e-4 and 2e-3."""
    ema: float = 0.9999
    """Decay of the generator's running average."""
    first_weights: FirstWeights = "torch"
    """torch: what carries spectral norm begins as torch's convolutions do. xavier: as released, small like the rest."""


class Usis(FromLabels):
    """L_G = segmentation CE(S(G(m, z)), m) + softplus(-D_u(G(m, z))); S minimises its cross-entropy on the same photos, with the generator.

    D_u tells photos from generated ones, with a lazy R1 penalty. Order: generator, segmenter, discriminator. Pairs are not read, and photos
    and labels of a step are drawn independently (in the released code they show the same scene).
    """

    config_class = Config
    multiple_of = SegmentingDiscriminator.multiple_of
    config: Config

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        self.noise_shape = (config.noise,)
        self.generator = GENERATORS[config.generator](self.channels, width=config.width, norm=config.norm, noise=config.noise)
        self.segmenter = SegmentingDiscriminator(self.channels, width=config.width)
        self.critic = SwaganDiscriminator(size=size, width=config.width, from_rgb=1)
        redraw(config.first_weights, self.generator, self.segmenter)

    def players(self) -> dict[str, Player]:
        lr, betas = self.config.lr_discriminator, (0.0, 0.999)
        return {
            "generator": Player((self.generator,), self.config.lr, betas, constant, self.config.ema),
            "segmenter": Player((self.segmenter,), lr, betas, constant, None),
            "critic": Player((self.critic,), lr, betas, constant, None),
        }

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"unpaired"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        photo, label = batch.unpaired.photo, batch.unpaired.label
        weights = semantic_losses.class_weights(label, self.channels)
        fake = self.generated(label, i, "generator")
        yield Update(
            "generator",
            {
                "segmentation": self.config.segmentation * semantic_losses.segmentation(self.segmenter(fake), label, weights),
                "adversarial": losses.cross_entropy_logits(self.critic(fake), real=True),
            },
        )

        with torch.no_grad():
            fake = self.generated(label, i, "segmenter")
        yield Update("segmenter", {"segmentation": semantic_losses.segmentation(self.segmenter(fake), label, weights)})
        # the generator has not moved since, so the same photos serve
        yield Update("critic", critic_losses(self.critic, photo, fake, i=i, gamma=self.config.r1, every=self.config.r1_every))


def critic_losses(critic: SwaganDiscriminator, photo: Photo, fake: Photo, *, i: int, gamma: float, every: int) -> dict[str, Tensor]:
    """softplus(D_u(fake)) + softplus(-D_u(photo)), and in every `every`-th step R1 (USIS, Eq. 5; gamma 0 or every 0: never)."""
    terms = {
        "real": losses.cross_entropy_logits(critic(photo), real=True),
        "fake": losses.cross_entropy_logits(critic(fake), real=False),
    }
    if gamma and every and i % every == 0:
        terms["r1"] = semantic_losses.lazy_r1(critic, photo, gamma=gamma, every=every)
    return terms
