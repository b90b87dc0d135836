"""The results of a table's repeats as means and standard deviations, row by row."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.experiment.results import Result
from trainer.experiment.tables import Metric, Row, Setting, Table
from trainer.experiment.trials import spec_of

CHECKPOINTS = {"last": "after the last step", "best": "at the step that is best on `val`"}


@dataclass(frozen=True)
class Spread:
    """Some repeats of one figure."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample's standard deviation (n - 1 in the denominator); None of a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def spelled(self, digits: int) -> str:
        """0.312 ± 0.012 (3)."""
        spread = "" if self.deviation is None else f" ± {self.deviation:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread} ({len(self.values)})"


@dataclass(frozen=True)
class Line:
    """A row with what came of its runs."""

    row: Row
    results: tuple[Result, ...]
    failed: tuple[Result, ...]
    planned: int

    def spread(self, metric: Metric, split: str, checkpoint: str) -> Spread | None:
        """The metric's repeats; None where none was measured."""
        found = [result.figures.get(checkpoint, {}).get(split, {}) for result in self.results]
        named = [(figures, metric.find(figures)) for figures in found]
        values = tuple(float(figures[name]) for figures, name in named if name is not None)
        return Spread(values) if values else None

    def described(self) -> str:
        """What was run: the method, and how much of what it learnt from."""
        if not self.results:
            return "FAILED" if self.failed else "not run"
        first = self.results[0]
        counts = {"pairs": f"{first.pairs} {'pair' if first.pairs == 1 else 'pairs'}", "unpaired": f"{first.unpaired} unpaired"}
        return f"{first.method}: {' + '.join(counts[half] for half in ('pairs', 'unpaired') if half in first.reads)}"


def summarise(table: Table, setting: Setting, results: Sequence[Result]) -> tuple[list[Line], int]:
    """Every row of the setting with its results, and how many results belong to another version of their row and are left out."""
    lines, used = [], 0
    mine = [each for each in results if (each.table, each.setting) == (table.name, setting.name)]
    for row in table.rows_of(setting):
        spec = spec_of(setting, row)
        own = sorted((each for each in mine if each.row == row.name and each.spec == spec), key=lambda each: each.repeat)
        used += len(own)
        lines.append(
            Line(
                row,
                tuple(each for each in own if each.failed is None),
                tuple(each for each in own if each.failed is not None),
                setting.repeats_of(row),
            )
        )
    return lines, len(mine) - used
