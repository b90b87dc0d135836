"""USIS of Eskandar et al. 2022: photos from label maps without pairs; a segmenter reads generated photos back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import losses
from trainer.batch import Batch, Domain, Photo
from trainer.methods.base import Update
from trainer.methods.from_labels import GENERATORS, FromLabels, UnpairedConfig
from trainer.networks.init import initialise
from trainer.networks.segmenting_discriminator import SegmentingDiscriminator
from trainer.networks.swagan import SwaganDiscriminator


@dataclass(frozen=True)
class Config(UnpairedConfig):
    """The choices of `usis`; the defaults are the paper's (section 4). The learning rates are constant."""

    segmentation: float = 1.0
    """Weight of the segmenter's cross-entropy in the generator's loss."""


class Usis(FromLabels):
    """L_G = segmentation CE(S(G(m, z)), m) + softplus(-D_u(G(m, z))); S minimises its CE on the same photos.

    D_u tells photos from generated ones, with a lazy R1 penalty. Order: generator, segmenter, discriminator. Pairs are
    not read, and photos and labels of a step are drawn independently (in the released code they show the same scene).
    """

    config_class = Config
    reads = frozenset({"unpaired photos", "unpaired label maps"})
    multiple_of = SegmentingDiscriminator.multiple_of
    opponents = ("segmenter", "discriminator")
    config: Config

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.generator = GENERATORS[config.generator](
            self.channels, width=config.width, norm=config.norm, noise=config.noise
        )
        self.segmenter = SegmentingDiscriminator(self.channels, width=config.width)
        self.discriminator = SwaganDiscriminator(size=size, width=config.width)
        initialise(config.initialisation, self.generator, self.segmenter)

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        photo, label = batch.unpaired.photo, batch.unpaired.label
        weights = losses.class_weights(label, self.channels)
        fake = self.generated(label, i, "generator")
        terms = {
            "segmentation": self.config.segmentation * losses.segmentation(self.segmenter(fake), label, weights),
            "adversarial": losses.logistic(self.discriminator(fake), real=True),
        }
        yield Update("generator", terms)

        with torch.no_grad():
            fake = self.generated(label, i, "segmenter")
        yield Update("segmenter", {"segmentation": losses.segmentation(self.segmenter(fake), label, weights)})
        # the generator has not moved since, so the same photos serve
        yield Update("discriminator", unconditional_losses(self.discriminator, photo, fake, i, self.config))


def unconditional_losses(
    discriminator: Callable[[Photo], Tensor], photo: Photo, fake: Photo, i: int, config: UnpairedConfig
) -> dict[str, Tensor]:
    """softplus(D_u(fake)) + softplus(-D_u(photo)), and in every `r1_every`-th step R1 (USIS, Eq. 5; r1 0: never)."""
    terms = {
        "real": losses.logistic(discriminator(photo), real=True),
        "fake": losses.logistic(discriminator(fake), real=False),
    }
    if config.r1 and i % config.r1_every == 0:
        terms["r1"] = losses.lazy_r1(discriminator, photo, gamma=config.r1, every=config.r1_every)
    return terms
