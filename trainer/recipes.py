"""The named recipes."""

from typing import Any

from trainer.methods import METHODS
from trainer.run import Run

Values = dict[str, Any]

PAIRED: Values = {"pairs": "all", "unpaired": 0}
UNPAIRED: Values = {"pairs": 0, "unpaired": None}

CAMVID: Values = {"data": "camvid", "pairs": 20, "unpaired": 200, "size": (128, 192), "steps": 2000}
MEASURED: Values = CAMVID | {"expected": "the figures of docs/results/camvid-compact.md"}
PHOTOS: Values = CAMVID | {"pairs": 73, "unpaired": None, "steps": 800, "batch": 2, "evaluate_every": 400}
"""Photos from label maps, a fifth of CamVid paired."""
HYBRID: Values = CAMVID | {"size": (256, 256), "steps": 40_000, "evaluate_every": 4000, "save_every": 1000}
"""A step here is two of the hybrid paper's released code; 40 000 are our reading of its five hours."""
CITYSCAPES: Values = {
    "data": "cityscapes-34",
    "size": (256, 512),
    "enlarge": False,
    "evaluate_every": 2500,
    "save_every": 500,
}
"""Cityscapes as SPADE, OASIS, USIS and the semi-paired paper train on it: resized, flipped, not cropped."""
UCSD: Values = {"data": "facades-pictures", "size": (256, 256), "steps": 3750, "batch": 16}
"""The UCSD report's settings: batches of 16, 150 epochs of 400 pictures; our rate falls."""
UCSD_COMPACT: Values = UCSD | {"size": (128, 128), "steps": 2000, "batch": 4}
FACADES: Values = UCSD | {"steps": 80_000, "batch": 1, "evaluate_every": 4000, "save_every": 1000}
"""pix2pix's facades: 400 pairs, batches of one, 200 epochs."""

COMPACT: Values = {"width": 32, "blocks": 6}
"""Networks that train on a CPU."""
CLASSES: Values = COMPACT | {"label_as": "classes"}
COLOURS: Values = COMPACT | {"label_as": "colours"}
NARROW: Values = {"width": 12, "lr": 1e-3, "ema": 0.99, "initialisation": "torch"}
"""The label -> photo methods at a size that trains on a CPU. The rates are ten times the papers': so few steps at so
small a width want more."""
PIX2PIX: Values = {"generator": "unet", "norm": "batch", "gan_loss": "vanilla"}
"""The networks and the GAN loss of the UCSD report, which are pix2pix's own."""
SMALL: Values = PIX2PIX | {"width": 32, "levels": 6}
"""A U-Net for the compact sizes: 64 divides them."""


def _run(recipe: str, method: str, run: Values, **config: Any) -> Run:
    """A recipe: the fields of its run, and those of the method's config that differ from the defaults."""
    return Run(recipe=recipe, method=method, config=METHODS[method].config_class(**config), root=None, seed=0, **run)


RECIPES: dict[str, Run] = {
    run.recipe: run
    for run in (
        _run(
            "scenes-demo",
            "mean_teacher",
            {"data": "scenes", "pairs": 8, "unpaired": 64, "size": (128, 192), "progressive": ((0.4, 64, 96),)}
            | {"batch": 2, "steps": 450, "evaluate_every": 450, "precision": "fp32"}
            | {"expected": "mean IoU .57 on the first 40 scenes of test"},
            width=64,
            warm_up=150,
        ),
        _run("hybrid-compact", "hybrid", MEASURED, **CLASSES),
        _run("hybrid-compact-colours", "hybrid", MEASURED, **COLOURS),
        _run("pix2pix-compact", "pix2pix", MEASURED, **CLASSES),
        _run("pix2pix-compact-colours", "pix2pix", MEASURED, **COLOURS),
        _run("cyclegan-compact", "cyclegan", MEASURED | {"pairs": 0}, **CLASSES),
        _run("cyclegan-compact-colours", "cyclegan", CAMVID | {"pairs": 0}, **COLOURS),
        # paired_steps: a quarter of the steps, as the paper's 50 of 200 epochs
        _run("tripathy-compact", "tripathy", CAMVID, paired_steps=500, **CLASSES),
        _run("supervised-compact", "supervised", MEASURED | {"steps": 8000}, **COMPACT),
        # Our own. fp32: in bf16 the encoder's depthwise convolutions are slower on a CPU.
        _run(
            "mean-teacher-compact",
            "mean_teacher",
            CAMVID
            | {"unpaired": None, "size": (256, 352), "progressive": ((0.375, 96, 128), (0.75, 192, 256))}
            | {"batch": 2, "steps": 3200, "evaluate_every": 1000, "precision": "fp32"}
            | {"expected": "mean IoU on CamVid val .547, devtest .522, three seeds (docs/results/camvid.md)"},
        ),
        _run(
            "painter-compact",
            "painter",
            CAMVID
            | {"unpaired": None, "size": (192, 256), "progressive": ((0.75, 96, 128),)}
            | {"batch": 2, "steps": 4200, "evaluate_every": 4200, "balanced": False}
            | {"expected": "KID .44 on CamVid val, .33 on devtest, one seed (docs/results/camvid.md)"},
        ),
        _run(
            "painter-facades",
            "painter",
            PAIRED
            | {"data": "facades", "size": (256, 256), "progressive": ((0.8, 128, 128),)}
            | {"batch": 4, "steps": 2400, "evaluate_every": 2400}
            | {"expected": "KID .18 on val, one seed (docs/results/facades.md)"},
        ),
        _run(
            "judge",
            "judge",
            CAMVID
            | {"pairs": "all", "unpaired": 0, "steps": 2400, "batch": 4, "evaluate_every": 300}
            | {"expected": "mean IoU on CamVid val .55, devtest .42, from all 367 pairs (docs/methods/judge.md)"},
        ),
        _run(
            "pix2pixhd-compact",
            "pix2pixhd",
            PHOTOS | {"unpaired": 0},
            halvings=3,
            global_steps=400,
            frozen_steps=40,
            ema=0.99,
            **COMPACT,
        ),
        _run(
            "dance-compact",
            "dance",
            PAIRED | {"data": "walker", "size": (96, 128), "steps": 1200, "enlarge": False, "evaluate_every": 600},
            halvings=3,
            global_steps=600,
            perceptual=0.0,
            ema=0.99,
            **COMPACT,
        ),
        _run("spade-compact", "spade", PHOTOS | {"unpaired": 0}, lr_discriminator=1e-3, **NARROW),
        # The kernels are kept: at this size they fit.
        _run("cc-fpse-compact", "cc_fpse", PHOTOS | {"unpaired": 0}, recompute=False, lr_discriminator=1e-3, **NARROW),
        _run("oasis-compact", "oasis", PHOTOS | {"unpaired": 0}, lr_discriminator=1e-3, **NARROW),
        _run("tcr-compact", "tcr", PHOTOS, lr_discriminator=1e-3, **NARROW),
        _run("usis-compact", "usis", PHOTOS | {"pairs": 0}, lr_discriminator=2e-4, **NARROW),
        _run("semipaired-compact", "semipaired", PHOTOS, lr_discriminator=2e-4, feature_matching=1e-4, **NARROW),
        # Each by its own paper, 200 epochs of its training set; none of them was run here.
        # 200 epochs of the global generator and 100 of both; the paper's second stage is at 1024x2048.
        _run(
            "pix2pixhd-paper",
            "pix2pixhd",
            CITYSCAPES | PAIRED | {"size": (512, 1024), "steps": 892_500, "evaluate_every": 29_750},
            edges="instances",
        ),
        # The released code's sizes; the numbers of steps are ours.
        _run(
            "dance-paper",
            "dance",
            PAIRED
            | {"data": "clips", "size": (512, 1024), "steps": 200_000, "enlarge": False, "evaluate_every": 20_000},
            global_steps=130_000,
        ),
        _run("spade-paper", "spade", CITYSCAPES | PAIRED | {"batch": 16, "steps": 37_200}, more=True),
        _run("cc-fpse-paper", "cc_fpse", CITYSCAPES | PAIRED | {"batch": 16, "steps": 37_200}, more=True),
        _run(
            "oasis-paper",
            "oasis",
            CITYSCAPES | PAIRED | {"batch": 20, "steps": 29_800},
            lr=4e-4,
            label_mix=5.0,
            ema=0.999,
        ),
        _run("usis-paper", "usis", CITYSCAPES | UNPAIRED | {"batch": 8, "steps": 74_400}),
        _run(
            "semipaired-paper", "semipaired", CITYSCAPES | {"pairs": 600, "unpaired": None, "batch": 8, "steps": 74_400}
        ),
        _run("pix2pix-paper", "pix2pix", FACADES | PAIRED, direction="to_photo", **PIX2PIX),
        # 400 epochs, resized without a crop.
        _run("bicycle-gan-paper", "bicycle_gan", FACADES | PAIRED | {"batch": 2, "enlarge": False}),
        _run("cyclegan-paper", "cyclegan", FACADES | UNPAIRED, identity=0.0),
        # The hybrid paper's own networks, size and weights, and its baselines.
        _run("hybrid-paper", "hybrid", HYBRID),
        _run("hybrid-paper-pix2pix", "pix2pix", HYBRID),
        _run("hybrid-paper-cyclegan", "cyclegan", HYBRID | {"pairs": 0}),
        _run("hybrid-paper-tripathy", "tripathy", HYBRID, paired_steps=10_000),
        _run("ucsd-paired", "pix2pix", UCSD | PAIRED, direction="to_photo", **PIX2PIX),
        _run("ucsd-unpaired", "cyclegan", UCSD | UNPAIRED, identity=0.0, **PIX2PIX),
        _run("ucsd-paired-compact", "pix2pix", UCSD_COMPACT | PAIRED, direction="to_photo", **SMALL),
        _run("bicycle-gan-compact", "bicycle_gan", UCSD_COMPACT | PAIRED, width=32, levels=6),
        _run("ucsd-unpaired-compact", "cyclegan", UCSD_COMPACT | UNPAIRED, identity=0.0, **SMALL),
    )
}
