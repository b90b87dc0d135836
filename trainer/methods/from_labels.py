"""The base of methods that make photos from label maps: encoding, noise, generators, batch statistics."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from trainer.batch import Batch, Domain, LabelMap, OneHot, Photo
from trainer.labels import one_hot
from trainer.methods.base import Method, ParameterGroup, constant
from trainer.networks.init import Initialisation
from trainer.networks.normalisation import estimate_statistics
from trainer.networks.spade import NOISE, Norm, OasisGenerator
from trainer.networks.wavelet import WaveletSpadeGenerator

GeneratorName = Literal["wavelet", "oasis"]

GENERATORS: dict[GeneratorName, type[WaveletSpadeGenerator] | type[OasisGenerator]] = {
    "wavelet": WaveletSpadeGenerator,
    "oasis": OasisGenerator,
}
"""The generators that take noise."""


@dataclass(frozen=True)
class FromLabelsConfig:
    """The options that `spade`, `cc_fpse`, `oasis`, `tcr`, `usis` and `semipaired` share."""

    width: int = 64
    """Channels of the last layer of the generator, and of the first or last of each discriminator and segmenter."""
    norm: Norm = "batch"
    """batch: as published, synchronised between processes. instance: for batches of one."""
    lr: float = 1e-4
    """Learning rate of the generator's Adam."""
    lr_discriminator: float = 4e-4
    """The same for discriminators and segmenters."""
    ema: float = 0.9999
    """Decay of the generator's running average."""
    initialisation: Initialisation = "xavier"
    """xavier: Xavier-normal with gain .02, as released. torch: torch's default (the compact recipes)."""


@dataclass(frozen=True)
class NoiseConfig(FromLabelsConfig):
    """The options of those with noise."""

    noise: int = NOISE
    """Channels of the noise z."""


@dataclass(frozen=True)
class UnpairedConfig(NoiseConfig):
    """The options that `usis` and `semipaired` share."""

    generator: GeneratorName = "wavelet"
    """wavelet: waveletSPADE (the papers). oasis: OASIS's."""
    r1: float = 10.0
    """gamma of the gradient penalty on unpaired photos."""
    r1_every: int = 16
    """Steps between penalties, each of which weighs as much more."""
    lr_discriminator: float = 1e-4
    """The same for discriminators and segmenters; USIS's released code has 4e-4 for the segmenter and 2e-3."""


class FromLabels(Method):
    """A method whose `generator` makes photos from one-hot label maps, with noise where `noise_shape` is given.

    Void is the last of S = C + 1 channels, the "don't care" channel of OASIS, USIS and SPADE.

    # Unlike the released codes: there it is the first channel, which only renames them.
    """

    directions = frozenset({"to_photo"})
    chosen_by: ClassVar[tuple[str, ...]] = ()
    paths: ClassVar[tuple[str, ...]] = ("vgg",)
    channels_last = True
    generator: nn.Module
    betas: ClassVar[tuple[float, float]] = (0.0, 0.999)
    schedule = staticmethod(constant)
    opponents: tuple[str, ...] = ("discriminator",)
    """The attributes that hold discriminators and segmenters; each is a parameter group."""

    def __init__(self, config: Any, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        self.classes = self.class_count()
        self.channels = self.classes + 1
        if isinstance(config, NoiseConfig):
            self.noise_shape = (config.noise,)

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        config = self.config
        rates = {"generator": config.lr, **dict.fromkeys(self.opponents, config.lr_discriminator)}
        return {
            name: ParameterGroup(
                (getattr(self, name),), lr, self.betas, self.schedule, config.ema if name == "generator" else None
            )
            for name, lr in rates.items()
        }

    def encode(self, label: LabelMap) -> OneHot:
        """Long[B,H,W] -> Float[B,C+1,H,W], 1 in the last channel where the label is void."""
        known = one_hot(label, self.classes)
        return torch.cat([known, 1 - known.sum(1, keepdim=True)], 1)

    def generated(self, label: LabelMap, i: int, stream: str) -> Photo:
        """Photos from these labels, with fresh noise where the generator takes some."""
        return self.generator(*self._inputs(label, i, stream))

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        if self.noise_shape is not None and noise is None:
            shape = ",".join(map(str, self.noise_shape))
            raise ValueError(f"{type(self).__name__} makes a photo from a label and noise Float[B,{shape}]")
        return self.generator(self.encode(label), *(() if noise is None else (noise,)))

    def estimate_statistics(self, batches: Iterable[Batch]) -> tuple[nn.Module, ...]:
        estimate_statistics(
            self.generator,
            (
                self._inputs(half.label, number, f"statistics {kind.split()[0]}")
                for number, batch in enumerate(batches)
                for kind, half in (("pairs", batch.paired), ("unpaired label maps", batch.unpaired))
                if kind in self.reads and len(half.label)
            ),
        )
        return (self.generator,)

    def _inputs(self, label: LabelMap, i: int, stream: str) -> tuple[Tensor, ...]:
        """What the generator takes for these labels in step i."""
        return (self.encode(label), *(() if self.noise_shape is None else (self.noise(label, i, stream),)))
