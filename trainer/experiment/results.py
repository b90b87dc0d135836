"""Results of an experiment: a file with one JSON object per line and run."""

import fnmatch
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

from trainer.errors import UserError
from trainer.experiment.tables import Metric, Row
from trainer.training.checkpointing import write_whole

Result = dict[str, Any]
"""table, setting, row, repeat, precision, rule; method, pairs, unpaired, steps, reads (the halves of the batch
that the method reads); figures {checkpoint: {"step": s, split: {name: value}}}; judges; seconds; environment;
failed (the reason, else None). Results from before `precision` was recorded lack it."""


class Summary(NamedTuple):
    """A figure over the runs of a row; NaN where there are too few."""

    mean: float = nan
    deviation: float = nan
    """The sample standard deviation."""
    runs: int = 0


@dataclass(frozen=True)
class Line:
    """A row of the table with its runs in one precision."""

    row: Row
    precision: str
    """bf16, fp32, or "" where it was not recorded or nothing was run."""
    results: Sequence[Result]
    """Of the runs that did not fail, by their seeds."""
    failed: bool
    """Whether a run of the row failed."""

    def summary(self, metric: Metric, split: str, checkpoint: str) -> Summary:
        """Return one figure, of 0 runs if it was not measured."""
        measured = [each["figures"].get(checkpoint, {}).get(split, {}) for each in self.results]
        name = next(iter(fnmatch.filter(chain.from_iterable(measured), metric.figure)), None)
        values = [figures[name] for figures in measured if figures.get(name) is not None]
        deviation = statistics.stdev(values) if len(values) > 1 else nan
        return Summary(statistics.fmean(values), deviation, len(values)) if values else Summary()


def read_results(path: Path) -> list[Result]:
    """Return the results in a file, the latest of each run; an empty list if there is no file."""
    found: dict[tuple[Any, ...], Result] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else (), 1):
        try:
            result = json.loads(line)
            found[identity(result)] = result
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}, line {number} is not a result ({error}): remove the line") from error
    return list(found.values())


def append(path: Path, result: Result) -> None:
    """Add a result, or replace that of the same run. The file is replaced as a whole, so a crash leaves it readable."""
    results = {identity(each): each for each in [*read_results(path), result]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(each, allow_nan=False) + "\n" for each in results.values()))


def identity(result: Result) -> tuple[Any, ...]:
    """Return what tells runs apart: bf16 and fp32 runs of one row are different runs."""
    return (*(result[name] for name in ("table", "setting", "row", "repeat")), result.get("precision"))
