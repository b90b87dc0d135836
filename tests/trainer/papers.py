"""A small table of a paper that does not exist, over a small folder: what the tests of `fewpair experiment` run."""

from pathlib import Path
from typing import Any

from tests.trainer.factories import tiny_folder
from trainer.data.catalogue import open_dataset
from trainer.experiment.runner import Plan
from trainer.experiment.tables import Table, read_table
from trainer.experiment.trials import Material, Trial, plan

HEAD = """
title = "A small table"
source = "Nobody, Table 1"
claim = "More pairs are better."
protocol = "One run."
columns = ["Method", "Pairs"]
metrics = [{ heading = "Pixel Acc.", figure = "pixel_accuracy" }, { heading = "Mean IoU", figure = "mean_iou" }]

[settings.compact]
data = "folders"
size = [32, 48]
steps = %(steps)d
repeats = %(repeats)d
splits = ["val"]
config.supervised = { width = 4, blocks = 1 }
config.cyclegan = { width = 4, blocks = 1, pool = 2 }
"""

ROWS = {
    "one": """
[[rows]]
name = "one"
cells = ["supervised", "1"]
method = "supervised"
pairs = 1
unpaired = 4
rule = "random"
series = "supervised"
paper = ["0.5 ± 0.1", "0.2 ± 0.1"]
""",
    "two": """
[[rows]]
name = "two"
cells = ["supervised", "2"]
method = "supervised"
pairs = 2
unpaired = 4
rule = "random"
series = "supervised"
paper = ["0.6", "0.3"]
""",
    "wild": """
[[rows]]
name = "wild"
cells = ["far too fast", "2"]
method = "supervised"
pairs = 2
unpaired = 4
config = { lr = 1e40 }
paper = ["0.6", "0.3"]
""",
    "none": """
[[rows]]
name = "none"
cells = ["cyclegan", "-"]
method = "cyclegan"
pairs = 0
unpaired = "all"
paper = ["0.1", "0.1"]
""",
}


def small_table(folder: Path, *rows: str, name: str = "small", steps: int = 4, repeats: int = 1) -> Table:
    """The table with these rows, as a file that was read."""
    return read_table(small_file(folder, *rows, name=name, steps=steps, repeats=repeats))


def small_file(folder: Path, *rows: str, name: str = "small", steps: int = 4, repeats: int = 1) -> Path:
    """The TOML file of the table."""
    path = folder / f"{name}.toml"
    path.write_text(HEAD % {"steps": steps, "repeats": repeats} + "".join(ROWS[row] for row in rows))
    return path


def small_material(folder: Path) -> Material:
    """The small folder, made where it is not there yet."""
    root = folder / "data"
    if not root.exists():
        tiny_folder(root)
    return Material(open_dataset("folders", root), root)


def small_trials(table: Table, folder: Path) -> list[Trial]:
    """Every run of the table."""
    setting = table.setting("compact")
    return plan(table, setting, table.rows_of(setting), small_material(folder))


def small_plan(table: Table, folder: Path, **changes: Any) -> Plan:
    """What is asked of the runner."""
    out = folder / "out"
    values: dict[str, Any] = {"out": out, "results": out / f"{table.name}.jsonl", "splits": ("val",), "metrics": table.metrics}
    return Plan(**(values | {"device": "cpu"} | changes))
