"""What an evaluation takes over from the one before it: the figures of whatever judged the same photos then, and does not now."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.metrics.distribution import SETS

PARTS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "photo_judge": ("--judge", lambda name: name.startswith("judge_")),
    "distribution": ("--features", lambda name: name.partition("[")[0] in SETS),
    "diversity": ("--seeds", lambda name: name.startswith("diversity_l1_")),
    "perceptual_diversity": ("--perceptual", lambda name: name.startswith("diversity_perceptual")),
}
"""The parts of an evaluation that an option asks for: where the record says by what they were made, the option, and their figures."""
PHOTOS = ("photo_l1_levels", "photo_psnr")
"""Figures that every evaluation of photos has; two evaluations that agree in them looked at the same photos."""
ASIDE = "former"
"""The folder beside the evaluations for those whose figures nothing took over."""


@dataclass(frozen=True)
class Succession:
    """What became of the former evaluation."""

    document: dict[str, Any]
    """The new one, with what it took over."""
    aside: bool
    """Whether the former one holds a part that the new one has neither measured alike nor taken over."""
    notes: tuple[str, ...] = ()
    """What was taken over, in sentences."""


def succeeded(document: Mapping[str, Any], former: Mapping[str, Any]) -> Succession:
    """The new evaluation's document, completed by the parts of the former one that were made of the same photos and not made again.

    The photos are the same where both say the same of the run and the checkpoint, counted as many samples and agree in L1 and PSNR.
    """
    made = {part for part in PARTS if former.get(part) is not None}
    if not _same_photos(document, former):
        return Succession(dict(document), aside=bool(made))
    taken = {part: _with_cautions(former, part) for part in PARTS if part in made and document[part] is None}
    figures = {
        name: value for name, value in former["figures"].items() if any(belongs(name) for _, belongs in map(PARTS.__getitem__, taken))
    }
    notes = tuple(
        f"the figures of {PARTS[part][0]} {_who(former[part])} are those of the evaluation before, of the same photos" for part in taken
    )
    other = any(_identity(document[part]) != _identity(former[part]) for part in made - taken.keys())
    return Succession({**document, **taken, "figures": {**document["figures"], **figures}}, aside=other, notes=notes)


def read_former(path: Path) -> dict[str, Any] | None:
    """The evaluation that lies there; None where there is none, or none that can be read."""
    try:
        former = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return former if isinstance(former, dict) and isinstance(former.get("figures"), dict) else None


def set_aside(path: Path) -> Path:
    """Move an evaluation into the folder of the former ones, under a number that is free; returns where it lies now."""
    folder = path.parent / ASIDE
    folder.mkdir(exist_ok=True)
    number = 1
    while (target := folder / f"{path.stem}-{number}.json").exists():
        number += 1
    return path.replace(target)


def cautions_of(document: Mapping[str, Any]) -> list[str]:
    """Why not to trust some figures too far, over all parts."""
    return [caution for part in PARTS if document[part] is not None for caution in document[part].get("cautions", ())]


def _same_photos(document: Mapping[str, Any], former: Mapping[str, Any]) -> bool:
    about = ("dataset", "split", "size", "method", "recipe", "pairs", "unpaired", "steps", "step", "seed", "checkpoint", "weights", "limit")
    if any(_plain(document[name]) != former.get(name) for name in about):
        return False
    mine, theirs = document["figures"], former["figures"]
    if any(mine.get(name) != theirs.get(name) for name in ("samples", "skipped")):
        return False
    pairs = [(mine.get(name), theirs.get(name)) for name in PHOTOS]
    return all(one == other or (one and other and math.isclose(one, other, rel_tol=1e-4)) for one, other in pairs)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _with_cautions(former: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The record of a part; an older file keeps the cautions of its extractor beside it."""
    older = {"cautions": former.get("cautions", [])} if part == "distribution" else {}
    return {**older, **former[part]}


def _identity(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "cautions"}


def _who(record: Mapping[str, Any]) -> str:
    return str(next(record[name] for name in ("name", "extractor", "weights", "seeds") if name in record))
