"""Which class of a run's own table each class of another table becomes, from a CSV file `from,to` or by equal names."""

import csv
import difflib
from collections.abc import Mapping
from pathlib import Path

from trainer.batch import Classes
from trainer.errors import UserError

VOID = "void"
"""What the `to` of a class says whose pixels are to be ignored."""

LabelMap = Mapping[str, str | None]
"""{class of the other table: class of the run's own table, or None for void}; every class that counts there is a key."""


def by_names(theirs: Classes, ours: Classes, *, source: str, target: str) -> LabelMap:
    """Every class keeps its name. Raises UserError where the run's own table lacks one; `source` and `target` say whose tables they are."""
    strange = [name for name in theirs.names if name not in ours.names]
    if strange:
        raise UserError(
            f"{source} has classes that {target} lacks: {', '.join(strange)}; say what becomes of each class with --label-map FILE.csv, "
            f"whose first line is from,to and which has a line for each of {', '.join(theirs.names)} "
            f"(to: {', '.join(ours.names)}, or {VOID})"
        )
    return {name: name for name in theirs.names}


def read_label_map(path: Path, theirs: Classes, ours: Classes, *, source: str, target: str) -> LabelMap:
    """The mapping that a CSV file `from,to` says by class names.

    Every class of the other table that counts must have a line; its void classes stay void, and may have one that says so.
    """
    void = {VOID} | {row.name for row in ours.rows if row.ignore}
    found: dict[str, str | None] = {}
    for line, (mapped, to) in _lines(path):
        where = f"{path} line {line}"
        ignored = {row.name for row in theirs.rows if row.ignore}
        if mapped not in theirs.names and mapped not in ignored:
            raise UserError(f"{where}: {source} has no class {mapped!r}{_near(mapped, theirs.names)}")
        if mapped in found:
            raise UserError(f"{where}: {mapped} has a line already, which says {found[mapped] or VOID}")
        if to not in ours.names and to not in void:
            raise UserError(f"{where}: {target} has no class {to!r}{_near(to, (*ours.names, VOID))}")
        goal = to if to in ours.names else None
        if mapped in ignored and goal is not None:
            raise UserError(f"{where}: {mapped} is void in {source} and cannot become {goal}: write {VOID}, or leave the line out")
        found[mapped] = goal
    missing = [name for name in theirs.names if name not in found]
    if missing:
        raise UserError(
            f"{path} does not say what becomes of {', '.join(missing)} of {source}: "
            f"add a line NAME,CLASS for each, or NAME,{VOID} to ignore it"
        )
    if all(found[name] is None for name in theirs.names):
        raise UserError(f"{path} makes every class of {source} void: nothing would be left to learn from")
    return {name: found[name] for name in theirs.names}


def _lines(path: Path) -> list[tuple[int, tuple[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, skipinitialspace=True)
            first = [cell.strip().lower() for cell in next(rows, [])]
            if first != ["from", "to"]:
                raise UserError(f"{path} line 1 is {','.join(first)!r}; a label map's first line is from,to")
            lines = [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--label-map {path} cannot be read ({error}); it is a CSV file whose first line is from,to") from error
    for line, cells in lines:
        if len(cells) != 2 or not all(cells):
            raise UserError(f"{path} line {line}: {','.join(cells)!r} is not a pair NAME,CLASS or NAME,{VOID}")
    return [(line, (cells[0], cells[1])) for line, cells in lines]


def _near(name: str, names: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; it has {', '.join(names)}"
