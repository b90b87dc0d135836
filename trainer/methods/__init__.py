"""The methods by name: one file per paper."""

from trainer.methods.base import Method
from trainer.methods.bicycle_gan import BicycleGAN
from trainer.methods.cc_fpse import CcFpse
from trainer.methods.cyclegan import CycleGAN
from trainer.methods.dance import Dance
from trainer.methods.hybrid import Hybrid
from trainer.methods.oasis import Oasis
from trainer.methods.painter import Painter
from trainer.methods.pix2pix import Pix2Pix
from trainer.methods.pix2pixhd import Pix2PixHD
from trainer.methods.segmentation import Judge, MeanTeacher, Supervised
from trainer.methods.semipaired import SemiPaired
from trainer.methods.spade import Spade
from trainer.methods.tcr import Tcr
from trainer.methods.tripathy import Tripathy
from trainer.methods.usis import Usis

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "judge": Judge,
    "hybrid": Hybrid,
    "pix2pix": Pix2Pix,
    "bicycle_gan": BicycleGAN,
    "cyclegan": CycleGAN,
    "tripathy": Tripathy,
    "mean_teacher": MeanTeacher,
    "painter": Painter,
    "pix2pixhd": Pix2PixHD,
    "dance": Dance,
    "spade": Spade,
    "cc_fpse": CcFpse,
    "oasis": Oasis,
    "tcr": Tcr,
    "usis": Usis,
    "semipaired": SemiPaired,
}
