"""Our own recipe: cross-entropy on strongly augmented pairs, and on unpaired photos that an averaged teacher has labelled."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trainer import losses
from trainer.augment import pasted, repainted, rescaled
from trainer.average import Teacher
from trainer.batch import IGNORE, Batch, Domain, LabelMap, Pairs, Photo, Scores, random
from trainer.labels import best_class
from trainer.methods.base import Method, Player, Update, constant_then_linear
from trainer.networks.pretrained import PretrainedSegmenter, read_weights
from trainer.networks.resnet import ResNetGenerator

RAMP = 200
"""Steps over which the unpaired photos gain their weight."""


@dataclass(frozen=True)
class Config:
    """The choices of `mean_teacher`. Each part is switched off by 0 or False."""

    encoder: Literal["none", "mobilenet_v2"] = "mobilenet_v2"
    """none: the papers' ResNet generator. mobilenet_v2: an encoder with ImageNet weights, and a light decoder."""
    encoder_weights: str | None = None
    """A file of the encoder's weights: torchvision's state dict (.pth), or an ONNX file; None: torchvision downloads them."""
    width: int = 32
    """Channels of the decoder's maps; with encoder=none of the generator's first layer."""
    blocks: int = 6
    """With encoder=none: residual blocks of the generator."""
    rescale: float = 0.5
    """Strength of the scaling of photos and labels (trainer/augment.py)."""
    repaint: float = 0.5
    """Strength of the change of light and camera on the unpaired photos that the student sees; the teacher sees them as they are."""
    dice: float = 1.0
    """Weight of the soft Dice loss on the pairs, in which every class of a batch weighs the same, however few its pixels."""
    unpaired: float = 1.0
    """Weight of the cross-entropy on the teacher's labels; 0: the unpaired photos are not read."""
    confidence: float = 0.6
    """The teacher's labels count where its probability is at least this."""
    paste: bool = True
    """Paste half of the classes of each pair, photo and true label, on an unpaired photo and the teacher's label (ClassMix)."""
    rare_first: float = 0.5
    """How much likelier a rare class is pasted: in proportion to its share of the pairs' pixels to the power of minus this."""
    warm_up: int = 2000
    """Steps on the pairs alone; then the weight of the unpaired photos grows to `unpaired` within RAMP steps."""
    teacher: float = 0.99
    """Decay of the teacher's weights."""
    lr: float = 1e-3
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    encoder_lr: float = 0.2
    """Factor on the learning rate of an encoder that has ImageNet weights."""
    ema: float = 0.995
    """Decay of the weights' running average."""


class MeanTeacher(Method):
    """L = CE(pairs) + dice Dice(pairs) + unpaired(i) CE(unpaired photos, the teacher's labels where it is sure).

    The teacher is a running average of the student (Tarvainen and Valpola 2017), sees an unpaired photo as it is and labels it; the student
    sees it rescaled, with classes of a pair pasted on it and repainted, and is held to those labels (FixMatch, Sohn et al. 2020, Eq. 4;
    ClassMix, Olsson et al. 2021). Unpaired label maps are not read.
    """

    config_class = Config
    directions = frozenset({"to_label"})

    pixels: Tensor

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        if label_domain.classes is None:
            raise ValueError("mean_teacher needs a class table on the label side; this dataset has pictures there")
        if config.confidence > 1 or config.teacher >= 1:
            raise ValueError(f"--config.confidence {config.confidence} --config.teacher {config.teacher}: give at most 1, and below 1")
        count = label_domain.classes.count
        self.segmenter: PretrainedSegmenter | ResNetGenerator
        if config.encoder == "none":
            self.segmenter = ResNetGenerator(3, count, width=config.width, blocks=config.blocks, tanh=False)
        else:
            self.segmenter = PretrainedSegmenter(count, width=config.width)
        self.multiple_of = self.segmenter.multiple_of
        self.teacher = Teacher(self.segmenter, decay=config.teacher) if config.unpaired else None
        self.register_buffer("pixels", torch.zeros(count, dtype=torch.int64))

    def begin(self) -> None:
        if isinstance(self.segmenter, PretrainedSegmenter):
            given = self.config.encoder_weights
            self.segmenter.encoder.load(read_weights(None if given is None else Path(given)))
            if self.teacher is not None:
                self.teacher = Teacher(self.segmenter, decay=self.config.teacher)

    def players(self) -> dict[str, Player]:
        lr, betas, segmenter = self.config.lr, (0.9, 0.999), self.segmenter
        if isinstance(segmenter, ResNetGenerator):
            return {"segmenter": Player((segmenter,), lr, betas, constant_then_linear, self.config.ema)}
        moved, factors = (segmenter.encoder, segmenter.decoder), (self.config.encoder_lr, 1.0)
        return {"segmenter": Player(moved, lr, betas, constant_then_linear, self.config.ema, factors)}

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs", "unpaired"}) if self.teacher is not None else frozenset({"pairs"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config, weight = self.config, self._weight(i)
        if weight == 0 and not len(batch.paired.photo):
            return  # unbalanced sampling in the warm-up
        pairs = self._rescaled(batch.paired, i, "pairs")
        self._count(pairs.label)
        views = [pairs]
        if weight > 0:
            views.append(self._labelled_by_the_teacher(batch.unpaired.photo, pairs, i))
        scores = self.segmenter(torch.cat([view.photo for view in views])).split([len(view.photo) for view in views])

        terms = {}
        if len(pairs.photo):
            terms["cross_entropy"] = losses.cross_entropy(scores[0], pairs.label)
            if config.dice:
                terms["dice"] = config.dice * losses.soft_dice(scores[0], pairs.label)
        if weight > 0:
            terms["unpaired"] = weight * losses.cross_entropy(scores[1], views[1].label)
        if terms:
            yield Update("segmenter", terms)
        if self.teacher is not None:
            self.teacher.follow(self.segmenter, i)

    def network(self, direction: Literal["to_label", "to_photo"]) -> nn.Module | None:
        return self.segmenter if direction == "to_label" else None

    def label_scores(self, photo: Photo) -> Scores:
        return self.segmenter(photo)

    def to_label(self, photo: Photo) -> LabelMap:
        return best_class(self.label_scores(photo))

    def _labelled_by_the_teacher(self, photo: Photo, pairs: Pairs, i: int) -> Pairs:
        """Unpaired photos as the student sees them, and what the teacher says of them: void where it is not sure."""
        assert self.teacher is not None
        config = self.config
        certainty, label = torch.softmax(self.teacher(photo).float(), 1).max(1)
        label = torch.where(certainty >= config.confidence, label, IGNORE)
        photo, label = rescaled(photo, label, self._draws(i, "rescale unpaired", photo), strength=config.rescale)
        if config.paste and len(pairs.photo) == len(photo):
            photo, label = pasted(pairs.photo, pairs.label, (photo, label), self._draws(i, "paste", photo), preference=self._preference())
        return Pairs(repainted(photo, self._draws(i, "repaint unpaired", photo), strength=config.repaint), label)

    def _rescaled(self, half: Pairs, i: int, stream: str) -> Pairs:
        draws = self._draws(i, f"rescale {stream}", half.photo)
        return Pairs(*rescaled(half.photo, half.label, draws, strength=self.config.rescale))

    def _draws(self, i: int, stream: str, photo: Photo) -> list[np.random.Generator]:
        """One generator a sample, a function of (seed, step, stream, index)."""
        return [random(self.seed, i, stream, index) for index in range(len(photo))]

    def _weight(self, i: int) -> float:
        """What the unpaired photos weigh in step i: nothing in the warm-up, then linearly more, as the teacher gets better."""
        if self.teacher is None or i < self.config.warm_up:
            return 0.0
        return self.config.unpaired * min(1.0, (i - self.config.warm_up + 1) / RAMP)

    def _count(self, label: LabelMap) -> None:
        """Remember how many pixels of each class the pairs have shown."""
        self.pixels += torch.bincount(label[label != IGNORE], minlength=len(self.pixels))

    def _preference(self) -> Tensor:
        """Float[C]: how much likelier a class is to be pasted than another."""
        share = self.pixels / self.pixels.sum().clamp(min=1)
        return share.clamp(min=1e-3) ** -self.config.rare_first
