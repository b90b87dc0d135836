"""pix2pixHD (Wang et al. 2018): photos from label maps, coarse to fine, against discriminators at several scales."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainer import losses
from trainer.batch import Batch, Domain, LabelMap, Pairs, Photo
from trainer.errors import UserError
from trainer.labels import borders
from trainer.methods.base import ParameterGroup, Update, constant_then_linear
from trainer.methods.translator import Translator, TranslatorConfig
from trainer.networks.patchgan import MultiScalePatchGAN, halved
from trainer.networks.resnet import LocalEnhancer, ResNetGenerator


@dataclass(frozen=True)
class Config(TranslatorConfig):
    """The choices of `pix2pixhd`; the defaults are the paper's on Cityscapes (Wang et al., sections 3 and 4).

    The learning rate is constant over the first half of each stage, then linear to zero.
    """

    label_as: Literal["colours", "classes"] = "classes"
    """classes: one-hot, as in the paper. colours: label maps are RGB pictures."""
    halvings: int = 4
    """Stride-2 convolutions of the global generator."""
    scales: int = 3
    """Discriminators, each on pictures half as large as the one before; the first stage has all but the finest."""
    edges: Literal["classes", "instances", "none"] = "classes"
    """A channel that marks borders: of the classes (ours), or of the dataset's instance maps (the paper)."""
    global_steps: int = 595_000
    """Steps of the first stage, the global generator at half the size; the paper's is 200 epochs."""
    frozen_steps: int = 29_750
    """Steps after them in which the local enhancer moves and the global generator rests; the paper's are 10 epochs."""
    feature_matching: float = 10.0
    """Weight of the L1 distance in the discriminators' features."""
    perceptual: float = 10.0
    """Weight of the VGG loss."""
    vgg: str | None = None
    """VGG-19's weights for it, a file; None: torchvision's, fetched once."""


class Pix2PixHD(Translator):
    """L_G = sum_s (D_s(G(m), m) - 1)^2 + feature_matching L_fm + perceptual L_vgg, the generator first (Eq. 2 and 5).

    Three stages: the global generator G1 at half the size; the local enhancer G2 around it, G1 at rest; both together.
    Where the label side is pictures there are no edges. No encoder of instance-wise features (section 3.4).
    """

    config_class = Config
    paths: ClassVar[tuple[str, ...]] = ("vgg",)
    config: Config
    directions = frozenset({"to_photo"})
    chosen_by: ClassVar[tuple[str, ...]] = ()
    photo_generator: ResNetGenerator
    frames: ClassVar[int] = 1
    """How many photos in a row the discriminators see; the generator sees the others of them."""

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        if config.scales < 2:
            raise ValueError(f"--config.scales {config.scales}: give 2 or more; the first stage has one less")
        self.has_edges = config.edges != "none" and self.classes is not None
        self.channels += self.has_edges
        if self.has_edges and config.edges == "instances":
            self.sides |= {"instances"}
        seen, discriminated = self.channels + 3 * (self.frames - 1), self.frames * (self.channels + 3) - 3
        self.photo_generator = ResNetGenerator(
            seen, 3, width=config.width, blocks=config.blocks, tanh=True, halvings=config.halvings
        )
        self.enhancer = LocalEnhancer(seen, width=max(1, config.width // 2), features=config.width)
        self.discriminator = MultiScalePatchGAN(discriminated, width=config.width, scales=config.scales, spectral=False)
        self.multiple_of = 2 * self.photo_generator.multiple_of
        self.smallest = 2 * self.multiple_of
        self.enhanced = False
        """Whether the enhancer has been trained; before, photos are the global generator's, enlarged."""

    def get_extra_state(self) -> bool:
        return self.enhanced

    def set_extra_state(self, state: bool) -> None:
        self.enhanced = state

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        modules = {"global": self.photo_generator, "enhancer": self.enhancer, "discriminator": self.discriminator}
        return {
            name: self.adam(module, ema=name != "discriminator")._replace(schedule=self._schedule)
            for name, module in modules.items()
        }

    def check_steps(self, steps: int) -> None:
        config = self.config
        if config.global_steps + config.frozen_steps >= steps:
            raise UserError(
                f"--config.global-steps {config.global_steps} and --config.frozen-steps {config.frozen_steps} of "
                f"--steps {steps}: the last stage would never begin; give two thirds and a thirtieth of the steps, as "
                f"the paper does: --config.global-steps {2 * steps // 3} --config.frozen-steps {steps // 30}"
            )

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        config = self.config
        self.enhanced = i >= config.global_steps
        # Unlike the released train.py, whose second stage gives the model an optimiser that is never stepped, so that
        # the global generator stands still to the end: it rests for `frozen_steps`, as the paper says.
        resting = i < config.global_steps + config.frozen_steps
        moving: str | tuple[str, ...] = "global"
        if self.enhanced:
            moving = "enhancer" if resting else ("global", "enhancer")
        pairs, skip = (batch.paired, 0) if self.enhanced else (_halved(batch.paired), 1)
        real, fake, drawn = self._discriminator_inputs(pairs, resting=resting)

        on_real = self.discriminator(real, drawn, skip=skip)  # for both updates: the first does not move its weights
        on_fake = self.discriminator(fake, drawn, skip=skip)
        terms = {"adversarial": _least_squares(on_fake, real=True)}
        if config.feature_matching:
            terms["feature_matching"] = config.feature_matching * losses.feature_matching_l1(on_real, on_fake)
        if self.perceptual is not None:
            frames = zip(fake.split(3, 1), real.split(3, 1), strict=True)
            terms["perceptual"] = config.perceptual * torch.stack([self.perceptual(*each) for each in frames]).sum()
        yield Update(moving, terms)

        on_fake = self.discriminator(fake.detach(), drawn, skip=skip)
        terms = {"real": 0.5 * _least_squares(on_real, real=True), "fake": 0.5 * _least_squares(on_fake, real=False)}
        yield Update("discriminator", terms)

    def _discriminator_inputs(self, pairs: Pairs, *, resting: bool) -> tuple[Tensor, Tensor, Tensor]:
        """What the discriminators see: real photos, generated ones, and the labels beside both."""
        drawn = self.encode(pairs.label, pairs.sides.get("instances"))
        return pairs.photo, self.generated(drawn, resting=resting), drawn

    def generated(self, drawn: Tensor, *, resting: bool = False) -> Photo:
        """Photos of encoded labels; with `resting` the enhancer alone learns from them."""
        if not self.enhanced:
            return self.photo_generator(drawn)
        with torch.no_grad() if resting else nullcontext():
            features = self.photo_generator.features(halved(drawn))
        return self.enhancer(drawn, features)

    def encode(self, label: LabelMap | Photo, instances: Tensor | None = None) -> Tensor:
        """Float[B,channels,H,W]: the label, and as the last channel the borders of the instances Long[B,H,W].

        # Unlike the paper: without instance maps they are the borders of the classes.
        """
        seen = super().encode(label)
        return torch.cat([seen, borders(label if instances is None else instances)], 1) if self.has_edges else seen

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        if self.enhanced:
            return self.generated(self.encode(label))
        return interpolate(self.generated(self.encode(half(label))), scale_factor=2.0, mode="bilinear")

    def _schedule(self, step: int, steps: int) -> float:
        """Each of the two stages with a size of its own begins at the full rate."""
        first = self.config.global_steps
        return constant_then_linear(step, first) if step < first else constant_then_linear(step - first, steps - first)


def _halved(pairs: Pairs) -> Pairs:
    """Pairs at half the size: photos as the second discriminator sees them, ids by nearest."""
    return Pairs(halved(pairs.photo), half(pairs.label), {name: half(side) for name, side in pairs.sides.items()})


def half(label: Any) -> Any:
    """A label map or a picture at half the size."""
    return label[:, ::2, ::2] if label.ndim == 3 else halved(label)


def _least_squares(scales: list[list[Tensor]], *, real: bool) -> Tensor:
    """The sum over the scales, as in the paper (Eq. 2)."""
    return torch.stack([losses.least_squares(scale[-1], real=real) for scale in scales]).sum()
