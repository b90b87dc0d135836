"""The results of a table's runs, one JSON line each: they outlive the runs' folders, and the pages are written from them alone."""

import fcntl
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import UserError


@dataclass(frozen=True)
class Result:
    """What came of one run."""

    table: str
    setting: str
    row: str
    repeat: int
    key: str
    """The hash of what decided the result."""
    spec: str
    """The hash of what the table asked of the row."""
    method: str
    pairs: int
    unpaired: int
    rule: str
    steps: int
    size: tuple[int, int]
    reads: tuple[str, ...] = ("pairs", "unpaired")
    """Which halves the method looked at."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """checkpoint -> {"step": s, split -> {figure: value}}, of the averaged weights."""
    judges: Mapping[str, Any] = field(default_factory=dict)
    """The names of what judged, beside the dataset's labels: `features`, `judge`; and the features that chose the pairs: `selection`."""
    failed: str | None = None
    """Why the run did not end, where it did not."""
    seconds: float | None = None
    """Training, wall clock."""
    cpu_seconds: float | None = None
    """Of the whole process, evaluation included; None where the run was interrupted."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    shared_with: str | None = None
    """The row of another table that this very run was made for."""

    @property
    def name(self) -> str:
        return f"{self.row} #{self.repeat}"


def read_results(path: Path) -> list[Result]:
    """The results in a file; of two lines on the same run the later one. A last line that was cut by a kill is left out."""
    if not path.is_file():
        return []
    found: dict[tuple[str, str, str, int], Result] = {}
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            result = Result(**(values | {name: tuple(values[name]) for name in ("size", "reads") if name in values}))
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                continue
            raise UserError(
                f"{path} line {number} is not a result as this version of fewpair writes it ({error}): remove the line"
            ) from error
        found[(result.table, result.setting, result.row, result.repeat)] = result
    return list(found.values())


def append(path: Path, result: Result) -> None:
    """One more line; a line that a kill had cut is dropped first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two commands may write here at once
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            file.truncate(whole)
        file.write((json.dumps(asdict(result), allow_nan=False) + "\n").encode())


def known_results(paths: Iterable[Path]) -> dict[str, list[Result]]:
    """Every result of these files under its key."""
    known: dict[str, list[Result]] = {}
    for path in paths:
        for result in read_results(path):
            known.setdefault(result.key, []).append(result)
    return known
