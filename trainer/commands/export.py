"""`fewpair export`: ONNX under the manifest's contract, refused where it differs from torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from trainer.commands.arguments import parse, use_threads
from trainer.export.export import export as write
from trainer.methods.base import Direction


@dataclass(frozen=True)
class ExportOptions:
    """Options of `fewpair export`."""

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
    direction: Direction | None = None
    """The only direction to export; None: each that exceeds its baseline."""
    half: bool = False
    """Store the weights in fp16: half the bytes."""
    int8: bool = False
    """Add each direction in 8 bits, for CPUs with VNNI (.5 to .6 of the time); the card says what that changes."""
    force: bool = False
    """Export directions that were not evaluated or do not exceed the baseline, too."""
    overwrite: bool = False
    """Replace an earlier export of the same name."""
    description: str | None = None
    """One or two sentences for the model list; None: made from the run."""
    examples: Path | None = None
    """A folder of pictures to try the model with, which go with it: label maps, or photos where it makes no photos."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""


def export(arguments: list[str]) -> int:
    """Write a run to OUT/NAME/ as ONNX."""
    about = "Write a run to OUT/NAME/ as ONNX, compared with torch in onnxruntime."
    options = dict(vars(parse(ExportOptions, "export", arguments, about)))
    use_threads(options.pop("threads"))
    run, out = options.pop("run"), options.pop("out")
    for path in sorted(path for path in write(run, out, **options).rglob("*") if path.is_file()):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    print(f"Next: fewpair serve --models {out}")
    return 0
