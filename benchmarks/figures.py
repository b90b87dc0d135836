"""How a benchmark says what it measured: a table for people, and one JSON line a figure for programs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One number, with everything that makes it one."""

    name: str
    value: float | None
    unit: str
    of: dict[str, Any] = field(default_factory=dict)
    """What was measured: method, size, precision, provider, ..."""
    note: str | None = None
    """Why there is no value, or what to know of it."""

    def line(self) -> str:
        """One JSON object."""
        return json.dumps({"figure": self.name, "value": self.value, "unit": self.unit, **self.of, "note": self.note})


def report(title: str, figures: Sequence[Figure]) -> None:
    """Print the table, then the lines."""
    rows = [("figure", "of", "value", "unit")]
    for figure in figures:
        value = "-" if figure.value is None else f"{figure.value:.4g}"
        rows.append((figure.name, " ".join(str(part) for part in figure.of.values()), value, figure.unit))
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    print(f"\n{title}")
    for row in rows:
        print(
            "  "
            + "  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].rjust(widths[2]), row[3]]).rstrip()
        )
    for figure in figures:
        if figure.note:
            print(f"  ({figure.name} {' '.join(str(part) for part in figure.of.values())}: {figure.note})")
    print()
    for figure in figures:
        print(figure.line(), flush=True)
