"""A small segmenter trained on real pairs, to judge generated photos by: our stand-in for the FCN score's FCN-8s."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from trainer import losses
from trainer.batch import Batch, Domain, LabelMap, Photo, Scores
from trainer.labels import best_class
from trainer.methods.base import Method, Player, Update, constant_then_linear
from trainer.networks.segmenter import Segmenter


@dataclass(frozen=True)
class Config:
    """The choices of `judge`."""

    width: int = 24
    """Channels of the segmenter's first stage, a multiple of 8."""
    dice: float = 0.5
    """Weight of the soft Dice loss beside the cross-entropy: every class of a batch weighs the same there, however few its pixels."""
    lr: float = 3e-3
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.998
    """Decay of the weights' running average."""


class Judge(Method):
    """Minimises cross-entropy + dice x soft Dice on the paired half; reads nothing else.

    On all pairs of a dataset it is the judge; on the few pairs of a run it is what Shukla et al.'s Table 6 asks of FCN-8s.
    """

    config_class = Config
    directions = frozenset({"to_label"})
    multiple_of = Segmenter.multiple_of

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        if label_domain.classes is None:
            raise ValueError("judge needs a class table on the label side; this dataset has pictures there")
        self.segmenter = Segmenter(label_domain.classes.count, width=config.width)

    def players(self) -> dict[str, Player]:
        return {"segmenter": Player((self.segmenter,), self.config.lr, (0.9, 0.999), constant_then_linear, self.config.ema)}

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        scores, label = self.segmenter(batch.paired.photo), batch.paired.label
        terms = {"cross_entropy": losses.cross_entropy(scores, label)}
        if self.config.dice:
            terms["dice"] = self.config.dice * losses.soft_dice(scores, label)
        yield Update("segmenter", terms)

    def network(self, direction: Literal["to_label", "to_photo"]) -> Segmenter | None:
        return self.segmenter if direction == "to_label" else None

    def label_scores(self, photo: Photo) -> Scores:
        return self.segmenter(photo)

    def to_label(self, photo: Photo) -> LabelMap:
        return best_class(self.label_scores(photo))
