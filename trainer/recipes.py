"""What one run consists of, and the named runs."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from trainer.errors import UserError
from trainer.methods import (
    METHODS,
    cyclegan,
    hybrid,
    judge,
    mean_teacher,
    oasis,
    pix2pix,
    semipaired,
    spade,
    supervised,
    tcr,
    tripathy,
    usis,
)


@dataclass(frozen=True)
class Run:
    """Everything that decides a run's result, beside the files of its dataset."""

    recipe: str
    """The named recipe that this run started from."""
    method: str
    """A name of METHODS."""
    config: Any
    """The method's Config."""
    data: str
    """A name of the catalogue."""
    root: str | None
    """The dataset's folder; None for the built-in scenes."""
    pairs: int | Literal["all"]
    """k, the number of pairs; "all" the training pairs only in a recipe: a run says how many that were."""
    unpaired: int | None
    """How many samples of the training split the unpaired pool holds; None: all."""
    size: tuple[int, int]
    """Height and width of a training crop, and of the whole picture in evaluation and use."""
    steps: int
    """Optimiser steps of each player."""
    seed: int
    """Decides weights, choice of pairs, order, crops, flips and pool draws."""
    batch: int = 1
    """Samples of each half in a step."""
    balanced: bool = True
    """Both halves in every step. False: the smaller set fills its half as seldom as it is smaller (|P|/|U| of the steps for the pairs)."""
    rule: str = "random"
    """How the pairs are chosen: a name of trainer.data.choice.RULES."""
    pool_rule: str = "random"
    """How the unpaired pool is chosen, by the same names."""
    features: str | None = None
    """The extractor's file (.onnx, or a state dict of torchvision's resnet50); None: torchvision's ResNet-50, where a rule needs one."""
    unpaired_labels: str | None = None
    """DATASET:FOLDER, where the unpaired label maps come from; None: from the dataset itself. pairs.json says what its classes become."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16: autocast, with losses in fp32. auto: bf16 where the hardware computes in it."""
    evaluate_every: int = 500
    """Steps between evaluations on `val`, each followed by a sample sheet and a checkpoint."""
    save_every: int = 200
    """Steps between checkpoints."""
    keep: tuple[int, ...] = ()
    """Steps whose checkpoints are kept as step-NNNNNN.ckpt, to compare runs at equal steps."""
    log_every: int = 20
    """Steps between lines in metrics.jsonl, and between checks that every loss is finite."""
    label_weights: str | None = None
    """A ResNet generator of junyanz/pytorch-CycleGAN-and-pix2pix (a .pth file) that the label generator starts from."""
    photo_weights: str | None = None
    """The same for the photo generator."""
    expected: str = "not yet reproduced"
    """The result that this recipe is expected to reach."""


def to_json(run: Run) -> dict[str, Any]:
    """A run as plain JSON values."""
    return dataclasses.asdict(run) | {"size": list(run.size), "keep": list(run.keep)}


def from_json(values: dict[str, Any]) -> Run:
    """The run that `to_json` wrote. Raises UserError on a method or field that this version does not know."""
    name = values.get("method")
    if name not in METHODS:
        raise UserError(f"this run's method is {name!r}; this version of fewpair knows {', '.join(METHODS)}")
    config = _known(METHODS[name].config_class, values["config"])
    return _known(Run, values | {"config": config, "size": tuple(values["size"]), "keep": tuple(values["keep"])})


def _known(kind: type, values: dict[str, Any]) -> Any:
    fields = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(values.keys() - fields)
    if unknown:
        raise UserError(
            f"{', '.join(unknown)} in this run's config.json is not known to this version of fewpair; it knows {', '.join(sorted(fields))}"
        )
    return kind(**values)


COMPACT: dict[str, Any] = {"width": 32, "blocks": 6}
"""The networks of the compact recipes: they train on a CPU."""


MEASURED = "the figures of docs/results/camvid-compact.md"
"""What the recipes that were run on CamVid are expected to reach."""


def _camvid(recipe: str, method: str, config: Any, *, steps: int, expected: str = "not yet reproduced", **changes: Any) -> Run:
    values: dict[str, Any] = {"pairs": 20, "unpaired": 200, "size": (128, 192), "seed": 0, "data": "camvid", "root": None}
    return Run(recipe=recipe, method=method, config=config, steps=steps, expected=expected, **(values | changes))


def _ucsd(recipe: str, method: str, config: Any, **changes: Any) -> Run:
    """The UCSD report's settings on the facades: batches of 16, 150 epochs of 400 pictures; nothing says that its rate falls, ours does."""
    values: dict[str, Any] = {"size": (256, 256), "steps": 3750, "batch": 16, "seed": 0, "data": "facades-pictures", "root": None}
    return Run(recipe=recipe, method=method, config=config, **(values | changes))


NARROW: dict[str, Any] = {"width": 12, "lr": 1e-3, "ema": 0.99}
"""The label -> photo methods at a size that trains on a CPU."""

PAPER: dict[str, Any] = {"size": (256, 512), "batch": 8, "steps": 9200, "evaluate_every": 920, "save_every": 460}
"""The semi-paired paper's Cityscapes, on CamVid."""


def _from_labels(recipe: str, method: str, config: Any, **changes: Any) -> Run:
    return _camvid(recipe, method, config, **({"pairs": 73, "unpaired": None, "steps": 800, "batch": 2, "evaluate_every": 400} | changes))


UCSD: dict[str, Any] = {"generator": "unet", "norm": "batch", "game": "vanilla"}
"""The networks and the game of the UCSD report, which are pix2pix's own."""

SMALL: dict[str, Any] = {"width": 32, "levels": 6}
"""A U-Net for the compact sizes: 64 divides them."""


RECIPES: dict[str, Run] = {
    run.recipe: run
    for run in (
        Run(
            recipe="scenes-demo",
            method="hybrid",
            config=hybrid.Config(width=24, blocks=4, label_as="classes", lr=4e-4, ema=0.99),
            data="scenes",
            root=None,
            pairs=8,
            unpaired=64,
            size=(64, 96),
            steps=400,
            seed=0,
            evaluate_every=100,
            expected="mean IoU on scenes test above both floors by at least .10",
        ),
        _camvid("hybrid-compact", "hybrid", hybrid.Config(label_as="classes", **COMPACT), steps=2000, expected=MEASURED),
        _camvid("hybrid-compact-colours", "hybrid", hybrid.Config(label_as="colours", **COMPACT), steps=2000, expected=MEASURED),
        _camvid("pix2pix-compact", "pix2pix", pix2pix.Config(label_as="classes", **COMPACT), steps=2000, expected=MEASURED),
        _camvid("pix2pix-compact-colours", "pix2pix", pix2pix.Config(label_as="colours", **COMPACT), steps=2000, expected=MEASURED),
        _camvid("cyclegan-compact", "cyclegan", cyclegan.Config(label_as="classes", **COMPACT), steps=2000, pairs=0, expected=MEASURED),
        _camvid("cyclegan-compact-colours", "cyclegan", cyclegan.Config(label_as="colours", **COMPACT), steps=2000, pairs=0),
        # paired_steps: a quarter of the steps, as the paper's 50 of 200 epochs
        _camvid("tripathy-compact", "tripathy", tripathy.Config(paired_steps=500, label_as="classes", **COMPACT), steps=2000),
        _camvid("supervised-compact", "supervised", supervised.Config(**COMPACT), steps=8000, expected=MEASURED),
        # Our own. fp32: in bf16 the encoder's depthwise convolutions are slower on a CPU. 96x128 has the photos' own proportions.
        _camvid(
            "mean-teacher-compact",
            "mean_teacher",
            mean_teacher.Config(),
            steps=5200,
            size=(96, 128),
            precision="fp32",
            expected="the figures of docs/results/own-recipe.md",
        ),
        _camvid(
            "judge",
            "judge",
            judge.Config(),
            steps=2400,
            batch=4,
            pairs="all",
            unpaired=0,
            evaluate_every=300,
            expected="mean IoU on CamVid val .55, devtest .42, from all 367 pairs (docs/methods/judge.md)",
        ),
        # Photos from label maps, a fifth of CamVid paired. The rates are ten times the papers': so few steps at so small a width want more.
        _from_labels("spade-compact", "spade", spade.Config(lr_discriminator=1e-3, **NARROW), unpaired=0),
        _from_labels("oasis-compact", "oasis", oasis.Config(lr_discriminator=1e-3, **NARROW), unpaired=0),
        _from_labels("tcr-compact", "tcr", tcr.Config(lr_discriminator=1e-3, **NARROW)),
        _from_labels("usis-compact", "usis", usis.Config(lr_discriminator=2e-4, **NARROW), pairs=0),
        _from_labels(
            "semipaired-compact",
            "semipaired",
            semipaired.Config(lr_discriminator=2e-4, feature_matching=1e-4, **NARROW),
        ),
        # The papers' networks and rates, batches of 8 as in the semi-paired paper, and the released codes' first weights; the steps are
        # 200 epochs of the 367 photos.
        _from_labels("spade-paper", "spade", spade.Config(more=True, first_weights="xavier"), unpaired=0, **PAPER),
        _from_labels("oasis-paper", "oasis", oasis.Config(first_weights="xavier"), unpaired=0, **PAPER),
        _from_labels("tcr-paper", "tcr", tcr.Config(first_weights="xavier"), **PAPER),
        _from_labels("usis-paper", "usis", usis.Config(first_weights="xavier"), pairs=0, **PAPER),
        _from_labels("semipaired-paper", "semipaired", semipaired.Config(first_weights="xavier"), **PAPER),
        # The papers' own networks, size and weights; 80 000 steps is our reading of their five hours (docs/methods/hybrid.md).
        _camvid("hybrid-paper", "hybrid", hybrid.Config(), steps=80_000, size=(256, 256), evaluate_every=4000, save_every=1000),
        _camvid("pix2pix-paper", "pix2pix", pix2pix.Config(), steps=80_000, size=(256, 256), evaluate_every=4000, save_every=1000),
        _camvid(
            "tripathy-paper",
            "tripathy",
            tripathy.Config(paired_steps=20_000),
            steps=80_000,
            size=(256, 256),
            evaluate_every=4000,
            save_every=1000,
        ),
        _camvid(
            "cyclegan-paper", "cyclegan", cyclegan.Config(), steps=80_000, size=(256, 256), pairs=0, evaluate_every=4000, save_every=1000
        ),
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
