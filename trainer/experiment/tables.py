"""A paper's table as data: its rows, its printed figures, and the settings that it can be run in."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.errors import UserError, Value, named

SHIPPED = {path.stem: path for path in sorted((Path(__file__).parent / "tables").glob("*.toml"))}
"""The tables that ship with fewpair: one TOML file each."""


@dataclass(frozen=True)
class Metric:
    """A column of figures."""

    heading: str
    """As the paper prints it."""
    figure: str
    """The name that `fewpair evaluate` uses; `*` stands for the name of an extractor."""
    digits: int = 3


@dataclass(frozen=True)
class Setting:
    """A scale to run a table at: the paper's, or one for a CPU."""

    name: str
    data: str
    size: tuple[int, int]
    steps: int
    repeats: int
    splits: tuple[str, ...]
    batch: int = 1
    enlarge: bool = True
    repeats_by_rule: Mapping[str, int] = field(default_factory=dict)
    """Another number of repeats for the rows of a selection rule, as random draws need more."""
    validations: int = 2
    """How often a run is evaluated on `val` to find the best checkpoint."""
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Config values for each method."""
    figures: str = ""
    """The key of `Row.paper` to compare with, where the paper prints several datasets."""
    note: str = ""

    def repeats_of(self, row: "Row") -> int:
        """Return the number of seeds that a row is run with."""
        return self.repeats_by_rule.get(row.rule or "", self.repeats)


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    name: str
    cells: tuple[str, ...]
    """What the paper prints before the figures."""
    method: str
    pairs: int | Literal["all"]
    unpaired: int | Literal["all"]
    paper: Mapping[str, tuple[str, ...]]
    """The paper's printed figures by `Setting.figures` ("": its only dataset); empty for rows of our own."""
    rule: str | None = None
    """The selection rule of the pairs; None where there is nothing to select."""
    pool_rule: str = "random"
    """The selection rule of the unpaired pool."""
    unpaired_labels: str | None = None
    """The name of an external source of label maps (`--unpaired-labels NAME=...`); None: the dataset's own."""
    balanced: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    series: str | None = None
    """The curve of the plot that the row belongs to; None: a horizontal line."""
    settings: tuple[str, ...] | None = None
    """The settings that include this row; None: all."""
    steps_factor: float = 1.0
    """Factor on the setting's steps, for a cheaper method that is trained for an equal time."""


@dataclass(frozen=True)
class Table:
    """A table of a paper."""

    name: str
    title: str
    source: str
    claim: str
    protocol: str
    columns: tuple[str, ...]
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    settings: Mapping[str, Setting]

    def setting(self, name: str) -> Setting:
        """Return the setting called `name`."""
        return named(self.settings, name, what=f"setting of {self.name}")

    def rows_of(self, setting: Setting, names: tuple[str, ...] = ()) -> tuple[Row, ...]:
        """Return the rows of a setting in order, or only those called `names`."""
        rows = {row.name: row for row in self.rows if row.settings is None or setting.name in row.settings}
        for name in names:
            named(rows, name, what=f"row of {self.name}")
        return tuple(row for name, row in rows.items() if not names or name in names)


def open_table(name: str) -> Table:
    """Open a shipped table by name, or a TOML file by its path. Raises UserError where fields do not fit."""
    path = Path(name) if name.endswith(".toml") else named(SHIPPED, name, what="table")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from error
    if not all(isinstance(each, dict) for kind in ("metrics", "rows") for each in content.get(kind, ())):
        raise UserError(f"{path}: write metrics and rows as [[metrics]] and [[rows]]")
    parts = {
        "name": path.stem,
        "settings": {
            name: _built(Setting, path, name, {"name": name, **each})
            for name, each in content.get("settings", {}).items()
        },
        "metrics": [_built(Metric, path, each.get("heading"), each) for each in content.get("metrics", ())],
        "rows": [_built(Row, path, each.get("name"), _with_figures(each)) for each in content.get("rows", ())],
    }
    table = _built(Table, path, path.stem, {**content, **parts})
    for row in table.rows:
        for what, count, columns in (
            ("cells", len(row.cells), len(table.columns)),
            *(("figures", len(figures), len(table.metrics)) for figures in row.paper.values()),
        ):
            if count != columns:
                raise UserError(f"{path}: row {row.name} has {count} {what} for {columns} columns")
    if len({row.name for row in table.rows}) < len(table.rows):
        raise UserError(f"{path}: two rows have the same name")
    return table


def _with_figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose `paper` is a mapping: a list is what the paper prints of its only dataset."""
    paper = row.get("paper", {})
    figures = paper if isinstance(paper, Mapping) else {"": paper}
    return {**row, "paper": {name: tuple(each) for name, each in figures.items()}}


def _built(kind: type[Value], path: Path, name: object, values: Mapping[str, Any]) -> Value:
    """Build a dataclass from TOML values, with arrays as tuples."""
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except TypeError as error:
        raise UserError(f"{path}: {name}: {error}") from error
