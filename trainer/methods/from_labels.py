"""What methods that make photos from label maps share: how they spell the map, their noise, their generators and batch statistics."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from trainer.batch import Batch, Domain, LabelMap, OneHot, Photo, random
from trainer.labels import one_hot
from trainer.methods.base import Method
from trainer.networks.perceptual import PerceptualLoss
from trainer.networks.spade import OasisGenerator
from trainer.networks.synchronised import rank, refresh_statistics
from trainer.networks.wavelet import WaveletSpadeGenerator

GeneratorName = Literal["wavelet", "oasis"]

GENERATORS: dict[GeneratorName, type[WaveletSpadeGenerator] | type[OasisGenerator]] = {
    "wavelet": WaveletSpadeGenerator,
    "oasis": OasisGenerator,
}
"""The generators that take noise."""


class FromLabels(Method):
    """A method whose `generator` makes photos from one-hot label maps, with noise where `noise_shape` is given.

    Void is a channel of its own, the "don't care" channel of OASIS, USIS and SPADE: S = C + 1 semantic channels, void the last of them.

    # Unlike the released codes: there it is the first channel, which only renames them.
    """

    directions = frozenset({"to_photo"})
    chosen_by: ClassVar[tuple[str, ...]] = ()
    generator: nn.Module

    def __init__(self, config: Any, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        if label_domain.classes is None:
            raise ValueError(f"{type(self).__name__.lower()} needs a class table on the label side; this dataset has pictures there")
        self.classes = label_domain.classes.count
        self.channels = self.classes + 1
        self.perceptual = PerceptualLoss(Path(config.vgg) if config.vgg else None) if getattr(config, "perceptual", 0) else None

    def begin(self) -> None:
        if self.perceptual is not None:
            self.perceptual.load()

    def encode(self, label: LabelMap) -> OneHot:
        """Long[B,H,W] -> Float[B,C+1,H,W], 1 in the last channel where the label is void."""
        known = one_hot(label, self.classes)
        return torch.cat([known, 1 - known.sum(1, keepdim=True)], 1)

    def noise(self, label: LabelMap, i: int, stream: str) -> Tensor:
        """z ~ N(0,1) for each label of this process, Float[B,*noise_shape]: a function of (seed, step, stream, index)."""
        assert self.noise_shape is not None
        draws = (random(self.seed, i, f"noise {stream}", rank() * len(label) + index) for index in range(len(label)))
        return torch.stack([torch.from_numpy(draw.standard_normal(self.noise_shape, dtype="float32")) for draw in draws]).to(label.device)

    def generated(self, label: LabelMap, i: int, stream: str) -> Photo:
        """Photos from these labels, with fresh noise where the generator takes some."""
        return self.generator(self.encode(label), *(() if self.noise_shape is None else (self.noise(label, i, stream),)))

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        if self.noise_shape is None:
            return self.generator(self.encode(label))
        if noise is None:
            raise ValueError(f"{type(self).__name__} makes a photo from a label and noise Float[B,{','.join(map(str, self.noise_shape))}]")
        return self.generator(self.encode(label), noise)

    def network(self, direction: Literal["to_label", "to_photo"]) -> nn.Module | None:
        return self.generator if direction == "to_photo" else None

    def refresh(self, batches: Iterable[Batch]) -> tuple[nn.Module, ...]:
        refresh_statistics(self.generator, self._inputs(batches))
        return (self.generator,)

    def _inputs(self, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, ...]]:
        """What the generator is given for the labels of these batches, in training."""
        for number, batch in enumerate(batches):
            for name, half in (("pairs", batch.paired), ("unpaired", batch.unpaired)):
                if name in self.needs() and len(half.label):
                    noise = () if self.noise_shape is None else (self.noise(half.label, number, f"statistics {name}"),)
                    yield (self.encode(half.label), *noise)
