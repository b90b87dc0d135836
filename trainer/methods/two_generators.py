"""What methods with a generator for each direction share: how a photo becomes a label, and a label a photo."""

from typing import Literal

from torch import Tensor, nn

from trainer.batch import LabelMap, Photo, Scores
from trainer.methods.base import Method
from trainer.methods.label_side import LabelSide


class TwoGenerators(Method):
    """A method whose `label_generator` reads photos and whose `photo_generator` reads labels as `side` spells them; both are exported."""

    directions = frozenset({"to_label", "to_photo"})
    side: LabelSide
    label_generator: nn.Module
    photo_generator: nn.Module

    def network(self, direction: Literal["to_label", "to_photo"]) -> nn.Module | None:
        return self.label_generator if direction == "to_label" else self.photo_generator

    def label_scores(self, photo: Photo) -> Scores | None:
        return self.side.scores(self.label_generator(photo)) if self.side.as_scores else None

    def painted_label(self, photo: Photo) -> Photo | None:
        return self.label_generator(photo) if self.side.in_colours else None

    def to_label(self, photo: Photo) -> LabelMap | Photo:
        return self.side.decode(self.label_generator(photo))

    def to_photo(self, label: LabelMap | Photo, noise: Tensor | None = None) -> Photo:
        return self.photo_generator(self.side.encode(label))
