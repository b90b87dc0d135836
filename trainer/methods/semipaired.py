"""The semi-paired method of Eskandar et al. 2023: on unpaired samples the discriminator, frozen, reads back what the generator paints."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainer import losses, semantic_losses
from trainer.batch import Batch, Domain, LabelMap, Photo, Scores, Stretch
from trainer.labels import best_class
from trainer.methods.base import Player, Update, constant
from trainer.methods.from_labels import GENERATORS, FromLabels, GeneratorName
from trainer.methods.oasis import discriminator_losses, label_mix_bits
from trainer.methods.usis import critic_losses
from trainer.networks.first_weights import FirstWeights, redraw
from trainer.networks.frozen import frozen
from trainer.networks.segmenting_discriminator import SegmentingDiscriminator
from trainer.networks.spade import NOISE, Norm
from trainer.networks.swagan import SwaganDiscriminator


@dataclass(frozen=True)
class Config:
    """The choices of `semipaired`; the defaults are the paper's (sections 2 and 3) and, where it is silent, those of USIS it grew from."""

    width: int = 64
    """Channels of the last layer of generator and discriminator, and of the first of the unconditional discriminator."""
    generator: GeneratorName = "wavelet"
    """wavelet: waveletSPADE (the paper). oasis: OASIS's."""
    norm: Norm = "batch"
    """batch: as published, synchronised between processes. instance: for batches of one."""
    noise: int = NOISE
    """Channels of the noise z."""
    reverse: Literal["frozen", "unfrozen", "separate"] = "frozen"
    """Who reads generated unpaired photos back: the discriminator, frozen (the paper); the same, learning with the generator as it reads
    (ablation B); or a segmenter of its own, as in USIS (ablation A)."""
    feature_matching: float = 1.0
    """Weight of the squared distance in the discriminator's features, on the pairs; 0 is ablation C. The paper prints no weights."""
    perceptual: float = 10.0
    """Weight of the VGG loss, on the pairs; 0 is ablation D."""
    vgg: str | None = None
    """VGG-19's weights for it, a file; None: torchvision's, fetched once."""
    rare_classes: Stretch = "first half"
    """When pairs with rare classes are drawn more often: in the first half of the steps (the paper), never (ablation E), throughout (F)."""
    label_mix: float = 0.0
    """Weight of OASIS's LabelMix consistency, which the paper's equation leaves out."""
    cycle: float = 1.0
    """Weight of the cycle loss: what the reverse mapper reads in photos generated from unpaired labels."""
    adversarial: float = 1.0
    """Weight of the unconditional discriminator's word for the generator."""
    r1: float = 10.0
    """gamma of the gradient penalty on unpaired photos."""
    r1_every: int = 16
    """Steps between penalties, each of which weighs as much more."""
    lr: float = 1e-4
    """Learning rate of the generator's Adam, constant."""
    lr_discriminator: float = 1e-4
    """The same for the discriminators; the paper has one rate for all."""
    ema: float = 0.9999
    """Decay of the generator's running average."""
    first_weights: FirstWeights = "torch"
    """torch: what carries spectral norm begins as torch's convolutions do. xavier: as released, small like the rest."""


class SemiPaired(FromLabels):
    """On pairs OASIS with feature matching and a VGG loss; on unpaired samples the cycle loss of the frozen discriminator, and D_u's game.

    L_G on pairs = CE(D(G(m)), m) + feature_matching L_fm + perceptual L_vgg, then the discriminator as in OASIS, then
    L_G on unpaired labels = cycle CE(D_fr(G(m)) without "generated", m) + adversarial softplus(-D_u(G(m))), then D_u.
    Every pass has fresh noise. The discriminator is a segmenter of real photos too: that is `to_label`.
    """

    config_class = Config
    directions = frozenset({"to_label", "to_photo"})
    multiple_of = SegmentingDiscriminator.multiple_of
    config: Config

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        self.noise_shape = (config.noise,)
        self.rare_classes = config.rare_classes
        self.generator = GENERATORS[config.generator](self.channels, width=config.width, norm=config.norm, noise=config.noise)
        self.discriminator = SegmentingDiscriminator(self.channels, width=config.width)
        self.critic = SwaganDiscriminator(size=size, width=config.width, from_rgb=1)
        separate = config.reverse == "separate"
        self.segmenter = SegmentingDiscriminator(self.channels, width=config.width) if separate else None
        redraw(config.first_weights, self.generator, self.discriminator, *(() if self.segmenter is None else (self.segmenter,)))

    def players(self) -> dict[str, Player]:
        lr, betas = self.config.lr_discriminator, (0.0, 0.999)
        players = {
            "generator": Player((self.generator,), self.config.lr, betas, constant, self.config.ema),
            "discriminator": Player((self.discriminator,), lr, betas, constant, None),
            "critic": Player((self.critic,), lr, betas, constant, None),
        }
        return players if self.segmenter is None else players | {"segmenter": Player((self.segmenter,), lr, betas, constant, None)}

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs", "unpaired"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config, (photo, label) = self.config, (batch.paired.photo, batch.paired.label)
        yield Update("generator", self._supervised(photo, label, i))

        with torch.no_grad():
            fake = self.generated(label, i, "discriminator")
        bits = label_mix_bits(self.seed, i, self.classes) if config.label_mix else None
        terms = discriminator_losses(self.discriminator, photo, fake, label, bits=bits, label_mix=config.label_mix)
        yield Update("discriminator", terms)

        photo, label = batch.unpaired.photo, batch.unpaired.label
        fake = self.generated(label, i, "unpaired")
        terms = {
            "cycle": config.cycle * self._cycle(self._read_back(fake), label),
            "adversarial_unpaired": config.adversarial * losses.cross_entropy_logits(self.critic(fake), real=True),
        }
        yield Update("generator", terms)

        with torch.no_grad():
            fake = self.generated(label, i, "critic")
        if config.reverse == "unfrozen":
            yield Update("discriminator", {"cycle": config.cycle * self._cycle(self.discriminator(fake), label)})
        if self.segmenter is not None:
            yield Update("segmenter", {"cycle": config.cycle * self._cycle(self.segmenter(fake), label)})
        yield Update("critic", critic_losses(self.critic, photo, fake, i=i, gamma=config.r1, every=config.r1_every))

    def network(self, direction: Literal["to_label", "to_photo"]) -> nn.Module | None:
        return self.generator if direction == "to_photo" else self.discriminator

    def label_scores(self, photo: Photo) -> Scores:
        """The discriminator's logits of the C classes: without "generated", its first, and without void, its last."""
        return self.discriminator(photo)[:, 1 : 1 + self.classes]

    def to_label(self, photo: Photo) -> LabelMap:
        return best_class(self.label_scores(photo))

    def _supervised(self, photo: Photo, label: LabelMap, i: int) -> dict[str, Tensor]:
        """What the generator minimises on the pairs."""
        config, fake = self.config, self.generated(label, i, "generator")
        weights = semantic_losses.class_weights(label, self.channels)
        scores, made = self.discriminator.with_features(fake)
        terms = {"adversarial": semantic_losses.segmentation(scores, label, weights)}
        if config.feature_matching:
            with torch.no_grad():
                known = self.discriminator.with_features(photo)[1]
            terms["feature_matching"] = config.feature_matching * semantic_losses.feature_matching(known, made)
        if self.perceptual is not None:
            terms["perceptual"] = config.perceptual * self.perceptual(fake, photo)
        return terms

    def _read_back(self, fake: Photo) -> Scores:
        """The reverse mapper's logits of a generated photo; the gradient goes to the photo."""
        if self.segmenter is not None:
            return self.segmenter(fake)
        if self.config.reverse == "unfrozen":
            return self.discriminator(fake)
        with frozen(self.discriminator):
            return self.discriminator(fake)

    def _cycle(self, scores: Scores, label: LabelMap) -> Tensor:
        """The cross-entropy over the C classes, without "generated" and void.

        # Unlike the paper: it prints the paired photo in this term; that the label is the unpaired one shows which is meant.
        """
        return semantic_losses.segmentation_cycle(scores[:, :-1], label, semantic_losses.class_weights(label, self.classes))
