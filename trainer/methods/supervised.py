"""The label generator alone, with cross-entropy on the pairs: what a user would try first, and the rival to beat."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from trainer import losses
from trainer.batch import Batch, Domain, LabelMap, Photo, Scores
from trainer.labels import best_class
from trainer.methods.base import Method, Player, Update, constant_then_linear
from trainer.networks.resnet import ResNetGenerator


@dataclass(frozen=True)
class Config:
    """The choices of `supervised`."""

    width: int = 64
    """Channels of the generator's first layer."""
    blocks: int = 9
    """Residual blocks of the generator."""
    lr: float = 2e-4
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.999
    """Decay of the weights' running average."""


class Supervised(Method):
    """Minimises the cross-entropy of the label generator on the paired half; reads nothing else."""

    config_class = Config
    directions = frozenset({"to_label"})
    multiple_of = ResNetGenerator.multiple_of

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        if label_domain.classes is None:
            raise ValueError("supervised needs a class table on the label side; this dataset has pictures there")
        self.label_generator = ResNetGenerator(3, label_domain.classes.count, width=config.width, blocks=config.blocks, tanh=False)

    def players(self) -> dict[str, Player]:
        return {"generator": Player((self.label_generator,), self.config.lr, (0.5, 0.999), constant_then_linear, self.config.ema)}

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        scores = self.label_generator(batch.paired.photo)
        yield Update("generator", {"cross_entropy": losses.cross_entropy(scores, batch.paired.label)})

    def network(self, direction: Literal["to_label", "to_photo"]) -> ResNetGenerator | None:
        return self.label_generator if direction == "to_label" else None

    def label_scores(self, photo: Photo) -> Scores:
        return self.label_generator(photo)

    def to_label(self, photo: Photo) -> LabelMap:
        return best_class(self.label_scores(photo))
