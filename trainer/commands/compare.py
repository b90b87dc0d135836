"""`fewpair compare RUN RUN --split val --out GRID.png`: the same samples in the rows, the runs in the columns."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from trainer.commands.arguments import MachineOptions, parse, use_threads
from trainer.device import device_named
from trainer.errors import UserError
from trainer.grids import sample_grid
from trainer.metrics.evaluate import labelled, spread
from trainer.metrics.predict import translations
from trainer.training.checkpointing import load_method, open_run

CELL = 192
"""Narrower pictures are enlarged by whole pixels towards this width."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(MachineOptions):
    """Options of `fewpair compare`."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs' folders, in the order of their columns; all of one dataset and one size."""
    split: str
    """The split whose samples are shown."""
    out: Path
    """The grid, a .png file."""
    samples: int = 6
    """Rows: samples spread evenly over the split."""
    checkpoint: str = "best"
    """best, last, or step-NNNNNN if the runs kept one."""


def compare(arguments: list[str]) -> int:
    """Write a grid that shows what several runs make of the same samples."""
    options = parse(CompareOptions, "compare", arguments, "Show the predictions of several runs side by side.")
    if not options.runs:
        raise UserError("name the runs to compare: fewpair compare RUN RUN --split val --out GRID.png")
    if options.out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out}: give a .png file")
    if options.samples < 1:
        raise UserError(f"--samples {options.samples}: give 1 or more")
    use_threads(options.threads)
    device = device_named(options.device)
    folders = [open_run(path) for path in options.runs]
    first, size = folders[0], folders[0].run.size
    for folder in folders:
        if (folder.run.data, folder.run.root, folder.run.size) != (first.run.data, first.run.root, size):
            both = [
                f"{each.path}: {each.dataset().place}, {each.run.size[0]}x{each.run.size[1]}"
                for each in (first, folder)
            ]
            raise UserError(f"the runs have different datasets or sizes ({'; '.join(both)})")
    dataset = first.dataset()
    every = labelled(dataset, options.split)
    samples = spread(every, options.samples)
    rows: list[dict[str, np.ndarray]] = [{} for _ in samples]
    caption = [f"{dataset.name} {options.split}, {size[0]}x{size[1]}: {len(samples)} of {len(every)} samples"]
    for folder in folders:
        method, _, step = load_method(folder.path, checkpoint=options.checkpoint)
        caption.append(f"{folder.path}: {folder.provenance(step, checkpoint=options.checkpoint, weights='averaged')}")
        for row, sample in zip(rows, samples, strict=True):
            photo, label = dataset.read_photo(sample), dataset.read_label(sample)
            made = translations(method, dataset, photo, label, size=size, device=device, draw=every.index(sample))
            for title, picture in made.items():
                row[title if title in ("photo", "label") else f"{folder.path}: {title}"] = picture
    grid = sample_grid(
        rows,
        scale=max(1, CELL // size[1]),
        names=[sample.name for sample in samples],
        caption="\n".join(caption),
        classes=dataset.label_domain.classes,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    grid.save(options.out, optimize=True)
    print(f"wrote {options.out}")
    return 0
