"""What the commands share: how sizes and pairs are spelt, how tyro reads a dataclass, and the refusals that several of them make."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import tyro
from tyro.constructors import PrimitiveConstructorSpec

from trainer.data.catalogue import Dataset, open_dataset
from trainer.data.choice import RULES
from trainer.errors import UserError
from trainer.machine import device_named

if TYPE_CHECKING:
    from trainer.data.featurecache import KnownFeatures
    from trainer.data.features import FeatureSource


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


def _pairs(words: list[str]) -> int | Literal["all"] | Path:
    if words[0] == "all":
        return "all"
    return int(words[0]) if words[0].isdigit() else Path(words[0])


PairsOf = Annotated[
    int | Literal["all"] | Path,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N|all|pairs.json",
        instance_from_str=_pairs,
        is_instance=lambda value: value == "all" or isinstance(value, int | Path),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""How many pairs, or the file that names them."""


def parse(kind: Any, command: str, arguments: Sequence[str], description: str, *, default: Any = tyro.MISSING) -> Any:
    given = {} if default is tyro.MISSING else {"default": default}
    plain = (tyro.conf.FlagCreatePairsOff,)  # --flag alone, no --no-flag
    return tyro.cli(kind, prog=f"fewpair {command}", args=list(arguments), description=description, config=plain, **given)


def opened(data: str, root: Path | None) -> Dataset:
    dataset = open_dataset(data, root)
    for note in dataset.notes:
        print(f"{dataset.place}: {note}")
    return dataset


def count(unpaired: int | Literal["all"]) -> int | None:
    return None if unpaired == "all" else unpaired


def extractor(rules: Collection[str], path: Path | None, *, device: str) -> "FeatureSource | None":
    """What the rules look at: torchvision's ResNet-50 where no file is named; None where no rule looks at anything.

    Raises UserError on a rule that there is not.
    """
    if not _look(rules):
        return None
    from trainer.data.features import open_features  # imports torchvision, which takes seconds

    return open_features(path, device=device_named(device))


def known_of(rules: Collection[str], path: Path | None) -> "KnownFeatures | None":
    """What is kept already of what the rules look at, for who may compute nothing; None and refusals as `extractor` has them."""
    if not _look(rules):
        return None
    from trainer.data.features import known_features

    return known_features(path)


def _look(rules: Collection[str]) -> bool:
    for rule in rules:
        if rule not in RULES:
            raise UserError(f"there is no rule {rule!r} to choose by; there are {', '.join(RULES)}")
    return set(rules) != {"random"}


def use_threads(threads: int | None) -> None:
    if threads is not None:
        if threads < 1:
            raise UserError(f"--threads {threads}: give 1 or more")
        torch.set_num_threads(threads)


def refuse_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}: give a whole number from 0 to {2**63 - 1}")
