"""Thousands of uploads of corpus.py: no 5xx, no hang, no answer that cannot be read, and memory that stays flat.

What a full server refuses (503 with Retry-After) is sent again. Memory is flat where the median resident memory of the
last fifth is at most 5 % above that of the second fifth; the first is the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from benchmarks.soak.corpus import upload
from benchmarks.soak.exchange import Answer, Request, send_until_admitted
from benchmarks.soak.record import Record
from benchmarks.soak.server import running

_CLIENTS = 8


@dataclass
class Outcome:
    """What became of the uploads; `broken` names the seeds that show a fault of the server."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: dict[int, str] = field(default_factory=dict)
    slowest: float = 0.0
    memory: list[float] = field(default_factory=list)  # MB, at equal distances


def run(options: argparse.Namespace, record: Record) -> None:
    """Send `--count` uploads, a few at a time."""
    with (
        tempfile.TemporaryDirectory(prefix="fewpair-uploads-") as home,
        running(options.models, Path(home), ["--no-ui", *options.server]) as server,
    ):
        began = time.monotonic()
        seen = asyncio.run(send_uploads(server.url, options.count, memory=server.memory))
        seconds = time.monotonic() - began
    fifth = max(1, len(seen.memory) // 5)
    growth = statistics.median(seen.memory[-fifth:]) / statistics.median(seen.memory[fifth : 2 * fifth]) - 1
    record.add(
        "uploads",
        uploads=options.count,
        statuses=dict(sorted(seen.statuses.items())),
        broken=seen.broken,
        seconds=round(seconds, 1),
        slowest_s=round(seen.slowest, 2),
        memory_mb=[round(one, 1) for one in seen.memory],
    )
    answered = sum(seen.statuses.values()) == options.count and not seen.broken
    record.check(
        "every upload is answered: no 5xx, no hang, no answer that cannot be read",
        answered,
        f"{len(seen.broken)} of {options.count} broken",
    )
    record.check("memory grows by at most 5 %", growth <= 0.05, f"{100 * growth:+.1f} %")


async def send_uploads(url: str, count: int, *, first: int = 0, memory: Callable[[], float] = lambda: 1.0) -> Outcome:
    """Send the uploads of `count` seeds from `first` on."""
    seen, seeds = Outcome(), iter(range(first, first + count))

    async def client() -> None:
        for seed in seeds:
            if (seed - first) % max(1, count // 25) == 0:
                seen.memory.append(await asyncio.to_thread(memory))
            one = await asyncio.to_thread(upload, seed)
            answer = await send_until_admitted(url, Request(one.kind, one.path, one.body, one.content_type))
            seen.slowest = max(seen.slowest, answer.seconds)
            seen.statuses[answer.status] += 1
            if (why := fault(answer)) is not None:
                seen.broken[seed] = f"{one.kind} to {one.path[:80]}: {answer.status}, {why}"

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return seen


def fault(answer: Answer) -> str | None:
    """Return what is wrong with an answer; None where it is an error in the documented shape, or a file that can be
    read.
    """
    if answer.error is not None:
        return answer.error
    start = answer.body[:200].decode("utf-8", "replace")
    if answer.status >= 500:
        return start
    try:
        if answer.status >= 400:
            error = json.loads(answer.body)["error"]
            return None if {"code", "message", "hint"} <= set(error) and error["message"] else f"another shape: {start}"
        if answer.headers["content-type"].startswith("image/"):
            Image.open(io.BytesIO(answer.body)).load()
        elif answer.headers["content-type"] == "application/json":
            json.loads(answer.body)
    except (OSError, ValueError, KeyError, TypeError):
        return f"it cannot be read: {start}"
    return None
