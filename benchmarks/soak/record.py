"""How the long proofs write down what they saw: JSON lines, each with machine, commit and command; and promises, held or broken."""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PACKAGES = ("onnxruntime-gpu", "bentoml", "starlette", "uvicorn", "numpy", "pillow")


@dataclass
class Promises:
    """What was to hold, each with what was seen."""

    made: list[dict[str, Any]] = field(default_factory=list)

    def hold(self, promise: str, held: bool, seen: str) -> None:
        """Note one; a broken one is told at once."""
        self.made.append({"promise": promise, "held": held, "seen": seen})
        print(f"{'held  ' if held else 'BROKEN'} {promise}: {seen}", file=sys.stderr, flush=True)

    @property
    def broken(self) -> list[str]:
        return [one["promise"] for one in self.made if not one["held"]]


class Figures:
    """Appends figures of one program's run to a file of JSON lines, at once, so that an interruption loses nothing."""

    def __init__(self, program: str, file: Path | None, command: Sequence[str]) -> None:
        self._file = file
        self._run = {"program": program, "began": _now(), "command": _command(program, command), "commit": _commit(), "machine": machine()}
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)

    def add(self, figure: str, **values: Any) -> None:
        """One figure, printed and written down."""
        line = json.dumps({"figure": figure, **values}, ensure_ascii=False)
        print(line, flush=True)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as out:
                out.write(json.dumps({**self._run, "at": _now(), "figure": figure, **values}, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, load before the run, and the versions that matter."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `share` of the values do not exceed; NaN of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def milliseconds(seconds: float) -> float | None:
    """Rounded, for a figure; None where there is none."""
    return None if math.isnan(seconds) else round(1000 * seconds, 1)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """By least squares, of y per unit of x; 0 of fewer than two x, which show none."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def _command(program: str, words: Sequence[str]) -> str:
    """As it was typed, with paths outside of the working folder by their last part: whose machine it was is nobody's business."""
    here = Path.cwd()
    shown = []
    for word in words:
        path = Path(word)
        if path.is_absolute():
            word = str(path.relative_to(here)) if path.is_relative_to(here) else f".../{path.name}"
        shown.append(word)
    return f"python -m benchmarks.soak.{program} {' '.join(shown)}".strip()


def _commit() -> str:
    """The commit, marked where the serving code differs from it."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        told = ["git", "status", "--porcelain", "--", "serving", "benchmarks/soak", "exported"]
        changed = subprocess.run(told, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}, changed" if changed else head


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or sys.platform


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
