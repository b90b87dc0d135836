"""The named recipes."""

from typing import Any

from trainer.methods import (
    cyclegan,
    hybrid,
    oasis,
    painter,
    pix2pix,
    segmentation,
    semipaired,
    spade,
    tcr,
    tripathy,
    usis,
)
from trainer.run import Run

COMPACT: dict[str, Any] = {"width": 32, "blocks": 6}
"""The networks of the compact recipes: they train on a CPU."""


MEASURED = "the figures of docs/results/camvid-compact.md"
"""What the recipes that were run on CamVid are expected to reach."""


def _camvid(
    recipe: str, method: str, config: Any, *, steps: int, expected: str = "not yet reproduced", **changes: Any
) -> Run:
    values: dict[str, Any] = {
        "pairs": 20,
        "unpaired": 200,
        "size": (128, 192),
        "seed": 0,
        "data": "camvid",
        "root": None,
    }
    return Run(recipe=recipe, method=method, config=config, steps=steps, expected=expected, **(values | changes))


def _ucsd(recipe: str, method: str, config: Any, **changes: Any) -> Run:
    """The UCSD report's settings on the facades: batches of 16, 150 epochs of 400 pictures; our rate falls."""
    values: dict[str, Any] = {
        "size": (256, 256),
        "steps": 3750,
        "batch": 16,
        "seed": 0,
        "data": "facades-pictures",
        "root": None,
    }
    return Run(recipe=recipe, method=method, config=config, **(values | changes))


NARROW: dict[str, Any] = {"width": 12, "lr": 1e-3, "ema": 0.99, "first_weights": "torch"}
"""The label -> photo methods at a size that trains on a CPU."""

CITYSCAPES: dict[str, Any] = {
    "data": "cityscapes-34",
    "size": (256, 512),
    "enlarge": False,
    "evaluate_every": 2500,
    "save_every": 500,
}
"""Cityscapes as SPADE, OASIS, USIS and the semi-paired paper train on it: resized, flipped, not cropped."""


def _from_labels(recipe: str, method: str, config: Any, **changes: Any) -> Run:
    return _camvid(
        recipe,
        method,
        config,
        **({"pairs": 73, "unpaired": None, "steps": 800, "batch": 2, "evaluate_every": 400} | changes),
    )


def _hybrid_paper(recipe: str, method: str, config: Any, **changes: Any) -> Run:
    return _camvid(
        recipe, method, config, steps=40_000, size=(256, 256), evaluate_every=4000, save_every=1000, **changes
    )


def _facades(recipe: str, method: str, config: Any, **changes: Any) -> Run:
    """pix2pix's facades: 400 pairs, batches of one, 200 epochs."""
    return Run(
        recipe=recipe,
        method=method,
        config=config,
        data="facades-pictures",
        root=None,
        size=(256, 256),
        steps=80_000,
        seed=0,
        evaluate_every=4000,
        save_every=1000,
        **changes,
    )


UCSD: dict[str, Any] = {"generator": "unet", "norm": "batch", "game": "vanilla"}
"""The networks and the GAN loss of the UCSD report, which are pix2pix's own."""

SMALL: dict[str, Any] = {"width": 32, "levels": 6}
"""A U-Net for the compact sizes: 64 divides them."""


RECIPES: dict[str, Run] = {
    run.recipe: run
    for run in (
        Run(
            recipe="scenes-demo",
            method="mean_teacher",
            config=segmentation.MeanTeacherConfig(width=64, warm_up=150),
            data="scenes",
            root=None,
            pairs=8,
            unpaired=64,
            size=(128, 192),
            progressive=((0.4, 64, 96),),
            batch=2,
            steps=450,
            seed=0,
            precision="fp32",
            evaluate_every=450,
            expected="mean IoU .57 on the first 40 scenes of test",
        ),
        _camvid(
            "hybrid-compact", "hybrid", hybrid.Config(label_as="classes", **COMPACT), steps=2000, expected=MEASURED
        ),
        _camvid(
            "hybrid-compact-colours",
            "hybrid",
            hybrid.Config(label_as="colours", **COMPACT),
            steps=2000,
            expected=MEASURED,
        ),
        _camvid(
            "pix2pix-compact", "pix2pix", pix2pix.Config(label_as="classes", **COMPACT), steps=2000, expected=MEASURED
        ),
        _camvid(
            "pix2pix-compact-colours",
            "pix2pix",
            pix2pix.Config(label_as="colours", **COMPACT),
            steps=2000,
            expected=MEASURED,
        ),
        _camvid(
            "cyclegan-compact",
            "cyclegan",
            cyclegan.Config(label_as="classes", **COMPACT),
            steps=2000,
            pairs=0,
            expected=MEASURED,
        ),
        _camvid(
            "cyclegan-compact-colours", "cyclegan", cyclegan.Config(label_as="colours", **COMPACT), steps=2000, pairs=0
        ),
        # paired_steps: a quarter of the steps, as the paper's 50 of 200 epochs
        _camvid(
            "tripathy-compact", "tripathy", tripathy.Config(paired_steps=500, label_as="classes", **COMPACT), steps=2000
        ),
        _camvid(
            "supervised-compact", "supervised", segmentation.SupervisedConfig(**COMPACT), steps=8000, expected=MEASURED
        ),
        # Our own. fp32: in bf16 the encoder's depthwise convolutions are slower on a CPU.
        _camvid(
            "mean-teacher-compact",
            "mean_teacher",
            segmentation.MeanTeacherConfig(),
            unpaired=None,
            steps=3200,
            size=(256, 352),
            progressive=((0.375, 96, 128), (0.75, 192, 256)),
            batch=2,
            evaluate_every=1000,
            precision="fp32",
            expected="mean IoU on CamVid val .566, devtest .518, one seed (docs/results/camvid.md)",
        ),
        _camvid(
            "painter-compact",
            "painter",
            painter.Config(),
            unpaired=None,
            steps=2800,
            size=(192, 256),
            progressive=((0.75, 96, 128),),
            batch=2,
            balanced=False,
            evaluate_every=2800,
            expected="with 40 labels KID .45 on CamVid val, .71 on devtest, one seed",
        ),
        _camvid(
            "judge",
            "judge",
            segmentation.JudgeConfig(),
            steps=2400,
            batch=4,
            pairs="all",
            unpaired=0,
            evaluate_every=300,
            expected="mean IoU on CamVid val .55, devtest .42, from all 367 pairs (docs/methods/judge.md)",
        ),
        # Photos from label maps, a fifth of CamVid paired. The rates are ten times the papers': so few steps at so
        # small a width want more.
        _from_labels("spade-compact", "spade", spade.Config(lr_discriminator=1e-3, **NARROW), unpaired=0),
        _from_labels("oasis-compact", "oasis", oasis.Config(lr_discriminator=1e-3, **NARROW), unpaired=0),
        _from_labels("tcr-compact", "tcr", tcr.Config(lr_discriminator=1e-3, **NARROW)),
        _from_labels("usis-compact", "usis", usis.Config(lr_discriminator=2e-4, **NARROW), pairs=0),
        _from_labels(
            "semipaired-compact",
            "semipaired",
            semipaired.Config(lr_discriminator=2e-4, feature_matching=1e-4, **NARROW),
        ),
        # Each by its own paper, 200 epochs of its training set; none of them was run here.
        _from_labels(
            "spade-paper",
            "spade",
            spade.Config(more=True),
            pairs="all",
            unpaired=0,
            **(CITYSCAPES | {"batch": 16, "steps": 37_200}),
        ),
        _from_labels(
            "oasis-paper",
            "oasis",
            oasis.Config(lr=4e-4, label_mix=5.0, ema=0.999),
            pairs="all",
            unpaired=0,
            **(CITYSCAPES | {"batch": 20, "steps": 29_800}),
        ),
        _from_labels("usis-paper", "usis", usis.Config(), pairs=0, **(CITYSCAPES | {"batch": 8, "steps": 74_400})),
        _from_labels(
            "semipaired-paper",
            "semipaired",
            semipaired.Config(),
            pairs=600,
            **(CITYSCAPES | {"batch": 8, "steps": 74_400}),
        ),
        _facades("pix2pix-paper", "pix2pix", pix2pix.Config(direction="to_photo", **UCSD), pairs="all", unpaired=0),
        _facades("cyclegan-paper", "cyclegan", cyclegan.Config(identity=0.0), pairs=0, unpaired=None),
        # The hybrid paper's own networks, size and weights, and its baselines. A step here is two of its released
        # code; 40 000 are our reading of its five hours (docs/methods/hybrid.md).
        _hybrid_paper("hybrid-paper", "hybrid", hybrid.Config()),
        _hybrid_paper("hybrid-paper-pix2pix", "pix2pix", pix2pix.Config()),
        _hybrid_paper("hybrid-paper-cyclegan", "cyclegan", cyclegan.Config(), pairs=0),
        _hybrid_paper("hybrid-paper-tripathy", "tripathy", tripathy.Config(paired_steps=10_000)),
        _ucsd("ucsd-paired", "pix2pix", pix2pix.Config(direction="to_photo", **UCSD), pairs="all", unpaired=0),
        _ucsd("ucsd-unpaired", "cyclegan", cyclegan.Config(identity=0.0, **UCSD), pairs=0, unpaired=None),
        _ucsd(
            "ucsd-paired-compact",
            "pix2pix",
            pix2pix.Config(direction="to_photo", **UCSD, **SMALL),
            pairs="all",
            unpaired=0,
            size=(128, 128),
            steps=2000,
            batch=4,
        ),
        _ucsd(
            "ucsd-unpaired-compact",
            "cyclegan",
            cyclegan.Config(identity=0.0, **UCSD, **SMALL),
            pairs=0,
            unpaired=None,
            size=(128, 128),
            steps=2000,
            batch=4,
        ),
    )
}
