"""Memory and open files of a server's processes over time: written down as they are seen, and what they come to."""

from __future__ import annotations

import csv
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.soak.record import slope
from benchmarks.soak.server import Server

_MB = 1e6


@dataclass(frozen=True)
class Sample:
    """One process at one moment. `seconds` from the first sample; memory in MB (10^6 bytes); `quiet`: nobody was asking anything."""

    seconds: float
    pid: int
    role: str
    rss: float  # resident
    pss: float  # the same, with pages that several processes share divided among them
    uss: float  # of it, what no other process has
    files: int  # open file descriptors
    quiet: bool


class Samples:
    """Looks at a server's processes and writes what it sees to a CSV file at once."""

    def __init__(self, server: Server, file: Path) -> None:
        self._server, self._began = server, time.monotonic()
        self._out = file.open("w", newline="", encoding="utf-8", buffering=1)
        self._rows = csv.DictWriter(self._out, [one.name for one in fields(Sample)])
        self._rows.writeheader()
        self.taken: list[Sample] = []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def take(self, *, quiet: bool = False) -> list[Sample]:
        """One sample of every process that lives."""
        seconds = round(self.seconds, 2)
        found = [one for pid, role in self._server.processes().items() if (one := _look(pid, role, seconds, quiet)) is not None]
        for one in found:
            self._rows.writerow(asdict(one))
        self.taken += found
        return found

    def close(self) -> None:
        self._out.close()


def _look(pid: int, role: str, seconds: float, quiet: bool) -> Sample | None:
    """None where the process has ended meanwhile."""
    folder = Path(f"/proc/{pid}")
    try:
        told = {
            name: 1024 * int(kb) / _MB for name, kb in re.findall(r"^(\w+): +(\d+) kB", (folder / "smaps_rollup").read_text(), re.MULTILINE)
        }
        files = len(list((folder / "fd").iterdir()))
    except OSError:
        return None
    if "Rss" not in told:
        return None
    uss = told["Private_Clean"] + told["Private_Dirty"]
    return Sample(seconds, pid, role, round(told["Rss"], 2), round(told["Pss"], 2), round(uss, 2), files, quiet)


def stretches(samples: Sequence[Sample], *, after: float, warm_up: float, until: float) -> list[dict[str, Any]]:
    """Each process from its own warm-up on: how long it was watched, and how its memory and files went, per minute by least squares.

    `after` holds for those that were there at the beginning, `warm_up` for the life of those that came later; `until` ends all. In seconds.
    """
    found = []
    first = min((one.seconds for one in samples), default=0.0)
    for pid in dict.fromkeys(one.pid for one in samples):
        life = [one for one in samples if one.pid == pid and not one.quiet]
        if not life:
            continue
        begins = after if life[0].seconds == first else max(after, life[0].seconds + warm_up)
        kept = [one for one in life if begins <= one.seconds <= until]
        minutes = (kept[-1].seconds - kept[0].seconds) / 60 if kept else 0.0
        if minutes <= 0:
            continue
        row: dict[str, Any] = {"pid": pid, "role": life[0].role, "from_s": kept[0].seconds, "minutes": round(minutes, 2)}
        for name in ("rss", "pss", "uss"):
            row[f"{name}_mb"] = round(statistics.median(getattr(one, name) for one in kept), 1)
            row[f"{name}_mb_a_minute"] = round(slope([(one.seconds / 60, getattr(one, name)) for one in kept]), 3)
        row["floor_mb_a_minute"] = round(slope(_floor(kept)), 3)
        row["files"] = statistics.median(one.files for one in kept)
        row["files_a_minute"] = round(slope([(one.seconds / 60, one.files) for one in kept]), 3)
        found.append(row)
    return found


def _floor(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """The smallest resident memory of each minute: what requests take for a moment is not in it, what leaks is."""
    minutes: dict[int, float] = {}
    for one in samples:
        minute = int(one.seconds // 60)
        minutes[minute] = min(one.rss, minutes.get(minute, one.rss))
    return list(minutes.items())


def together(samples: Sequence[Sample], *, after: float, until: float) -> dict[str, Any]:
    """All processes summed (PSS): medians of the first and the last quarter after the warm-up, and what lies between them, per minute."""
    sums: dict[float, float] = {}
    for one in samples:
        if after <= one.seconds <= until and not one.quiet:
            sums[one.seconds] = sums.get(one.seconds, 0.0) + one.pss
    quarter = (until - after) / 4
    first = [value for seconds, value in sums.items() if seconds <= after + quarter]
    last = [value for seconds, value in sums.items() if seconds >= until - quarter]
    if not first or not last or quarter <= 0:
        return {}
    begins, ends = statistics.median(first), statistics.median(last)
    return {
        "first_quarter_mb": round(begins, 1),
        "last_quarter_mb": round(ends, 1),
        "mb_a_minute": round((ends - begins) / (3 * quarter / 60), 3),
    }


def leaked(samples: Sequence[Sample]) -> dict[int, int]:
    """How many more files each process holds open at the last quiet moment than at the first at which it was seen."""
    quiet: dict[int, list[int]] = {}
    for one in samples:
        if one.quiet:
            quiet.setdefault(one.pid, []).append(one.files)
    return {pid: counts[-1] - counts[0] for pid, counts in quiet.items() if len(counts) > 1}
