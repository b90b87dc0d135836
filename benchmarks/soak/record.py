"""Figures as JSON lines with machine, commit and command, and checks that passed or failed."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PACKAGES = ("onnxruntime-gpu", "bentoml", "starlette", "uvicorn", "numpy", "pillow")


class Record:
    """The figures and checks of one run, written at once, so that an interruption loses nothing."""

    def __init__(self, program: str, file: Path | None, command: Sequence[str]) -> None:
        self.checks: list[dict[str, Any]] = []
        self._file = file
        self._run = {
            "program": program,
            "began": _now(),
            "command": _command(command),
            "commit": commit("serving", "exported"),
            "machine": machine(),
        }
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)

    def add(self, figure: str, **values: Any) -> None:
        """Print and write one figure."""
        print(json.dumps({"figure": figure, **values}, ensure_ascii=False), flush=True)
        if self._file is not None:
            line = json.dumps({**self._run, "at": _now(), "figure": figure, **values}, ensure_ascii=False)
            with self._file.open("a", encoding="utf-8") as out:
                out.write(line + "\n")

    def check(self, name: str, passed: bool, seen: str) -> None:
        """Note a check with what was seen."""
        self.checks.append({"check": name, "passed": passed, "seen": seen})
        print(f"{'passed' if passed else 'FAILED'} {name}: {seen}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Describe processor, cores, load before the run, and the versions that matter."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile: the smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def milliseconds(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(1000 * seconds, 1)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the least-squares slope of y over x; 0 of fewer than two x."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def _command(arguments: Sequence[str]) -> str:
    """Return the command as typed, with paths outside of the working folder shortened to their last part."""
    here, shown = Path.cwd(), []
    for argument in arguments:
        path = Path(argument)
        if path.is_absolute():
            argument = str(path.relative_to(here)) if path.is_relative_to(here) else f".../{path.name}"
        shown.append(argument)
    return f"python -m benchmarks.soak {' '.join(shown)}"


def commit(*folders: str) -> str:
    """Return the commit, marked where these folders differ from it."""
    try:
        head, changed = (
            subprocess.run(["git", *command], capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", *folders])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}, changed" if changed else head


def processor() -> str:
    """Return the model of the processor, as the system names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
