"""Write the figures of the programs into a page, between its lines `<!-- figures -->` and `<!-- end of figures -->`.

Of each command the last run that came to its end is shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.experiment.report import BEGIN, END, markdown, replaced

Line = Mapping[str, Any]
_TITLES = {
    "load": "Load and overload",
    "endurance": "Endurance",
    "identity": "Equal answers",
    "uploads": "Mutated uploads",
}


def write(page: Path, figures: Sequence[Path]) -> int:
    """Read the figures and write the page; return the exit code."""
    lines = [json.loads(line) for file in figures for line in file.read_text(encoding="utf-8").splitlines() if line]
    text = replaced(page.read_text(encoding="utf-8"), sections(lines))
    if text is None:
        print(f"{page} has no lines {BEGIN} and {END} to write between", file=sys.stderr)
        return 2
    page.write_text(text, encoding="utf-8")
    return 0


def sections(lines: Sequence[Line]) -> str:
    """Return a section for each program that was run."""
    runs: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        runs.setdefault((line["command"], line["began"]), []).append(line)
    finished = {
        command: run
        for (command, _), run in sorted(runs.items(), key=lambda one: one[0][1])
        if run[-1]["figure"] == "checks"
    }
    parts: list[str] = []
    for program, title in _TITLES.items():
        shown = [run for run in finished.values() if run[0]["program"] == program]
        parts += [f"## {title}"] if shown else []
        for run in shown:
            parts += [_origin(run[0]), *_figures(run), _checks(run[-1])]
    return "".join(f"\n{part}\n" for part in parts) + "\n"


def _origin(line: Line) -> str:
    machine = line["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"    {line['command']}\n\n{line['began'][:10]}, commit {line['commit']}. {machine['processor']}, "
        f"{machine['cores']} cores, load before the run {machine['load_before']}; {machine['system']}, "
        f"Python {machine['python']}, {versions}. CUDA execution: not shown."
    )


def _figures(run: Sequence[Line]) -> Iterator[str]:
    """Yield a table of the rows that share their columns, and one of names and values for each other figure."""
    rows = [line for line in run if line["figure"] == "closed loop" or "compared" in line]
    if rows:
        names = [name for name in rows[0] if name not in _ORIGIN and name not in ("figure", "which", "stage_ms")]
        loops = rows[0]["figure"] == "closed loop"
        head = [name.replace("_", " ") for name in names]
        yield markdown(
            head if loops else ["where", *head],
            [[*([] if loops else [line["figure"]]), *(_shown(line[name]) for name in names)] for line in rows],
        )
        stages = list(dict.fromkeys(stage for line in rows for stage in line.get("stage_ms", {})))
        if stages:
            yield "Mean milliseconds of each stage:"
            cells = [[_shown(line["clients"]), *(_shown(line["stage_ms"].get(one)) for one in stages)] for line in rows]
            yield markdown(["clients", *stages], cells)
    for line in run:
        if line not in rows and line["figure"] != "checks":
            facts = [(name, value) for name, value in line.items() if name not in _ORIGIN and name != "figure"]
            yield markdown(
                [line["figure"], "seen"], [[name.replace("_", " "), _shown(value)] for name, value in facts], words=2
            )


_ORIGIN = {"program", "began", "command", "commit", "machine", "at"}


def _checks(line: Line) -> str:
    rows = [[one["check"], "yes" if one["passed"] else "**no**", one["seen"]] for one in line["checks"]]
    return markdown(["check", "passed", "seen"], [[cell.replace("|", "/") for cell in row] for row in rows], words=3)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_shown(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return " to ".join(map(_shown, value)) if len(value) == 2 else ", ".join(map(_shown, value)) or "none"
    if isinstance(value, float | int):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:g}"
    return "-" if value is None else str(value)
