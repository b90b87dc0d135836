"""TCR of Mustafa and Mantiuk on OASIS: unlabelled label maps teach that warping before or after the generator is the same."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from trainer import losses
from trainer.augment import drawn_warps, warped, warped_label
from trainer.batch import Batch, random
from trainer.methods.oasis import Config as OasisConfig
from trainer.methods.oasis import Oasis
from trainer.networks.synchronised import rank


@dataclass(frozen=True)
class Config(OasisConfig):
    """The choices of `tcr`: OASIS's, and the consistency. Eskandar et al., who compare with it, state neither weight nor warps."""

    consistency: float = 1.0
    """Weight of the transformation consistency (ours; the super-resolution script has 0.01, on pixels in 0..1)."""
    translation: float = 6.0
    """Warps shift by up to so many pixels, each way (compute_tcr_loss.py)."""
    rotation: float = 10.0
    """Warps turn by up to so many degrees."""
    shear: float = 10.0
    """Warps shear by up to so many degrees, along each axis."""


class Tcr(Oasis):
    """OASIS on the pairs, and consistency |T(G(m, z)) - G(T(m), z)| on unpaired label maps m, with one random warp T for each.

    Both sides have the same noise and take gradients; pixels that T brings in from outside weigh nothing. Unpaired photos are not read.
    """

    config_class = Config
    config: Config

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs", "unpaired"})

    def generator_losses(self, batch: Batch, i: int) -> dict[str, Tensor]:
        config, label = self.config, batch.unpaired.label
        terms = super().generator_losses(batch, i)
        draws = [random(self.seed, i, "warp", rank() * len(label) + index) for index in range(len(label))]
        warps = drawn_warps(
            draws, (label.shape[1], label.shape[2]), translation=config.translation, rotation=config.rotation, shear=config.shear
        )
        noise = self.noise(label, i, "consistency")
        turned_label, inside = warped_label(label, warps)
        turned_photo = warped(self.generator(self.encode(label), noise).float(), warps)
        again = self.generator(self.encode(turned_label), noise)
        terms["consistency"] = config.consistency * losses.absolute_difference(again, turned_photo, inside)
        return terms
