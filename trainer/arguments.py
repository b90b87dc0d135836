"""What each command takes: dataclasses that tyro turns into flags, their defaults and their help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

Config = TypeVar("Config")


def _size(words: list[str]) -> tuple[int, int]:
    height, _, width = words[0].lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ValueError(f"{words[0]} is not a size; write height x width, as in 128x192")
    return int(height), int(width)


Size = Annotated[
    tuple[int, int],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="HxW",
        instance_from_str=_size,
        is_instance=lambda value: isinstance(value, tuple) and len(value) == 2,
        str_from_instance=lambda size: [f"{size[0]}x{size[1]}"],
    ),
]
"""Height and width, written 128x192."""

PairsOf = Annotated[
    int | Path,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N|pairs.json",
        instance_from_str=lambda words: int(words[0]) if words[0].isdigit() else Path(words[0]),
        is_instance=lambda value: isinstance(value, int | Path),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""How many pairs, or the file that names them."""


@dataclass(frozen=True)
class PairsOptions:
    """What `fewpair pairs` takes."""

    data: str
    """The dataset: one of the catalogue."""
    k: Annotated[int, tyro.conf.arg(aliases=["--pairs"])]
    """How many photos keep, or get, their label map."""
    out: Path
    """Where to write pairs.json, for `fewpair train --pairs`."""
    root: Path | None = None
    """The dataset's folder; the built-in scenes have none."""
    unpaired: int | Literal["all"] = "all"
    """How many training samples the unpaired pool holds; the pairs are chosen among them."""
    rule: str = "random"
    """How the pairs are chosen."""
    seed: int = 0
    """Decides the pool and the choice."""
    unlabelled: bool = False
    """Also choose photos that have no label map yet, to find out which ones to label."""


@dataclass(frozen=True)
class TrainOptions(Generic[Config]):
    """What `fewpair train RECIPE` takes; the defaults are the recipe's."""

    out: Path
    """The new run's folder."""
    config: Config
    """The method's own choices."""
    data: str
    """The dataset: one of the catalogue."""
    root: Path | None
    """The dataset's folder; the built-in scenes have none."""
    pairs: PairsOf
    """How many pairs are drawn at random, or the pairs.json that names them."""
    unpaired: int | Literal["all"]
    """How many training samples the unpaired pool holds; the pairs are chosen among them."""
    size: Size
    """Height x width of a training crop, and of the whole picture in evaluation and use."""
    steps: int
    """Optimiser steps of each player."""
    seed: int
    """Decides weights, choice of pairs, order, crops, flips and pool draws."""
    batch: int
    """Samples of each half in a step."""
    precision: Literal["auto", "bf16", "fp32"]
    """bf16: autocast, with losses in fp32. auto: bf16 where the hardware computes in it."""
    evaluate_every: int
    """Steps between evaluations on `val`, each followed by a sample sheet."""
    save_every: int
    """Steps between checkpoints."""
    keep: tuple[int, ...]
    """Steps whose checkpoints are kept, to compare runs at equal steps."""
    log_every: int
    """Steps between lines in metrics.jsonl."""
    label_weights: Path | None
    """A published ResNet generator (latest_net_G.pth of CycleGAN or pix2pix) that the label generator starts from."""
    photo_weights: Path | None
    """The same for the photo generator."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""
    skip_broken: bool = False
    """Go on past files that cannot be read, and count them."""


@dataclass(frozen=True)
class ResumeOptions:
    """What `fewpair train --resume RUN` takes; everything else is written in the run's folder."""

    resume: Path
    """The folder of the run to continue."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""
    skip_broken: bool = False
    """Go on past files that cannot be read, and count them."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What `fewpair evaluate` takes."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    split: str
    """The split to judge on: val, devtest, test, ..."""
    checkpoint: str = "best"
    """best, last, or step-NNNNNN where the run kept one."""
    weights: Literal["averaged", "raw"] = "averaged"
    """The running average of the weights, or the weights themselves."""
    limit: int | None = None
    """Judge this many samples, spread evenly over the split; None: all."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""
    skip_broken: bool = False
    """Go on past files that cannot be read, count and name them."""


@dataclass(frozen=True)
class ExportOptions:
    """What `fewpair export` takes."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    name: str | None = None
    """The model's name, and its folder's; None: the dataset and the recipe."""
    out: Path = Path("exported")
    """Where the model's folder goes."""
    checkpoint: str = "best"
    """best, last, or step-NNNNNN where the run kept one."""
    weights: Literal["averaged", "raw"] = "averaged"
    """The running average of the weights, or the weights themselves."""
    half: bool = False
    """Store the weights in fp16: half the bytes."""
    description: str | None = None
    """One or two sentences for the model list; None: made from the run."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""
