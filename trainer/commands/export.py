"""`fewpair export`: ONNX under the manifest's contract, refused where it differs from torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from trainer.commands.arguments import parse, use_threads


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


def export(arguments: list[str]) -> int:
    """`fewpair export RUN`: ONNX under the manifest's contract, refused where it differs from torch."""
    from trainer.export import export as write  # brings onnx and onnxruntime, which training does without

    asked = parse(ExportOptions, "export", arguments, "Write a run to OUT/NAME/ as ONNX, proven equal to torch in onnxruntime.")
    use_threads(asked.threads)
    written = write(
        asked.run,
        asked.out,
        name=asked.name,
        checkpoint=asked.checkpoint,
        weights=asked.weights,
        half=asked.half,
        description=asked.description,
    )
    for path in sorted(written.iterdir()):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    print(f"Next: fewpair serve --models {asked.out}")
    return 0
