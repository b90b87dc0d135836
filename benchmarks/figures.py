"""How a benchmark says what it measured: a table for people, and one JSON line a figure for programs."""

import contextlib
import importlib.metadata
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.soak.record import commit, processor

PACKAGES = ("torch", "onnxruntime-gpu", "openvino", "litserve", "fastapi", "bentoml", "numpy")


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
    spread: tuple[float, float] | None = None
    """First and third quartile, where the value is a median."""

    def line(self) -> dict[str, Any]:
        """What its JSON object says."""
        own = {"figure": self.name, "value": self.value, "unit": self.unit, **self.of, "note": self.note}
        return own if self.spread is None else own | {"spread": self.spread}


def median(name: str, values: Sequence[float], unit: str, of: dict[str, Any]) -> Figure:
    """The median of two or more values, with its quartiles."""
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(name, middle, unit, of, spread=(first, third))


def in_turn(
    actions: Mapping[str, Callable[[], object]], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each action in each round, after one to warm up; the order within a round is drawn."""
    took: dict[str, list[float]] = {name: [] for name in actions}
    draws = random.Random(0)
    for turn in range(rounds + 1):
        for name in draws.sample(list(actions), len(actions)):
            began = clock()
            actions[name]()
            if turn:
                took[name].append(clock() - began)
    return took


def compared(name: str, took: Mapping[str, Sequence[float]], of: dict[str, Any]) -> list[Figure]:
    """The milliseconds of each, and how many times as long as the first each of the others takes, round by round."""
    (first, own), *others = took.items()
    figures = [median(name, [1000 * one for one in row], "ms", of | {"by": who}) for who, row in took.items()]
    for who, row in others:
        ratios = [other / mine for other, mine in zip(row, own, strict=True)]
        figures.append(median(f"{name}, relative to {first}", ratios, "x", of | {"by": who}))
    return figures


def context() -> dict[str, Any]:
    """The machine, its load, the versions of the packages that matter and are installed, and the commit."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    machine = {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 2)}
    return {"machine": machine, "versions": versions, "commit": commit("trainer", "serving", "exported", "benchmarks")}


def report(title: str, figures: Sequence[Figure]) -> None:
    """Print the table, then the lines."""
    rows = [("figure", "of", "value", "unit", "quartiles")]
    for figure in figures:
        value = "-" if figure.value is None else f"{figure.value:.4g}"
        spread = "" if figure.spread is None else "{:.4g} to {:.4g}".format(*figure.spread)
        rows.append((figure.name, " ".join(str(part) for part in figure.of.values()), value, figure.unit, spread))
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    print(f"\n{title}")
    for row in rows:
        padded = [
            cell.rjust(width) if place == 2 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(f"  {'  '.join(padded)}".rstrip())
    for figure in figures:
        if figure.note:
            print(f"  ({figure.name} {' '.join(str(part) for part in figure.of.values())}: {figure.note})")
    print()
    everywhere = context()
    for figure in figures:
        print(json.dumps(figure.line() | everywhere), flush=True)
