"""`fewpair pairs`: choose which k photos to label."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from trainer.commands.arguments import count, opened, parse, refuse_seed
from trainer.data.catalogue import CATALOGUE
from trainer.data.pairs import RULES, select
from trainer.errors import UserError


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


def pairs(arguments: list[str]) -> int:
    """`fewpair pairs`: choose which k photos to label."""
    asked = parse(PairsOptions, "pairs", arguments, f"Datasets: {', '.join(CATALOGUE)}. Rules: {', '.join(RULES)}.")
    if asked.out.exists():
        raise UserError(f"{asked.out} exists: name another file with --out, or remove it")
    refuse_seed(asked.seed)
    dataset = opened(asked.data, asked.root)
    selection = select(dataset, k=asked.k, unpaired=count(asked.unpaired), rule=asked.rule, seed=asked.seed, to_label=asked.unlabelled)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(selection.to_json())
    for entry in selection.pairs:
        print(entry.photo if entry.label else f"{entry.photo}  (to be labelled)")
    pool = f"{len(selection.unpaired_photos)} photos and {len(selection.unpaired_labels)} label maps unpaired"
    print(f"{len(selection.pairs)} pairs, {pool}, of {dataset.place}: written to {asked.out}")
    if any(entry.label is None for entry in selection.pairs):
        print(f"Next: save the label map of each photo marked above under its name; then: fewpair train RECIPE --pairs {asked.out} ...")
    return 0
