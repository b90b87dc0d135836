"""How a translator speaks its label side: as colours (the papers), as class scores (our own option), or as a picture."""

from typing import Literal

import torch
from torch import Tensor

from trainer import labels, losses
from trainer.batch import Classes, Domain, LabelMap, Photo, Scores

LabelAs = Literal["colours", "classes"]


class LabelSide:
    """What differs between the spellings, in one place, so that a method reads as its paper does.

    colours: the network sees and paints RGB in [-1,1]; a map is read by the nearest class colour.
    classes: the network sees one-hot maps and answers logits; losses on a known map are cross-entropy.
    A label side that is a picture is always spelt as colours, and is not decoded.
    """

    def __init__(self, domain: Domain, label_as: LabelAs) -> None:
        self.classes: Classes | None = domain.classes
        self.as_scores = domain.kind == "classes" and label_as == "classes"
        self.channels = domain.classes.count if self.as_scores and domain.classes else 3

    @property
    def same_as_photo(self) -> bool:
        """Whether a label has a photo's three channels, so that a generator can be asked to leave its own output domain as it is."""
        return not self.as_scores

    @property
    def in_colours(self) -> bool:
        """Whether classes are spelt as colours, so that a generator's raw output is the RGB picture that `decode` reads them from."""
        return self.classes is not None and not self.as_scores

    def encode(self, label: LabelMap | Photo) -> Tensor:
        """What the networks see: Float[B,channels,H,W]."""
        if self.classes is None:
            return label
        return labels.one_hot(label, self.classes.count) if self.as_scores else labels.colors(label, self.classes)

    def painted(self, output: Tensor) -> Tensor:
        """A generator's raw output in the space of `encode`: probabilities where it answers logits."""
        return torch.softmax(output.float(), 1) if self.as_scores else output

    def decode(self, output: Tensor) -> LabelMap | Photo:
        """A generator's raw output as class indices, or as the picture it is."""
        if self.classes is None:
            return output
        return labels.best_class(output) if self.as_scores else labels.nearest_class(output, self.classes)

    def scores(self, output: Tensor) -> Scores | None:
        """A generator's raw output as logits, where it is that."""
        return output if self.as_scores else None

    def distance(self, output: Tensor, label: LabelMap | Photo, kind: losses.Distance = "l1") -> Tensor:
        """How far a generator's raw output is from a known label: `kind` on colours, cross-entropy on scores; a mean.

        # Unlike the paper: void pixels weigh nothing, as everywhere in this project.
        """
        if self.classes is None:
            return losses.difference(output, label, kind=kind)
        if self.as_scores:
            return losses.cross_entropy(output, label)
        return losses.difference(output, labels.colors(label, self.classes), labels.counted(label), kind=kind)
