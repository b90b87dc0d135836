"""Small real things for tests: batches, methods, runs on the synthetic scenes."""

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

from serving.imaging.domain import ClassRow
from trainer.batch import IGNORE, Batch, Classes, Domain, Pairs
from trainer.commands.session import start
from trainer.data.catalogue import open_dataset
from trainer.data.class_table import class_rows
from trainer.data.dataset import Dataset
from trainer.data.selection.choose import select
from trainer.data.selection.selection import Selection
from trainer.data.synthetic import scenes
from trainer.methods import METHODS
from trainer.methods.base import Method
from trainer.run import Run
from trainer.training.checkpointing import RunDir
from trainer.training.logger import Logger


def class_table(rows: Sequence[tuple[int, str, tuple[int, int, int], bool]]) -> Classes:
    """A class table of (id, name, colour, ignore)."""
    return Classes(tuple(ClassRow(*row) for row in rows))


CLASSES = class_table(
    [
        (0, "sky", (128, 128, 128), False),
        (1, "road", (128, 64, 128), False),
        (2, "car", (64, 0, 128), False),
        (3, "void", (0, 0, 0), True),
    ]
)
LABELS = Domain("classes", CLASSES)
SIZE = (32, 48)


@functools.cache
def encoder_file() -> str:
    """A state dict of timm's smallest EfficientNet with random weights, in place of ImageNet's."""
    path = Path(tempfile.mkdtemp(prefix="fewpair-tests-")) / "encoder.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(timm.create_model("test_efficientnet", pretrained=False).state_dict(), path)
    return str(path)


ENCODER = {"encoder": "test_efficientnet", "encoder_weights": encoder_file()}

TINY: dict[str, dict[str, Any]] = {
    "supervised": {"width": 4, "blocks": 1},
    "judge": {"width": 8},
    "hybrid": {"width": 4, "blocks": 1, "pool": 3},
    "pix2pix": {"width": 4, "blocks": 1},
    "bicycle_gan": {"width": 4, "levels": 4, "noise": 4, "patch": 16},
    "cyclegan": {"width": 4, "blocks": 1, "pool": 3},
    "tripathy": {"width": 4, "blocks": 1, "paired_steps": 2},
    "mean_teacher": {"width": 4, "warm_up": 0, "confidence": 0.0, **ENCODER},
    "painter": {"widths": (8, 8, 8, 8, 4, 4), "hidden": 4, "noise": 4, "width": 4, "segmenter": None, **ENCODER},
    "pix2pixhd": {"width": 4, "blocks": 1, "halvings": 2, "perceptual": 0.0, "global_steps": 1, "frozen_steps": 1},
    "dance": {"width": 4, "blocks": 1, "halvings": 2, "perceptual": 0.0, "global_steps": 1, "frozen_steps": 1},
    "spade": {"width": 4, "perceptual": 0.0, "initialisation": "torch"},
    "cc_fpse": {"width": 4, "perceptual": 0.0, "initialisation": "torch"},
    "oasis": {"width": 4, "noise": 4, "initialisation": "torch"},
    "tcr": {"width": 4, "noise": 4, "initialisation": "torch"},
    "usis": {"width": 4, "noise": 4, "initialisation": "torch"},
    "semipaired": {"width": 4, "noise": 4, "perceptual": 0.0, "initialisation": "torch"},
}
"""For each method the changes to its config that make it small. A new method adds its line."""

SIZES = dict.fromkeys(("mean_teacher", "painter", "spade", "cc_fpse", "oasis", "tcr", "usis", "semipaired"), (64, 64))
"""For the methods that need other multiples than SIZE has."""

CHOICES: list[tuple[str, dict[str, Any]]] = [
    ("tripathy", {"paired_steps": 0}),
    ("pix2pix", {"generator": "unet", "levels": 4, "norm": "batch", "gan_loss": "vanilla"}),
    ("pix2pix", {"generator": "unet-no-skip", "levels": 4, "patch": 16, "direction": "to_photo", "distance": "half"}),
    ("cyclegan", {"generator": "unet", "levels": 4, "norm": "batch", "patch": 1, "cycle_distance": "l2"}),
    ("hybrid", {"gan_loss": "relativistic-average", "patch": 16, "distance": "l2", "cycle_distance": "half"}),
    ("hybrid", {"gan_loss": "hinge", "label_as": "classes"}),
    ("mean_teacher", {"unpaired": 0.0}),
    ("pix2pixhd", {"label_as": "colours", "edges": "none", "scales": 2, "feature_matching": 0.0}),
    ("spade", {"norm": "instance", "scales": 1, "feature_matching": 0.0}),
    ("cc_fpse", {"norm": "instance", "recompute": False, "feature_matching": 0.0}),
    ("usis", {"generator": "oasis", "norm": "instance"}),
    ("semipaired", {"reverse": "unfrozen", "generator": "oasis", "label_mix": 10.0}),
    ("semipaired", {"unpaired_discriminator": "projected", "r1": 0.0, "features": 3.0}),
    ("semipaired", {"reverse": "separate", "feature_matching": 0.0, "norm": "instance", "initialisation": "xavier"}),
]
"""Options of single methods that change which networks are trained, or on what."""

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    (name, variant)
    for name in METHODS
    for variant in ({}, {"label_as": "classes"}, {"direction": "to_photo"})
    if variant.keys() <= {each.name for each in dataclasses.fields(METHODS[name].config_class)}
] + CHOICES
"""Every method, with labels as colours and as classes, in each direction that it can be configured for; and CHOICES."""


def variant_name(value: object) -> str:
    """A readable test id."""
    if not isinstance(value, dict):
        return str(value)
    return "-".join(each if isinstance(each, str) else f"{name}={each}" for name, each in value.items()) or "default"


def tiny_config(name: str, **changes: Any) -> Any:
    """The smallest config of a method."""
    return METHODS[name].config_class(**(TINY[name] | changes))


def tiny_size(name: str) -> tuple[int, int]:
    """The size that a small method is tested at."""
    return SIZES.get(name, SIZE)


def tiny_method(name: str, *, seed: int = 0, **changes: Any) -> Method:
    """A small method of the catalogue over three classes and void."""
    torch.manual_seed(seed)
    config = tiny_config(name, **changes)
    return METHODS[name](config, LABELS, size=tiny_size(name), seed=seed)


def tiny_label(length: int, *, size: tuple[int, int] = SIZE, seed: int = 0) -> torch.Tensor:
    """Long[B,H,W]: blocks of three classes, and some void."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 4, (length, size[0] // 8, size[1] // 8), generator=generator)
    label = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return torch.where(label == 3, IGNORE, label)


def tiny_half(length: int, *, size: tuple[int, int] = SIZE, seed: int = 0) -> Pairs:
    """Photos and labels that have nothing to do with each other, and such a frame before each."""
    generator = torch.Generator().manual_seed(seed)
    photo, previous = (torch.rand(length, 3, *size, generator=generator) * 2 - 1 for _ in range(2))
    sides = {"previous_photo": previous, "previous_label": tiny_label(length, size=size, seed=seed + 99)}
    return Pairs(photo, tiny_label(length, size=size, seed=seed), sides)


def tiny_batch(*, length: int = 1, size: tuple[int, int] = SIZE, seed: int = 0) -> Batch:
    """Both halves, each of `length` samples."""
    return Batch(tiny_half(length, size=size, seed=2 * seed), tiny_half(length, size=size, seed=2 * seed + 1))


def losses_of(method: Method, batch: Batch, step: int = 0) -> dict[str, float]:
    """Every loss of a step, as group/term."""
    return {
        f"{update.groups}/{term}": loss.item()
        for update in method.step(batch, step)
        for term, loss in update.losses.items()
    }


def tiny_run(name: str = "hybrid", *, steps: int = 6, **changes: Any) -> Run:
    """A short run of a small method; on the synthetic scenes unless `data` and `root` say otherwise."""
    config = changes.pop("config", None) or tiny_config(name)
    needs_pairs = name != "cyclegan"
    values: dict[str, Any] = {
        "recipe": f"tiny-{name}",
        "method": name,
        "config": config,
        "data": "scenes",
        "root": None,
        "pairs": 2 if needs_pairs else 0,
        "unpaired": 4,
        "size": tiny_size(name),
        "steps": steps,
        "seed": 0,
        "evaluate_every": 1000,
        "save_every": 2,
        "log_every": 1,
    }
    return Run(**(values | changes))


def tiny_folder(root: Path) -> Path:
    """A dataset laid out as anyone's folders: a few small synthetic scenes as JPEG photos and PNG label maps, in
    `train` and `val`.
    """
    return Path(shutil.copytree(_drawn_folder(), root))


@functools.cache
def _drawn_folder() -> Path:
    root = Path(tempfile.mkdtemp(prefix="fewpair-tests-"))
    for split, count in (("train", 6), ("val", 2)):
        for kind in ("photos", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            photo, label = scenes.draw(index, height=48, width=64, split=split)
            Image.fromarray(photo).save(root / split / "photos" / f"{index}.jpg", quality=92)
            Image.fromarray(scenes.CLASSES.index_to_id()[label]).save(root / split / "labels" / f"{index}.png")
    (root / "classes.csv").write_text(class_rows(scenes.CLASSES))
    return root


def material_for(run: Run) -> tuple[Dataset, Selection]:
    """The run's dataset and its selection."""
    dataset = open_dataset(run.data, Path(run.root) if run.root else None)
    return dataset, select(dataset, k=run.pairs, unpaired=run.unpaired, seed=run.seed)


def small_run(folder: Path, name: str, **changes: Any) -> Run:
    """A short run on a handful of small picture files, or on the drawn clips where frames need those before them."""
    if name == "dance":
        return tiny_run(name, data="walker", **changes)
    return tiny_run(name, data="folders", root=str(tiny_folder(folder / "data")), **changes)


def trained(folder: Path, name: str, **changes: Any) -> RunDir:
    """A small run, trained to its end in `folder`/run."""
    run = small_run(folder, name, **changes)
    return start(folder / "run", run, *material_for(run), device="cpu")


@contextmanager
def after_each_step(call: Callable[[int], None]) -> Iterator[None]:
    """Inside, `call` gets the number of each training step when it is done."""
    ticked = Logger.tick

    def tick(logger: Logger) -> None:
        ticked(logger)
        call(logger.state.step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Logger, "tick", tick)
        yield


class Killed(Exception):
    """Stands for a power cut between two steps."""


@contextmanager
def killed_after(step: int) -> Iterator[None]:
    """Inside, a run ends after this step and before the next save, as if its process were killed."""

    def cut(done: int) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed), after_each_step(cut):
        yield


def count(network: torch.nn.Module) -> int:
    """The number of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def buffers_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a network's buffers."""
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


def flat(state: Any, path: str = "") -> dict[str, Any]:
    """A checkpoint's leaves under their paths."""
    if isinstance(state, dict):
        return {key: value for name, inner in state.items() for key, value in flat(inner, f"{path}/{name}").items()}
    if isinstance(state, list | tuple):
        return {
            key: value for index, inner in enumerate(state) for key, value in flat(inner, f"{path}/{index}").items()
        }
    return {path: state}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The paths at which two checkpoints differ, the clock aside."""
    left, right = flat(one), flat(other)
    assert left.keys() == right.keys()
    return [
        path
        for path in left
        if path != "/elapsed"
        and not (
            torch.equal(left[path], right[path]) if isinstance(left[path], torch.Tensor) else left[path] == right[path]
        )
    ]
