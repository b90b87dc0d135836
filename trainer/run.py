"""A run: everything that decides its result, how the command line spells it, and its JSON."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Suppress
from tyro.constructors import PrimitiveConstructorSpec

from trainer.errors import UserError
from trainer.methods import METHODS


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

Count = Annotated[
    int | None,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N|all",
        instance_from_str=lambda words: None if words[0] == "all" else int(words[0]),
        is_instance=lambda value: value is None or isinstance(value, int),
        str_from_instance=lambda value: ["all" if value is None else str(value)],
    ),
]
"""How many; None, written all: as many as there are."""


@dataclass(frozen=True)
class Run:
    """Everything that decides a run's result, beside the files of its dataset."""

    recipe: Suppress[str]
    """The named recipe that this run started from."""
    method: Suppress[str]
    """A name of METHODS."""
    config: Any
    """The method's Config."""
    data: str
    """The dataset: a name of the catalogue."""
    root: str | None
    """The dataset's folder; the synthetic scenes have none."""
    pairs: Suppress[int | Literal["all"]]
    """k, the number of pairs; "all" the training pairs only in a recipe: a run says how many that were."""
    unpaired: Count
    """How many samples of the training split the unpaired pool holds; the pairs are selected from them."""
    size: Size
    """Height x width of a training crop, and of the whole picture in evaluation and use."""
    steps: int
    """Optimiser steps of each parameter group."""
    seed: int
    """Decides weights, selection of pairs, order, crops, flips and pool draws."""
    batch: int = 1
    """Samples of each half in a step."""
    progressive: Suppress[tuple[tuple[float, int, int], ...]] = ()
    """(share, height, width): smaller training crops before those of `size`, each until that share of the steps."""
    enlarge: bool = True
    """Resize training pictures to 286/256 of the crop's size, as in pix2pix; off: to the size itself, flipped only."""
    balanced: bool = True
    """Fill both halves in every step; off: fill each half in proportion to its number of samples."""
    rule: str = "random"
    """How the pairs are selected: random, kmeans-medoid, typical or kcenter."""
    pool_rule: str = "random"
    """How the unpaired pool is selected, by the same names."""
    features: str | None = None
    """What the rules compare: EfficientNet-Lite0 (None), resnet50, a .pth file of its weights, or a .onnx extractor."""
    unpaired_labels: str | None = None
    """DATASET:FOLDER of other unpaired label maps, as in labels:data/carla; None: the dataset's own."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16: autocast, with losses in fp32. auto: bf16 where the hardware computes in it."""
    evaluate_every: int = 500
    """Steps between evaluations on `val`, each followed by a sample grid and a checkpoint."""
    save_every: int = 200
    """Steps between checkpoints."""
    keep: tuple[int, ...] = ()
    """Steps whose checkpoints are kept as step-NNNNNN.ckpt, to compare runs at equal steps."""
    log_every: int = 20
    """Steps between lines in metrics.jsonl, and between checks that every loss is finite."""
    expected: Suppress[str] = "not yet reproduced"
    """The result that this recipe is expected to reach."""


RENAMED = {"game": "gan_loss", "first_weights": "initialisation"}
"""Options of earlier versions, by their former names."""


def from_json(values: dict[str, Any]) -> Run:
    """Read the JSON of `dataclasses.asdict`. Raises UserError on a method or field that this version does not know."""
    name = values.get("method")
    if name not in METHODS:
        raise UserError(f"this run's method is {name!r}; this version of fewpair knows {', '.join(METHODS)}")
    return _built(Run, values | {"config": _built(METHODS[name].config_class, values["config"])})


def _built(kind: type, values: dict[str, Any]) -> Any:
    fields = {field.name for field in dataclasses.fields(kind)}
    values = {RENAMED.get(name, name): value for name, value in values.items()}
    values = {name: value for name, value in values.items() if name in fields or value is not None}
    unknown = sorted(values.keys() - fields)  # not the options of an earlier version that were not used
    if unknown:
        raise UserError(
            f"{', '.join(unknown)} in this run's config.json is not known to this version of fewpair; "
            f"it knows {', '.join(sorted(fields))}"
        )
    return kind(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
