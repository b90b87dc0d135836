"""TCR of Mustafa and Mantiuk on OASIS: generating and then warping must equal warping and then generating."""

from dataclasses import dataclass

from torch import Tensor

from trainer import losses
from trainer.augment import drawn_warps, warped, warped_label
from trainer.batch import Batch
from trainer.methods.oasis import Config as OasisConfig
from trainer.methods.oasis import Oasis


@dataclass(frozen=True)
class Config(OasisConfig):
    """The choices of `tcr`: OASIS's, and the consistency, whose weight and warps Eskandar et al. do not state."""

    consistency: float = 1.0
    """Weight of the transformation consistency (ours; the super-resolution script has 0.01, on pixels in 0..1)."""
    translation: float = 6.0
    """Warps shift by up to so many pixels, each way (compute_tcr_loss.py)."""
    rotation: float = 10.0
    """Warps turn by up to so many degrees."""
    shear: float = 10.0
    """Warps shear by up to so many degrees, along each axis."""


class Tcr(Oasis):
    """OASIS on the pairs, and |T(G(m, z)) - G(T(m), z)| on unpaired label maps m, a random warp T for each.

    Both sides have the same noise and take gradients; pixels that T brings in from outside weigh nothing. Unpaired
    photos are not read.
    """

    config_class = Config
    config: Config
    reads = frozenset({"pairs", "unpaired label maps"})

    def generator_losses(self, batch: Batch, i: int) -> dict[str, Tensor]:
        config, label = self.config, batch.unpaired.label
        terms = super().generator_losses(batch, i)
        draws = self.draws(i, "warp", len(label))
        size = (label.shape[1], label.shape[2])
        warps = drawn_warps(draws, size, translation=config.translation, rotation=config.rotation, shear=config.shear)
        noise = self.noise(label, i, "consistency")
        turned_label, inside = warped_label(label, warps)
        turned_photo = warped(self.generator(self.encode(label), noise).float(), warps)
        again = self.generator(self.encode(turned_label), noise)
        terms["consistency"] = config.consistency * losses.difference(again, turned_photo, inside)
        return terms
