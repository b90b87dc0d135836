"""A paper's table as data: its rows, its own figures as printed, and the settings it can be run in."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from trainer.errors import UserError

SHIPPED = Path(__file__).parent / "tables"
"""One TOML file a table."""


_OF_PHOTOS = ("photo_", "judge_", "fid", "kid", "precision", "recall")


@dataclass(frozen=True)
class Metric:
    """A column of figures."""

    heading: str
    """As the paper prints it."""
    figure: str
    """The name under which `fewpair evaluate` writes it; `*` stands for the extractor or judge that is part of a name."""
    better: Literal["higher", "lower"] = "higher"
    digits: int = 3

    @property
    def direction(self) -> Literal["to_label", "to_photo"]:
        """What it is a figure of; a method that does not offer this direction has none."""
        return "to_photo" if self.figure.startswith(_OF_PHOTOS) else "to_label"

    def find(self, figures: Mapping[str, Any]) -> str | None:
        """The name of this column's figure among those of an evaluation; None where it was not measured."""
        return next((name for name, value in figures.items() if fnmatchcase(name, self.figure) and value is not None), None)


@dataclass(frozen=True)
class Setting:
    """A scale to run a table at: the paper's, or one that a CPU can do."""

    name: str
    data: str
    size: tuple[int, int]
    steps: int
    repeats: int
    splits: tuple[str, ...]
    batch: int = 1
    repeats_by_rule: Mapping[str, int] = field(default_factory=dict)
    """Where a rule that a row names wants more repeats than the others, as random draws do."""
    validations: int = 2
    """How often in a run the weights are judged on `val`, to find the best."""
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the setting asks of each method."""
    figures: str | None = None
    """Which of the paper's columns these runs stand beside, where it prints several datasets."""
    note: str = ""

    def repeats_of(self, row: "Row") -> int:
        """How many seeds a row is run with."""
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
    """The paper's figures as it prints them, by `Setting.figures` ("" where it has one dataset); none where the row is ours."""
    rule: str | None = None
    """How the pairs are chosen; None where there is nothing to choose."""
    pool_rule: str = "random"
    """How the unpaired pool is chosen."""
    unpaired_labels: str | None = None
    """The name of a source of label maps that the command line gives; None: the dataset's own."""
    balanced: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    series: str | None = None
    """The line of the plot that the row belongs to; None: a level of its own."""
    settings: tuple[str, ...] | None = None
    """The settings that have this row; None: all."""
    steps_factor: float = 1.0
    """Times the setting's steps: for a cheaper method that is to train equally long."""


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

    def setting(self, name: str, *, data: str | None = None) -> Setting:
        """The setting called `name`, on another dataset where one is named."""
        setting: Setting = _named(self.settings, name, what="--setting", owner=f"{self.name} has the settings")
        return setting if data is None else replace(setting, data=data)

    def rows_of(self, setting: Setting, names: tuple[str, ...] = ()) -> tuple[Row, ...]:
        """The rows of a setting in the table's order; those named, where some are."""
        rows = {row.name: row for row in self.rows if row.settings is None or setting.name in row.settings}
        for name in names:
            _named(rows, name, what="--rows", owner=f"{self.name} has the rows")
        return tuple(row for name, row in rows.items() if not names or name in names)


def names() -> list[str]:
    """The tables that ship with fewpair."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def open_table(name: str) -> Table:
    """A shipped table by its name, or one of your own by the path of its TOML file."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"{path}: there is no such file; the tables that ship with fewpair are {', '.join(names())}")
    else:
        path = _named({each: SHIPPED / f"{each}.toml" for each in names()}, name, what="table", owner="there are")
    return read_table(path)


def read_table(path: Path) -> Table:
    """The table in a TOML file. Raises UserError on what is misspelt, missing or of another length than the headings."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} cannot be read as a table ({error})") from error
    metrics = tuple(_built(Metric, f"{path}: metric {number}", values) for number, values in enumerate(content.pop("metrics", ()), 1))
    settings = {name: _setting(path, name, values) for name, values in content.pop("settings", {}).items()}
    rows = tuple(_row(path, number, values) for number, values in enumerate(content.pop("rows", ()), 1))
    table: Table = _built(
        Table, str(path), {"columns": (), **content, "name": path.stem, "metrics": metrics, "rows": rows, "settings": settings}
    )
    _refuse_misfits(path, table)
    return table


def _setting(path: Path, name: str, values: Mapping[str, Any]) -> Setting:
    setting: Setting = _built(Setting, f"{path}: [settings.{name}]", {**values, "name": name})
    if not (isinstance(setting.size, tuple) and len(setting.size) == 2):
        raise UserError(f"{path}: [settings.{name}] size is {values['size']}, but must be height and width")
    return setting


def _row(path: Path, number: int, values: Mapping[str, Any]) -> Row:
    paper = values.get("paper", {})
    figures = {name: tuple(each) for name, each in (paper if isinstance(paper, Mapping) else {"": paper}).items()}
    row: Row = _built(Row, f"{path}: row {values.get('name', number)}", {**values, "paper": figures})
    return row


def _refuse_misfits(path: Path, table: Table) -> None:
    seen: set[str] = set()
    for row in table.rows:
        if row.name in seen:
            raise UserError(f"{path}: two rows are called {row.name}")
        seen.add(row.name)
        if len(row.cells) != len(table.columns):
            raise UserError(f"{path}: row {row.name} has {len(row.cells)} cells, but the table has {len(table.columns)} columns")
        for figures in row.paper.values():
            if len(figures) != len(table.metrics):
                raise UserError(f"{path}: row {row.name} has {len(figures)} figures, but the table has {len(table.metrics)} metrics")
        for name in row.settings or ():
            _named(table.settings, name, what=f"{path}: row {row.name} settings", owner="there are")


def _built(kind: Any, where: str, values: Mapping[str, Any]) -> Any:
    """A dataclass from TOML's values, arrays as tuples. Raises UserError on a field too many or too few."""
    known = {each.name: each for each in fields(kind)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(f"{where}: {name} is not known" + (f"; did you mean {near[0]}?" if near else f"; it takes {', '.join(known)}"))
    needed = [name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING]
    missing = [name for name in needed if name not in values]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} is missing")
    for name, value in values.items():
        wanted = known[name].type
        if wanted in (int, float, str, bool) and not isinstance(value, (int, float) if wanted is float else wanted):  # type: ignore[arg-type]
            raise UserError(f"{where}: {name} is {value!r}, but must be {wanted.__name__}")  # type: ignore[union-attr]
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _named(known: Mapping[str, Any], name: str, *, what: str, owner: str) -> Any:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    raise UserError(
        f"{what} {name}: there is none of that name; " + (f"did you mean {near[0]}? " if near else "") + f"{owner} {', '.join(known)}"
    )
