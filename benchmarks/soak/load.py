"""How much a server answers, how fast, and what it does with ten times as much: on a real server, started here, with real photos.

    python -m benchmarks.soak.load --models exported --photos FOLDER --label-maps FOLDER [--figures FILE] [-- SERVER OPTIONS]

Server options are the launcher's flags, and any other setting as `--name value` (`-- --no-ui --workers 2 --queue 16 --batch 8`).

*Closed loop.* For each number of clients, after a warm-up: every client asks, waits for the answer, asks again, each time over a new
connection; one that is refused waits as long as `Retry-After` says. Figures: answers a second, percentiles of the seconds to a 200,
refusals, the stages' means and the runs by their number of pictures (both are differences of two looks at /metrics), and how many cores
the server and these clients kept busy.

*Open loop.* Ten times the best throughput of the closed loops ("the capacity") is sent for a minute, at fixed times, whether answers
come or not.

- Every answer has to be a 200, or a 503 or 429 with Retry-After; anything else is a failure, and so is a connection that ends without
  one.
- The 99th percentile of the admitted (200) is held against 3 x the unloaded one + the queue bound. Unloaded: one client. The queue
  bound is what the settings let a request wait: `queue_wait`; without one, the time in which a full server is empty at its capacity:
  room / capacity, where room = workers x (runs_at_once x batch + 2 + queue) is how many requests the gates admit
  (docs/operations.md). That other bound is told too. That no more than room were ever inside is checked in /metrics.
- Normal again: after the last request of the crowd was sent, one client asks on; the time until the end of the first five answers in a
  row that are all 200 with a median within 1.5 x the unloaded one. It has to be 5 s at most. Where room / capacity is larger, that
  cannot be: what was admitted is answered first, so choose a `queue` that fits the machine.

The clients run in this process, beside the server on the same machine, and take their share of its cores: the figures say how large
that was.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.soak.deck import pictures_of, requests
from benchmarks.soak.exchange import Address, Answered, Asked, ask
from benchmarks.soak.overload import crowd, until_normal
from benchmarks.soak.record import Figures, Promises, milliseconds, percentile
from benchmarks.soak.server import Server, batch_sizes, running, stage_means

_LABELLED = ("workers", "threads a run", "runs_at_once", "queue", "queue_wait", "batch", "batch_wait")  # those of them that the server has


def main(argv: Sequence[str] | None = None) -> int:
    """0 where every promise held."""
    words = list(sys.argv[1:] if argv is None else argv)
    asked = _parser().parse_args(words)
    figures, promises = Figures("load", asked.figures, words), Promises()
    deck = requests(
        asked.endpoint,
        pictures_of(asked.photos, most=asked.pictures),
        pictures_of(asked.label_maps, most=asked.pictures),
        model=asked.model,
    )
    with tempfile.TemporaryDirectory(prefix="fewpair-load-") as home, running(asked.models, Path(home), asked.server) as server:
        of = {name: value for name, value in server.settings().items() if name in _LABELLED} | {"endpoint": asked.endpoint}
        rows = asyncio.run(_closed_loops(server, deck, asked, figures=figures, of=of))
        if asked.overload_seconds:
            asyncio.run(_overload(server, deck, rows, asked=asked, figures=figures, promises=promises, of=of))
    figures.add("verdict", **of, promises=promises.made)
    return 1 if promises.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--label-maps", type=Path, required=True, help="a folder of label maps that the model understands")
    parser.add_argument("--model", help="who is asked (default: the server's defaults)")
    parser.add_argument("--endpoint", choices=("segment", "synthesize", "mix"), default="mix")
    parser.add_argument("--pictures", type=int, default=32, help="of each folder (default: 32)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, default=30, help="of each closed loop (default: 30)")
    parser.add_argument("--warm-up", type=float, default=5, help="seconds before each of them (default: 5)")
    parser.add_argument("--overload-seconds", type=float, default=60, help="0: no overload (default: 60)")
    parser.add_argument("--overload-times", type=float, default=10, help="of the capacity (default: 10)")
    parser.add_argument("--deadline", type=float, default=180, help="seconds after which an answer counts as a hang (default: 180)")
    parser.add_argument("--figures", type=Path, help="a file of JSON lines to add the figures to")
    parser.add_argument("server", nargs="*", metavar="-- SERVER OPTIONS", help="settings of the server")
    return parser


async def _closed_loops(
    server: Server, deck: Sequence[Asked], asked: argparse.Namespace, *, figures: Figures, of: dict[str, Any]
) -> list[dict[str, Any]]:
    rows = []
    for clients in asked.clients:
        await closed_loop(server, deck, clients, seconds=asked.warm_up, deadline=asked.deadline)
        before, spent, mine, began = server.metrics(), server.cpu_seconds(), time.process_time(), time.monotonic()
        seen = await closed_loop(server, deck, clients, seconds=asked.seconds, deadline=asked.deadline)
        took = time.monotonic() - began
        after = server.metrics()
        row = {
            **of,
            "clients": clients,
            **figures_of(seen, took),
            "stage_ms": stage_means(before, after),
            "batch_sizes": batch_sizes(before, after),
            "server_cores": round((server.cpu_seconds() - spent) / took, 2),
            "clients_cores": round((time.process_time() - mine) / took, 2),
        }
        figures.add("closed loop", **row)
        rows.append(row)
    return rows


async def closed_loop(server: Server, deck: Sequence[Asked], clients: int, *, seconds: float, deadline: float) -> list[Answered]:
    """So many clients, each asking as soon as it was answered, for so long; what was begun is waited for."""
    address, seen, until = Address.of(server.url), list[Answered](), time.monotonic() + seconds

    async def client(start: int) -> None:
        for turn in itertools.count(start):
            if time.monotonic() >= until:
                return
            answered = await ask(address, deck[turn % len(deck)], deadline=deadline)
            seen.append(answered.without_body())
            if answered.refused:
                await asyncio.sleep(float(answered.headers["retry-after"]))

    await asyncio.gather(*(client(number * 7) for number in range(clients)))
    return seen


def figures_of(seen: Sequence[Answered], seconds: float) -> dict[str, Any]:
    """Throughput and percentiles of what was answered with 200, and what became of the rest."""
    good = [one.seconds for one in seen if one.status == 200]
    return {
        "answers_a_second": round(len(good) / seconds, 2),
        "p50_ms": milliseconds(percentile(good, 0.5)),
        "p95_ms": milliseconds(percentile(good, 0.95)),
        "p99_ms": milliseconds(percentile(good, 0.99)),
        "answers": len(good),
        "refused": sum(one.refused for one in seen),
        "failed": failures(seen),
    }


def failures(seen: Sequence[Answered]) -> dict[str, int]:
    """What is neither a 200 nor a refusal with Retry-After, by its name."""
    names = (one.trouble or f"status {one.status}" for one in seen if one.status != 200 and not one.refused)
    return dict(Counter(names).most_common())


async def _overload(
    server: Server,
    deck: Sequence[Asked],
    rows: Sequence[dict[str, Any]],
    *,
    asked: argparse.Namespace,
    figures: Figures,
    promises: Promises,
    of: dict[str, Any],
) -> None:
    alone, capacity, room = rows[0], max(row["answers_a_second"] for row in rows), server.room()
    if alone["clients"] != 1 or not capacity:
        raise SystemExit(
            f"--clients {' '.join(map(str, asked.clients))}: the overload is held against what one client sees, so begin with 1"
        )
    emptied, allowed = 1000 * room / capacity, server.queue_wait_ms()
    bound = 3 * alone["p99_ms"] + (allowed or emptied)
    spent, mine, before = server.cpu_seconds(), time.process_time(), server.metrics()
    found = await crowd(server, deck, rate=asked.overload_times * capacity, seconds=asked.overload_seconds, deadline=asked.deadline)
    recovered = await until_normal(server, deck, within=1.5 * alone["p50_ms"] / 1000, since=found.last_sent, deadline=asked.deadline)
    cores = [round(value / (time.monotonic() - found.began), 2) for value in (server.cpu_seconds() - spent, time.process_time() - mine)]
    seen = await found.answers()
    refused = [one.seconds for one in seen if one.refused]
    figures.add(
        "overload",
        **of,
        **figures_of(seen, found.last_sent - found.began),
        requests=len(seen),
        asked_rate=round(asked.overload_times * capacity, 1),
        reached_rate=round(len(seen) / (found.last_sent - found.began), 1),
        latest_ms=milliseconds(found.latest),
        capacity=capacity,
        room=room,
        most_inside=found.most_inside,
        unloaded_p50_ms=alone["p50_ms"],
        unloaded_p99_ms=alone["p99_ms"],
        bound_ms=round(bound, 1),
        bound_by_room_ms=round(3 * alone["p99_ms"] + emptied, 1),
        refused_p50_ms=milliseconds(percentile(refused, 0.5)),
        refused_p99_ms=milliseconds(percentile(refused, 0.99)),
        refused_before_the_body_was_sent=sum(one.refused and not one.whole for one in seen),
        statuses=dict(sorted(Counter(one.status for one in seen if one.status).items())),
        normal_after_s=None if recovered is None else round(recovered, 2),
        stage_ms=stage_means(before, server.metrics()),
        server_cores=cores[0],
        clients_cores=cores[1],
    )
    slowest = 1000 * percentile([one.seconds for one in seen if one.status == 200], 0.99)
    promises.hold(
        "the 99th percentile of the admitted stays under 3 x the unloaded one + the queue bound",
        slowest < bound,
        f"{slowest:.0f} ms, bound {bound:.0f} ms (with room / capacity for the queue bound: {3 * alone['p99_ms'] + emptied:.0f} ms)",
    )
    wrong = failures(seen)
    promises.hold("the rest are refused with 503 or 429 and Retry-After", not wrong, str(wrong or f"{len(refused)} refused"))
    promises.hold("no more are inside than the gates admit", 0 < found.most_inside <= room, f"{found.most_inside:g} of {room}")
    enough = len(seen) >= 0.9 * asked.overload_times * capacity * asked.overload_seconds
    promises.hold(
        f"{asked.overload_times:g} x the capacity was sent", enough, f"{len(seen)} requests in {found.last_sent - found.began:.1f} s"
    )
    promises.hold(
        "normal again within 5 s",
        recovered is not None and recovered <= 5,
        "not within a minute" if recovered is None else f"{recovered:.2f} s",
    )


if __name__ == "__main__":
    sys.exit(main())
