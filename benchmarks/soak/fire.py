"""Fire uploads of benchmarks/soak/uploads.py at a running server and say what came back: `python -m benchmarks.soak.fire --url URL`."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]  # one of BentoML's own dependencies
from PIL import Image

from benchmarks.soak.uploads import Upload, upload

_BUSY = (503,)  # with Retry-After, the answer to a crowd


@dataclass
class Fired:
    """What became of the uploads. `broken` names the seeds that show a fault of the server, each with what was seen."""

    statuses: Counter[int] = field(default_factory=Counter)
    kinds: dict[str, Counter[int]] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    slowest: float = 0.0
    rss_before: int = 0  # bytes, of the server and all its processes
    rss_after: int = 0

    def line(self) -> dict[str, Any]:
        """The figures, for a line of JSON."""
        return {
            "statuses": dict(sorted(self.statuses.items())),
            "broken": self.broken,
            "seconds": round(self.seconds, 1),
            "slowest_seconds": round(self.slowest, 2),
            "rss_before_mib": self.rss_before // 2**20,
            "rss_after_mib": self.rss_after // 2**20,
        }


async def fire(
    url: str, *, count: int, first: int = 0, clients: int = 8, deadline: float = 60, token: str | None = None, pid: int | None = None
) -> Fired:
    """Send the uploads of the seeds `first` to `first + count`, over `clients` connections; `pid` is the launcher's, to weigh it."""
    fired, seeds = Fired(rss_before=_weight(pid)), iter(range(first, first + count))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=deadline, headers=headers, trust_env=False) as client:
        await asyncio.gather(*(_fire_each(client, seeds, fired) for _ in range(clients)))
    fired.seconds, fired.rss_after = time.monotonic() - began, _weight(pid)
    return fired


async def _fire_each(client: httpx.AsyncClient, seeds: Any, fired: Fired) -> None:
    for seed in seeds:
        sent = await asyncio.to_thread(upload, seed)
        began = time.monotonic()
        try:
            answer = await client.post(sent.path, content=sent.body, headers={"Content-Type": sent.content_type})
        except httpx.HTTPError as error:
            fired.broken[seed] = f"{sent.kind}: {type(error).__name__} after {time.monotonic() - began:.1f} s"
            continue
        fired.slowest = max(fired.slowest, time.monotonic() - began)
        fired.statuses[answer.status_code] += 1
        fired.kinds.setdefault(sent.kind.partition(",")[0], Counter())[answer.status_code] += 1
        why = fault(sent, answer.status_code, answer.headers, answer.content)
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


def main() -> int:
    """0 where nothing is broken."""
    parser = argparse.ArgumentParser(description="Fire mutated uploads at a server; prints one line of JSON.")
    parser.add_argument("--url", default="http://127.0.0.1:3000")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--deadline", type=float, default=60, help="seconds after which an answer counts as a hang (default: 60)")
    parser.add_argument("--token", help="the server's bearer token")
    parser.add_argument("--pid", type=int, help="the launcher's process, to weigh the server's memory")
    asked = parser.parse_args()
    options = {"count": asked.count, "first": asked.first, "clients": asked.clients, "deadline": asked.deadline}
    fired = asyncio.run(fire(asked.url, token=asked.token, pid=asked.pid, **options))
    print(json.dumps(fired.line()))
    for kind, statuses in sorted(fired.kinds.items()):
        print(f"{kind:16}", dict(sorted(statuses.items())), file=sys.stderr)
    return 1 if fired.broken else 0


if __name__ == "__main__":
    sys.exit(main())
