"""Memory of a soak at equal shelves: what the server held each time that the same models were on it, from the soak's own records.

    python -m benchmarks.soak.alike FOLDER [--figures FILE]

A soak adds, replaces and removes models over and over, and a server that holds three models is larger than one with two. So the slope over
all samples says where in that round the soak happened to begin and end. Here each stretch between two reloads is held against the earlier
stretches after the same change: the least resident memory of the worker that lives through it all, which is what stays when requests
have gone. FOLDER is the soak's `--out`.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.soak.record import Figures, Promises, slope

MOST = 1.0  # MB a minute


def main(argv: Sequence[str] | None = None) -> int:
    """0 where the memory is flat."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.alike", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--warm-up", type=float, default=5, metavar="MINUTES", help="that do not count (default: 5)")
    parser.add_argument("--figures", type=Path, help="a file of JSON lines to add the figures to")
    asked = parser.parse_args(words)
    with (asked.folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        samples = list(csv.DictReader(file))
    events = [json.loads(line) for line in (asked.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    found = alike(samples, events, after=60 * asked.warm_up)
    figures, promises = Figures("alike", asked.figures, words), Promises()
    promises.hold(
        f"memory at equal shelves grows by less than {MOST:g} MB a minute",
        bool(found) and statistics.median(one["mb_a_minute"] for one in found) < MOST,
        f"median of {[one['mb_a_minute'] for one in found]}",
    )
    figures.add("alike", shelves=found, promises=promises.made)
    return 1 if promises.broken else 0


def alike(samples: Sequence[Mapping[str, str]], events: Sequence[Mapping[str, Any]], *, after: float) -> list[dict[str, Any]]:
    """For each change that happened more than once after `after` seconds: the least memory of each time, and how it went, a minute."""
    worker = _eldest(samples)
    resident = [(float(one["seconds"]), float(one["rss"])) for one in samples if one["pid"] == worker]
    reloads = [one for one in events if one["event"] == "reload"]
    least: dict[str, list[tuple[float, float]]] = {}
    for number, reload in enumerate(reloads):
        begins = reload["seconds"]
        ends = reloads[number + 1]["seconds"] - reloads[number + 1]["took"] if number + 1 < len(reloads) else float("inf")
        held = [megabytes for seconds, megabytes in resident if max(begins, after) <= seconds < ends]
        if len(held) > 2:
            least.setdefault(reload["change"], []).append((begins / 60, min(held)))
    return [
        {"after": change, "least_mb": [round(megabytes, 1) for _, megabytes in times], "mb_a_minute": round(slope(times), 3)}
        for change, times in least.items()
        if len(times) > 1
    ]


def _eldest(samples: Sequence[Mapping[str, str]]) -> str | None:
    """The worker that was there at the first sample and at the last."""
    if not samples:
        return None
    ends = [{one["pid"] for one in samples if one["seconds"] == at and one["role"] == "worker"} for at in _first_and_last(samples)]
    return min(ends[0] & ends[1], default=None)


def _first_and_last(samples: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    return samples[0]["seconds"], samples[-1]["seconds"]


if __name__ == "__main__":
    sys.exit(main())
