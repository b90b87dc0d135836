"""What methods that translate by ResNet or U-Net generators share: their options, and how they encode a label map."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainer import labels, losses
from trainer.batch import Domain, LabelMap, Photo, Scores
from trainer.methods.base import Direction, Method, ParameterGroup, constant_then_linear
from trainer.networks.patchgan import Norm, Patch
from trainer.networks.pyramid import PyramidSegmenter
from trainer.networks.resnet import ResNetGenerator
from trainer.networks.unet import UNetGenerator

Generator = ResNetGenerator | UNetGenerator | PyramidSegmenter
GeneratorName = Literal["resnet", "unet", "unet-no-skip"]


@dataclass(frozen=True)
class TranslatorConfig:
    """The options that `hybrid`, `pix2pix`, `cyclegan` and `tripathy` share."""

    width: int = 64
    """Channels of the first layer of generators and discriminators."""
    blocks: int = 9
    """Residual blocks of each ResNet generator."""
    label_as: Literal["colours", "classes"] = "colours"
    """colours: label maps are RGB pictures (the papers). classes: one-hot in, logits out, cross-entropy (our own)."""
    lr: float = 2e-4
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.999
    """Decay of the generators' running average."""


@dataclass(frozen=True)
class NetworksConfig(TranslatorConfig):
    """The options that `pix2pix` and `cyclegan` share."""

    generator: GeneratorName = "resnet"
    """resnet (the papers of CycleGAN and of the hybrid), unet (pix2pix and the UCSD report) or unet-no-skip."""
    levels: int = 8
    """How often a U-Net halves the picture, whose sides are multiples of 2^levels; 8 for 256x256."""
    patch: Patch = 70
    """Receptive field of each discriminator in pixels."""
    norm: Norm = "instance"
    """In the discriminators; batch is pix2pix's own."""


class Translator(Method):
    """A method with generators between photos and label maps; a subclass with one generator overrides `network`.

    colours: the networks see and make RGB in [-1,1]; a map is read by the nearest class colour. classes: they see
    one-hot maps and make logits, and losses on a known map are cross-entropy. A label side of pictures is always
    encoded as colours, and is not decoded.
    """

    directions = frozenset({"to_label", "to_photo"})
    label_generator: Generator
    photo_generator: Generator

    def __init__(self, config: Any, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.classes = label_domain.classes
        self.as_scores = self.classes is not None and config.label_as == "classes"
        self.channels = self.classes.count if self.classes is not None and self.as_scores else 3

    def build_generator(
        self, direction: Direction, *, name: GeneratorName = "resnet", levels: int = 8
    ) -> ResNetGenerator | UNetGenerator:
        """A new generator for one direction; `levels` is how often a U-Net halves the picture."""
        to_photo, width = direction == "to_photo", self.config.width
        before, after = (self.channels, 3) if to_photo else (3, self.channels)
        tanh = to_photo or not self.as_scores
        if name == "resnet":
            return ResNetGenerator(before, after, width=width, blocks=self.config.blocks, tanh=tanh)
        return UNetGenerator(before, after, width=width, levels=levels, skips=name == "unet", tanh=tanh)

    def adam(self, *modules: nn.Module, ema: bool) -> ParameterGroup:
        """A parameter group with the papers' Adam."""
        config = self.config
        return ParameterGroup(modules, config.lr, (0.5, 0.999), constant_then_linear, config.ema if ema else None)

    def encode(self, label: LabelMap | Photo) -> Tensor:
        """What the networks see of a label: Float[B,channels,H,W]."""
        if self.classes is None:
            return label
        return labels.one_hot(label, self.classes.count) if self.as_scores else labels.colors(label, self.classes)

    def probabilities(self, output: Tensor) -> Tensor:
        """A generator's output in the space of `encode`: probabilities where it makes logits."""
        return torch.softmax(output.float(), 1) if self.as_scores else output

    def label_distance(self, output: Tensor, label: LabelMap | Photo, kind: losses.Distance = "l1") -> Tensor:
        """The mean distance of a generator's output from a known label: `kind` on colours, cross-entropy on logits.

        # Unlike the paper: void pixels weigh nothing, as everywhere in this project.
        """
        if self.classes is None:
            return losses.difference(output, label, kind=kind)
        if self.as_scores:
            return losses.cross_entropy(output, label)
        return losses.difference(output, labels.colors(label, self.classes), labels.counted(label), kind=kind)

    def network(self, direction: Direction) -> nn.Module | None:
        """The generator behind a direction; None where there is none."""
        if direction not in self.directions:
            return None
        return self.label_generator if direction == "to_label" else self.photo_generator

    def label_scores(self, photo: Photo) -> Scores | None:
        network = self.network("to_label")
        return network(photo) if network is not None and self.as_scores else None

    def to_label(self, photo: Photo) -> LabelMap | Photo:
        network = self.network("to_label")
        if network is None or self.as_scores:
            return super().to_label(photo)
        return network(photo) if self.classes is None else labels.nearest_class(network(photo), self.classes)

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        network = self.network("to_photo")
        return super().to_photo(label, noise) if network is None else network(self.encode(label))
