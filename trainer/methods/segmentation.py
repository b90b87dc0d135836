"""Segmentation: photo -> label map, from pairs alone (supervised, judge) or with unpaired photos too (mean_teacher)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainer import losses
from trainer.augment import class_mixed, colour_jittered, rescaled
from trainer.batch import IGNORE, Batch, Domain, LabelMap, Pairs, Photo, Scores
from trainer.errors import UserError
from trainer.methods.base import Method, ParameterGroup, Update, constant_then_linear, polynomial
from trainer.networks.ema import Teacher
from trainer.networks.encoders import DEFAULT
from trainer.networks.pyramid import PyramidSegmenter
from trainer.networks.resnet import ResNetGenerator
from trainer.networks.segmenter import Segmenter

RAMP = 200
"""Steps over which the unpaired photos gain their weight."""


@dataclass(frozen=True)
class SupervisedConfig:
    """The choices of `supervised`: the paper's ResNet generator as a segmenter."""

    width: int = 64
    """Channels of the generator's first layer."""
    blocks: int = 9
    """Residual blocks of the generator."""
    dice: float = 0.0
    """Weight of the soft Dice loss beside the cross-entropy, in which each class of a batch weighs the same."""
    lr: float = 2e-4
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.999
    """Decay of the weights' EMA."""


@dataclass(frozen=True)
class JudgeConfig:
    """The choices of `judge`: a small U-Net."""

    width: int = 24
    """Channels of the segmenter's first stage, a multiple of 8."""
    dice: float = 0.5
    """Weight of the soft Dice loss beside the cross-entropy, in which each class of a batch weighs the same."""
    lr: float = 3e-3
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.998
    """Decay of the weights' EMA."""


@dataclass(frozen=True)
class MeanTeacherConfig:
    """The choices of `mean_teacher`. Each part is switched off by 0 or False."""

    encoder: str = DEFAULT
    """A timm model with feature maps; its ImageNet weights are the start."""
    encoder_weights: str | None = None
    """A state dict of that timm model (a file); None: the installed package or timm's hub."""
    width: int = 96
    """Channels of the decoder's maps."""
    rescale: float = 0.6
    """Strength of the scaling of photos and labels (trainer/augment.py)."""
    jitter: float = 0.3
    """Strength of the colour jitter on the pairs."""
    jitter_unpaired: float = 0.6
    """Strength of the colour jitter on the unpaired photos that the student sees; the teacher sees them unchanged."""
    dice: float = 1.0
    """Weight of the soft Dice loss on the pairs, in which all classes of a batch weigh the same."""
    unpaired: float = 1.0
    """Weight of the cross-entropy on the teacher's labels; 0: the unpaired photos are not read."""
    confidence: float = 0.8
    """The teacher's labels count where its probability is at least this."""
    class_mix: bool = True
    """Paste half of the classes of each pair on an unpaired photo and the teacher's label (ClassMix)."""
    rare_first: float = 0.5
    """Classes are drawn for pasting in proportion to their share of the pairs' pixels to the power of minus this."""
    warm_up: int = 1200
    """Steps on the pairs alone; then the weight of the unpaired photos grows to `unpaired` within RAMP steps."""
    lr: float = 2e-3
    """Learning rate of Adam for the decoder, decayed to zero by (1 - step / steps)^.9."""
    encoder_lr: float = 0.2
    """Factor on the learning rate of the encoder."""
    ema: float = 0.998
    """Decay of the teacher: the running average of the weights, which is evaluated and exported."""


class Segmentation(Method):
    """Minimises cross-entropy + dice x soft Dice of a segmenter on the pairs; reads nothing else."""

    directions = frozenset({"to_label"})
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)

    def __init__(self, config: Any, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.classes = self.class_count()
        self.segmenter = self.build_segmenter()
        self.multiple_of = self.segmenter.multiple_of

    def build_segmenter(self) -> Any:
        """The network: Photo -> Float[B,classes,H,W], with `multiple_of`."""
        raise NotImplementedError

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        config = self.config
        return {"segmenter": ParameterGroup((self.segmenter,), config.lr, self.betas, constant_then_linear, config.ema)}

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        yield Update("segmenter", self.supervised_losses(self.segmenter(batch.paired.photo), batch.paired.label))

    def supervised_losses(self, scores: Scores, label: LabelMap) -> dict[str, Tensor]:
        """The losses on pairs."""
        terms = {"cross_entropy": losses.cross_entropy(scores, label)}
        if self.config.dice:
            terms["dice"] = self.config.dice * losses.soft_dice(scores, label)
        return terms

    def label_scores(self, photo: Photo) -> Scores:
        return self.segmenter(photo)


class Supervised(Segmentation):
    """The papers' ResNet generator trained on the pairs: the baseline for methods that read unpaired data too."""

    config_class = SupervisedConfig
    betas = (0.5, 0.999)

    def build_segmenter(self) -> ResNetGenerator:
        return ResNetGenerator(3, self.classes, width=self.config.width, blocks=self.config.blocks, tanh=False)


class Judge(Segmentation):
    """A small U-Net trained on all real pairs, for the FCN score of generated photos; the papers use FCN-8s."""

    config_class = JudgeConfig

    def build_segmenter(self) -> Segmenter:
        return Segmenter(self.classes, width=self.config.width)


class MeanTeacher(Segmentation):
    """L = CE(pairs) + dice Dice(pairs) + unpaired(i) CE(unpaired photos, the teacher's labels where it is confident).

    The teacher is a running average of the student (Tarvainen and Valpola 2017), sees an unpaired photo as it is and
    labels it; the student sees it rescaled, with classes of a pair pasted on it and its colours jittered, and is
    trained on those labels (FixMatch, Sohn et al. 2020, Eq. 4; ClassMix, Olsson et al. 2021). Unpaired label maps are
    not read.
    """

    config_class = MeanTeacherConfig
    paths = ("encoder_weights",)
    pixels: Tensor

    def __init__(self, config: MeanTeacherConfig, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        if config.unpaired:
            self.reads = frozenset({"pairs", "unpaired photos"})
        self.teacher = Teacher(self.segmenter, decay=config.ema) if config.unpaired else None
        self.register_buffer("pixels", torch.zeros(self.classes, dtype=torch.int64))

    def build_segmenter(self) -> PyramidSegmenter:
        return PyramidSegmenter(self.classes, encoder=self.config.encoder, width=self.config.width)

    def load_pretrained(self) -> None:
        given = self.config.encoder_weights
        self.segmenter.encoder.load_pretrained(None if given is None else Path(given))
        if self.teacher is not None:
            self.teacher = Teacher(self.segmenter, decay=self.config.ema)

    def check_steps(self, steps: int) -> None:
        if self.teacher is not None and steps <= self.config.warm_up:
            raise UserError(
                f"--steps {steps}: the unpaired photos are read after {self.config.warm_up} steps only; give --steps "
                f"{self.config.warm_up + 1} or more, --config.warm-up {steps - 1} or less, or --config.unpaired 0 to "
                "learn from the pairs alone"
            )

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        modules, factors = (self.segmenter.encoder, self.segmenter.decoder), (self.config.encoder_lr, 1.0)
        return {
            "segmenter": ParameterGroup(modules, self.config.lr, (0.9, 0.999), polynomial, self.config.ema, factors)
        }

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        weight = self._weight(i)
        pairs = self._augmented(batch.paired, i)
        self._count(pairs.label)
        views = [pairs]
        if weight > 0:
            views.append(self._labelled_by_the_teacher(batch.unpaired.photo, pairs, i))
        scores = self.segmenter(torch.cat([view.photo for view in views])).split([len(view.photo) for view in views])

        terms = self.supervised_losses(scores[0], pairs.label)
        if weight > 0:
            terms["unpaired"] = weight * losses.cross_entropy(scores[1], views[1].label)
        yield Update("segmenter", terms)
        if self.teacher is not None:
            self.teacher.follow(self.segmenter, i)

    def _labelled_by_the_teacher(self, photo: Photo, pairs: Pairs, i: int) -> Pairs:
        """Unpaired photos as the student sees them, and what the teacher says of them: void where it is not sure."""
        assert self.teacher is not None
        config = self.config
        certainty, label = torch.softmax(self.teacher(photo).float(), 1).max(1)
        label = torch.where(certainty >= config.confidence, label, IGNORE)
        photo, label = rescaled(photo, label, self.draws(i, "rescale unpaired", len(photo)), strength=config.rescale)
        if config.class_mix:
            share = self.pixels / self.pixels.sum().clamp(min=1)
            preference, draws = share.clamp(min=1e-3) ** -config.rare_first, self.draws(i, "paste", len(photo))
            photo, label = class_mixed(pairs.photo, pairs.label, (photo, label), draws, preference=preference)
        draws = self.draws(i, "repaint unpaired", len(photo))
        return Pairs(colour_jittered(photo, draws, strength=config.jitter_unpaired), label)

    def _augmented(self, half: Pairs, i: int) -> Pairs:
        draws = self.draws(i, "rescale pairs", len(half.photo))
        photo, label = rescaled(half.photo, half.label, draws, strength=self.config.rescale)
        draws = self.draws(i, "jitter pairs", len(photo))
        return Pairs(colour_jittered(photo, draws, strength=self.config.jitter), label)

    def _weight(self, i: int) -> float:
        """The weight of the unpaired photos in step i: 0 in the warm-up, then rising linearly."""
        if self.teacher is None or i < self.config.warm_up:
            return 0.0
        return self.config.unpaired * min(1.0, (i - self.config.warm_up + 1) / RAMP)

    def _count(self, label: LabelMap) -> None:
        """Remember how many pixels of each class the pairs have shown."""
        self.pixels += torch.bincount(label[label != IGNORE], minlength=len(self.pixels))
