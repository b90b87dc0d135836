"""Fires the uploads of benchmarks/soak/uploads.py at a server and says what came back.

    python -m benchmarks.soak.fire --url URL --count 5000 --pid LAUNCHER
    python -m benchmarks.soak.fire --models exported --count 5000 [--figures FILE] [-- SERVER OPTIONS]

The second starts a server of its own, with the models folder and settings that are named, and stops it in the end. Broken is: a 5xx, no
answer within the deadline, an answer that cannot be read, a refusal in another shape than ours. What a full server refuses (503 with
Retry-After) has not been tried: it is sent again when the server says so, and is broken if that goes on beyond the deadline. Memory
counts as flat where the median of the last fifth of the looks (RSS of all processes) is at most 5 % above that of the second fifth; the
first is the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]  # one of BentoML's own dependencies
from PIL import Image

from benchmarks.soak.record import Figures, Promises
from benchmarks.soak.server import running
from benchmarks.soak.uploads import Upload, upload

_BUSY = (503,)  # with Retry-After, the answer to a crowd


@dataclass
class Fired:
    """What became of the uploads. `broken` names the seeds that show a fault of the server, each with what was seen."""

    statuses: Counter[int] = field(default_factory=Counter)
    kinds: dict[str, Counter[int]] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    refusals: int = 0  # by a full server, after which an upload was sent again
    seconds: float = 0.0
    slowest: float = 0.0
    rss_before: int = 0  # bytes, of the server and all its processes
    rss_after: int = 0
    weights: list[tuple[int, int]] = field(default_factory=list)  # after how many uploads, how many bytes
    look_every: int = 250

    def line(self) -> dict[str, Any]:
        """The figures, for a line of JSON."""
        return {
            "statuses": dict(sorted(self.statuses.items())),
            "broken": self.broken,
            "sent_again": self.refusals,
            "seconds": round(self.seconds, 1),
            "slowest_seconds": round(self.slowest, 2),
            "rss_before_mib": self.rss_before // 2**20,
            "rss_after_mib": self.rss_after // 2**20,
            "weights_mb": [(count, round(weight / 1e6, 1)) for count, weight in self.weights],
        }

    def growth(self) -> float | None:
        """By which share the memory of the last fifth of the looks is above that of the second; None of fewer than five looks."""
        weights, fifth = [weight for _, weight in self.weights], len(self.weights) // 5
        return statistics.median(weights[-fifth:]) / statistics.median(weights[fifth : 2 * fifth]) - 1 if fifth else None


async def fire(
    url: str, *, count: int, first: int = 0, clients: int = 8, deadline: float = 60, token: str | None = None, pid: int | None = None
) -> Fired:
    """Send the uploads of the seeds `first` to `first + count`, over `clients` connections; `pid` is the launcher's, to weigh it."""
    fired = Fired(rss_before=_weight(pid), look_every=max(1, count // 25))
    seeds = iter(range(first, first + count))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=deadline, headers=headers, trust_env=False) as client:
        await asyncio.gather(*(_fire_each(client, seeds, fired, deadline=deadline, pid=pid) for _ in range(clients)))
    fired.seconds, fired.rss_after = time.monotonic() - began, _weight(pid)
    return fired


async def _fire_each(client: httpx.AsyncClient, seeds: Iterator[int], fired: Fired, *, deadline: float, pid: int | None) -> None:
    for seed in seeds:
        done = sum(fired.statuses.values())
        if pid is not None and done // fired.look_every > len(fired.weights):
            fired.weights.append((done, _weight(pid)))
        sent = await asyncio.to_thread(upload, seed)
        until = time.monotonic() + deadline
        try:
            while True:  # what a full server refuses has not been tried: it is sent again when the server says so
                began = time.monotonic()
                answer = await client.post(sent.path, content=sent.body, headers={"Content-Type": sent.content_type})
                busy = answer.status_code in _BUSY and "retry-after" in answer.headers
                if not busy or began > until:
                    break
                fired.refusals += 1
                await asyncio.sleep(float(answer.headers["retry-after"]))
        except httpx.HTTPError as error:
            fired.broken[seed] = f"{sent.kind}: {type(error).__name__} after {time.monotonic() - began:.1f} s"
            continue
        fired.slowest = max(fired.slowest, time.monotonic() - began)
        fired.statuses[answer.status_code] += 1
        fired.kinds.setdefault(sent.kind.partition(",")[0], Counter())[answer.status_code] += 1
        why = "the server was full all the time" if busy else fault(sent, answer.status_code, answer.headers, answer.content)
        if why is not None:
            fired.broken[seed] = f"{sent.kind} to {sent.path}: {answer.status_code}, {why}"


def fault(sent: Upload, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """What is wrong with an answer; None where it is a refusal in the one shape, or a file that can be read."""
    if status in _BUSY and "retry-after" in headers:
        return None
    if status >= 500:
        return body[:200].decode("utf-8", "replace")
    if status >= 400:
        try:
            error = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            return f"no error of ours: {body[:200].decode('utf-8', 'replace')}"
        return None if set(error) == {"code", "message", "hint"} and error["message"] else f"an error of another shape: {error}"
    try:
        if headers["content-type"].startswith("image/"):
            Image.open(io.BytesIO(body)).load()
        elif headers["content-type"] == "application/json":
            json.loads(body)
    except (OSError, ValueError) as error:
        return f"an answer that cannot be read: {error}"
    return None


def _weight(pid: int | None) -> int:
    if pid is None:
        return 0
    launcher = psutil.Process(pid)
    return sum(int(process.memory_info().rss) for process in [launcher, *launcher.children(recursive=True)])


def main(argv: Sequence[str] | None = None) -> int:
    """0 where nothing is broken."""
    words = list(sys.argv[1:] if argv is None else argv)
    asked = _parser().parse_args(words)
    figures = Figures("fire", asked.figures, words)
    options = {"count": asked.count, "first": asked.first, "clients": asked.clients, "deadline": asked.deadline}
    if asked.models is None:
        fired = asyncio.run(fire(asked.url, token=asked.token, pid=asked.pid, **options))
    else:
        with tempfile.TemporaryDirectory(prefix="fewpair-fire-") as home, running(asked.models, Path(home), asked.server) as server:
            fired = asyncio.run(fire(server.url, pid=server.process.pid, **options))
    for kind, statuses in sorted(fired.kinds.items()):
        print(f"{kind:16}", dict(sorted(statuses.items())), file=sys.stderr)
    promises, growth = Promises(), fired.growth()
    promise = "every upload is answered, once the server has room for it: no 5xx, no hang, no answer that cannot be read"
    tried = sum(fired.statuses.values()) == asked.count
    promises.hold(promise, tried and not fired.broken, f"{len(fired.broken)} of {asked.count} broken, sent again {fired.refusals} times")
    if growth is not None:
        promises.hold("memory does not grow by more than 5 %", growth <= 0.05, f"{100 * growth:+.1f} %")
    of = {"uploads": asked.count, "first": asked.first, "clients": asked.clients, "growth": growth}
    figures.add("fired", **of, **fired.line(), promises=promises.made)
    return 1 if promises.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.fire", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="of a running server")
    parser.add_argument("--models", type=Path, help="start a server over these models instead")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--deadline", type=float, default=60, help="seconds after which an answer counts as a hang (default: 60)")
    parser.add_argument("--token", help="the server's bearer token")
    parser.add_argument("--pid", type=int, help="the launcher's process, to weigh the server's memory")
    parser.add_argument("--figures", type=Path, help="a file of JSON lines to add the figures to")
    parser.add_argument("server", nargs="*", metavar="-- SERVER OPTIONS", help="settings of the server that is started")
    return parser


if __name__ == "__main__":
    sys.exit(main())
