"""What the commands share: how pairs are written, how tyro reads a dataclass, and checks that several of them make."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from trainer.batch import IGNORE
from trainer.data.catalogue import open_dataset
from trainer.data.dataset import Dataset
from trainer.data.selection.features import FeatureExtractor, open_features
from trainer.device import device_named
from trainer.errors import UserError

PairsOf = int | Literal["all"] | Path
"""How many pairs, or the file that names them."""


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What every command that computes takes."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""


def parse(
    kind: Any, command: str, arguments: Sequence[str], description: str, *, default: Any = tyro.MISSING_NONPROP
) -> Any:
    """Parse a command's arguments into a dataclass."""
    plain = (tyro.conf.FlagCreatePairsOff,)  # --flag alone, no --no-flag
    return tyro.cli(
        kind, prog=f"fewpair {command}", args=arguments, description=description, config=plain, default=default
    )


def opened(data: str, root: str | Path | None) -> Dataset:
    dataset = open_dataset(data, root)
    for note in dataset.notes:
        print(f"{dataset.place}: {note}")
    return dataset


def absolute(path: str | None) -> str | None:
    """An existing file or folder by its absolute path, and another name, such as resnet50, as it is."""
    return None if path is None else str(Path(path).resolve() if Path(path).exists() else path)


def extractor(
    rules: Collection[str], source: str | None, *, device: str, measure: bool = False
) -> FeatureExtractor | None:
    """The extractor of the selection rules; None where all are `random`, unless features are measured anyway."""
    if set(rules) == {"random"} and not measure:
        return None
    return open_features(None if source is None else Path(source), device=device_named(device))


def use_threads(threads: int | None) -> None:
    if threads is not None:
        if threads < 1:
            raise UserError(f"--threads {threads}: give 1 or more")
        torch.set_num_threads(threads)


def confirms_void(void: int | None) -> bool:
    """Whether --void confirms that void pixels are not labelled on purpose."""
    if void not in (None, IGNORE):
        raise UserError(f"--void {void}: give 255; another id is void where its row of the class table has ignore 1")
    return void is not None


def refuse_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}: give a whole number from 0 to {2**63 - 1}")
