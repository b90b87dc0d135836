"""The semi-paired method of Eskandar et al. 2023: OASIS on pairs; its frozen discriminator segments unpaired photos."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainer import losses
from trainer.augment import diff_augmented
from trainer.batch import Batch, Domain, LabelMap, Phase, Photo, Scores
from trainer.errors import UserError
from trainer.methods.base import ParameterGroup, Update
from trainer.methods.from_labels import GENERATORS, FromLabels, UnpairedConfig
from trainer.methods.oasis import discriminator_losses
from trainer.methods.usis import unconditional_losses
from trainer.networks.encoders import DEFAULT, features_of, load_encoder
from trainer.networks.frozen import frozen
from trainer.networks.init import initialise
from trainer.networks.projected import ProjectedDiscriminator, relative_l1
from trainer.networks.pyramid import PyramidSegmenter, load_segmenter
from trainer.networks.segmenting_discriminator import SegmentingDiscriminator
from trainer.networks.swagan import SwaganDiscriminator


@dataclass(frozen=True)
class Config(UnpairedConfig):
    """The choices of `semipaired`; the defaults are the paper's and, where it is silent, those of USIS.

    The learning rates are constant; the paper has one rate for all.
    """

    reverse: Literal["frozen", "unfrozen", "separate", "teacher"] = "frozen"
    """Who reads generated unpaired photos back: the discriminator, frozen (the paper); the same, learning with the
    generator as it reads (ablation B); a segmenter of its own, as in USIS (ablation A); or the frozen segmenter of
    `segmenter` (ours)."""
    segmenter: str | None = None
    """With reverse=teacher: a run of `mean_teacher`."""
    feature_matching: float = 1.0
    """Weight of the squared distance in the discriminator's features, on the pairs; 0: ablation C."""
    perceptual: float = 10.0
    """Weight of the VGG loss, on the pairs; 0 is ablation D."""
    vgg: str | None = None
    """VGG-19's weights for it, a file; None: torchvision's, fetched once."""
    rare_classes: Phase = "first half"
    """When pairs with rare classes are drawn more often: first half (the paper), never (ablation E), throughout (F)."""
    label_mix: float = 0.0
    """Weight of OASIS's LabelMix consistency, which the paper's equation leaves out."""
    cycle: float = 1.0
    """Weight of the cycle loss: what the reverse mapper reads in photos generated from unpaired labels."""
    adversarial: float = 1.0
    """Weight of the unconditional discriminator's loss for the generator."""
    unpaired_discriminator: Literal["swagan", "projected"] = "swagan"
    """swagan: SWAGAN's (the paper). projected: heads on a frozen EfficientNet-Lite0's features, and DiffAugment on all
    that they see (ours); give r1=0 with it."""
    features: float = 0.0
    """Weight of the relative L1 distance in that network's features, on the pairs (ours)."""
    ema_discriminator: float | None = None
    """Decay of an average of the discriminator, which `to_label` uses (ours); None: its own weights (the paper)."""


class SemiPaired(FromLabels):
    """OASIS, feature matching and a VGG loss on pairs; the frozen discriminator's cycle loss and D_u's on the rest.

    L_G on pairs = CE(D(G(m)), m) + feature_matching L_fm + perceptual L_vgg, then the discriminator as in OASIS, then
    L_G on unpaired labels = cycle CE(D_fr(G(m)) without "generated", m) + adversarial softplus(-D_u(G(m))), then D_u.
    Every pass has fresh noise. The discriminator is a segmenter of real photos too: that is `to_label`.
    """

    config_class = Config
    paths = ("vgg", "segmenter")
    reads = frozenset({"pairs", "unpaired photos", "unpaired label maps"})
    directions = frozenset({"to_label", "to_photo"})
    multiple_of = SegmentingDiscriminator.multiple_of
    config: Config

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.rare_classes = config.rare_classes
        self.generator = GENERATORS[config.generator](
            self.channels, width=config.width, norm=config.norm, noise=config.noise
        )
        self.discriminator = SegmentingDiscriminator(self.channels, width=config.width)
        projected = config.unpaired_discriminator == "projected"
        # in a list, as the teacher: not in the checkpoint
        self._encoder = [load_encoder(DEFAULT)] if projected or config.features else []
        self.unpaired_discriminator: SwaganDiscriminator | ProjectedDiscriminator
        if projected:
            self.unpaired_discriminator = ProjectedDiscriminator(self._encoder[0].channels[1:])
        else:
            self.unpaired_discriminator = SwaganDiscriminator(size=size, width=config.width)
        separate = config.reverse == "separate"
        self.segmenter = SegmentingDiscriminator(self.channels, width=config.width) if separate else None
        self.opponents = ("discriminator", "unpaired_discriminator", *(["segmenter"] if separate else []))
        if (config.reverse == "teacher") != (config.segmenter is not None):
            raise UserError("--config.reverse teacher and --config.segmenter RUN (of mean_teacher) go together")
        self._teacher: list[PyramidSegmenter] = []  # in a list: not in the checkpoint
        segmenter = () if self.segmenter is None else (self.segmenter,)
        initialise(config.initialisation, self.generator, self.discriminator, *segmenter)

    def load_pretrained(self) -> None:
        super().load_pretrained()
        if self.config.segmenter is not None:
            self._teacher_network()

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        groups = super().parameter_groups()
        discriminator = groups["discriminator"]._replace(ema=self.config.ema_discriminator)
        unpaired = groups["unpaired_discriminator"]
        if isinstance(self.unpaired_discriminator, ProjectedDiscriminator):
            unpaired = unpaired._replace(modules=(self.unpaired_discriminator.heads,))
        return groups | {"discriminator": discriminator, "unpaired_discriminator": unpaired}

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config = self.config
        yield Update("generator", self._supervised(batch.paired.photo, batch.paired.label, i))
        terms = discriminator_losses(self, self.discriminator, batch.paired, i, label_mix=config.label_mix)
        yield Update("discriminator", terms)

        photo, label = batch.unpaired.photo, batch.unpaired.label
        if i == 0 and isinstance(self.unpaired_discriminator, ProjectedDiscriminator):
            self.unpaired_discriminator.calibrate(self._features(photo))
        fake = self.generated(label, i, "unpaired")
        terms = {
            "cycle": config.cycle * self._cycle(self._read_back(fake), label),
            "adversarial_unpaired": config.adversarial * losses.logistic(self._unpaired(fake, i), real=True),
        }
        yield Update("generator", terms)

        with torch.no_grad():
            fake = self.generated(label, i, "critic")
        if config.reverse == "unfrozen":
            yield Update("discriminator", {"cycle": config.cycle * self._cycle(self.discriminator(fake), label)})
        if self.segmenter is not None:
            yield Update("segmenter", {"cycle": config.cycle * self._cycle(self.segmenter(fake), label)})
        terms = unconditional_losses(lambda seen: self._unpaired(seen, i), photo, fake, i, config)
        yield Update("unpaired_discriminator", terms)

    def label_scores(self, photo: Photo) -> Scores:
        """The discriminator's logits of the C classes: without "generated", its first, and without void, its last."""
        return self.discriminator(photo)[:, 1 : 1 + self.classes]

    def _supervised(self, photo: Photo, label: LabelMap, i: int) -> dict[str, Tensor]:
        """What the generator minimises on the pairs."""
        config, fake = self.config, self.generated(label, i, "generator")
        weights = losses.class_weights(label, self.channels)
        scores, made = self.discriminator.with_features(fake)
        terms = {"adversarial": losses.segmentation(scores, label, weights)}
        if config.feature_matching:
            with torch.no_grad():
                known = self.discriminator.with_features(photo)[1]
            terms["feature_matching"] = config.feature_matching * losses.feature_matching(known, made)
        if self.perceptual is not None:
            terms["perceptual"] = config.perceptual * self.perceptual(fake, photo)
        if config.features:
            terms["features"] = config.features * relative_l1(self._features(photo), self._features(fake))
        return terms

    def _unpaired(self, photo: Photo, i: int) -> Tensor:
        """D_u's logits; of `projected` those of all scales, each enlarged to the finest, side by side."""
        if not isinstance(self.unpaired_discriminator, ProjectedDiscriminator):
            return self.unpaired_discriminator(photo)
        seen = diff_augmented(photo, photo, self.draws(i, "augment", len(photo)))[0]
        logits = self.unpaired_discriminator(self._features(seen))
        return torch.cat([interpolate(each.float(), logits[0].shape[-2:]) for each in logits], 1)

    def _features(self, photo: Photo) -> list[Tensor]:
        """The encoder's maps from stride 4 on."""
        return features_of(self._encoder[0], photo)[1:]

    def _read_back(self, fake: Photo) -> Scores:
        """The reverse mapper's logits of a generated photo; the gradient goes to the photo."""
        if self.segmenter is not None:
            return self.segmenter(fake)
        if self.config.segmenter is not None:
            with torch.autocast(fake.device.type, enabled=False):
                scores = self._teacher_network().to(fake.device)(fake.float())
            return torch.nn.functional.pad(scores, (0, 0, 0, 0, 1, 1))  # the places of "generated" and of void
        if self.config.reverse == "unfrozen":
            return self.discriminator(fake)
        with frozen(self.discriminator):
            return self.discriminator(fake)

    def _teacher_network(self) -> PyramidSegmenter:
        """The segmenter of `reverse=teacher`, read once."""
        if not self._teacher:
            assert self.config.segmenter is not None
            self._teacher.append(load_segmenter(Path(self.config.segmenter), classes=self.classes))
        return self._teacher[0]

    def _cycle(self, scores: Scores, label: LabelMap) -> Tensor:
        """The cross-entropy over the C classes, without "generated" and void.

        # Unlike the paper: it prints the paired photo in this term, though the label is the unpaired one.
        """
        return losses.segmentation_cycle(scores[:, :-1], label, losses.class_weights(label, self.classes))
