"""`fewpair compare`: several runs side by side on one sheet of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from trainer.commands.arguments import parse, use_threads
from trainer.data.catalogue import Dataset
from trainer.errors import UserError
from trainer.machine import device_named
from trainer.metrics.comparison import Contestant, Direction, common_direction, comparison
from trainer.rundir import RunDir, load_method, open_run


@dataclass(frozen=True)
class CompareOptions:
    """What `fewpair compare` takes."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs' folders, in the order of their columns; all of one dataset and one size."""
    split: str
    """The split whose samples are shown: val, devtest, test, ..."""
    out: Path
    """The sheet, a .png file."""
    names: tuple[str, ...] = ()
    """What the columns are called, one name a run; none: the runs' folders."""
    samples: int = 6
    """Rows: samples spread evenly over the split."""
    seeds: int = 1
    """Photos of each label by each method that takes noise, a column each."""
    direction: Direction | None = None
    """What is shown; None: label -> photo where all runs offer it, else photo -> label."""
    checkpoint: str = "best"
    """best, last, or step-NNNNNN where the runs kept one."""
    weights: Literal["averaged", "raw"] = "averaged"
    """The running average of the weights, or the weights themselves."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of torch; None: as many as torch chooses."""


def compare(arguments: list[str]) -> int:
    """`fewpair compare RUN RUN --split val --out SHEET.png`: the same samples in the rows, the runs in the columns."""
    asked = parse(CompareOptions, "compare", arguments, "Show what several runs make of the same samples, on one sheet.")
    use_threads(asked.threads)
    _refuse_before_reading(asked)
    device = device_named(asked.device)
    folders = [open_run(path) for path in asked.runs]
    datasets = [folder.dataset() for folder in folders]
    _refuse_differences(folders, datasets)
    dataset, size = datasets[0], folders[0].run.size
    contestants = [_contestant(folder, name, dataset, asked) for folder, name in zip(folders, _names(asked.runs, asked.names), strict=True)]
    direction = common_direction(contestants, asked.direction)
    if direction == "to_label" and asked.seeds > 1:
        raise UserError(f"--seeds {asked.seeds}: this sheet shows label maps, and no noise goes into those; leave it out")
    page = comparison(
        contestants, dataset, split=asked.split, size=size, direction=direction, samples=asked.samples, seeds=asked.seeds, device=device
    )
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    page.save(asked.out, optimize=True)
    print(f"written to {asked.out}")
    return 0


def _contestant(folder: RunDir, name: str, dataset: Dataset, asked: CompareOptions) -> Contestant:
    method, _, step = load_method(folder.path, checkpoint=asked.checkpoint, weights=asked.weights)
    about = folder.provenance(folder.selection(dataset), split=asked.split, step=step, checkpoint=asked.checkpoint, weights=asked.weights)
    return Contestant(name, method, about)


def _names(runs: Sequence[Path], given: Sequence[str]) -> Sequence[str]:
    """One name a run: those given, or the folders', or their whole paths where two folders are called alike."""
    if given:
        return given
    short = [path.resolve().name for path in runs]
    return short if len(set(short)) == len(short) else [str(path) for path in runs]


def _refuse_before_reading(asked: CompareOptions) -> None:
    if not asked.runs:
        raise UserError("name the runs to compare: fewpair compare RUN RUN --split val --out SHEET.png")
    if asked.out.suffix.lower() != ".png":
        raise UserError(f"--out {asked.out}: a sheet is a .png file, so that it shows every pixel as it was made")
    if asked.seeds < 1:
        raise UserError(f"--seeds {asked.seeds}: give 1 or more")
    if asked.names and len(asked.names) != len(asked.runs):
        raise UserError(f"--names {' '.join(asked.names)}: {len(asked.names)} names for {len(asked.runs)} runs; give one each")
    for what, words in (("run", [str(path.resolve()) for path in asked.runs]), ("name", asked.names)):
        for word in words:
            if words.count(word) > 1:
                raise UserError(f"the {what} {word} is given twice: its columns could not be told apart")


def _refuse_differences(folders: Sequence[RunDir], datasets: Sequence[Dataset]) -> None:
    """The same samples at the same size, or the columns do not compare."""
    first, of_first = folders[0], datasets[0]
    for folder, dataset in zip(folders[1:], datasets[1:], strict=True):
        if (dataset.name, _resolved(dataset.root)) != (of_first.name, _resolved(of_first.root)):
            raise UserError(
                f"{first.path} was trained on {of_first.place}, and {folder.path} on {dataset.place}: only runs of one dataset compare"
            )
        if folder.run.size != first.run.size:
            (height, width), (other_height, other_width) = first.run.size, folder.run.size
            raise UserError(
                f"{first.path} was trained at {height}x{width}, and {folder.path} at {other_height}x{other_width}: "
                "only runs of one size compare"
            )


def _resolved(root: Path | None) -> Path | None:
    return None if root is None else root.resolve()
