"""Throughput and latency of clients that wait for their answers, then ten times that rate for a minute.

Closed loop: 1, 8, 32 and 64 clients ask, wait for the answer and ask again, each time over a new connection; one that
is refused waits as long as `Retry-After` says.

Overload: ten times the best throughput ("capacity") is sent at fixed times for a minute, whether answers come or not.
Each answer has to be a 200, or a 503 or 429 with Retry-After. The 99th percentile of the admitted has to stay under
three times the unloaded one plus `queue_wait`, and the server has to be normal again within 5 seconds: five 200s in a
row with a median within 1.5 times the unloaded one. The clients share the server's machine; the figures say how many
cores they used.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import resource
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.soak.exchange import Answer, Request, send
from benchmarks.soak.record import Record, milliseconds, percentile
from benchmarks.soak.requests import pictures_of, simple
from benchmarks.soak.server import Server, mean_batch, running, stage_means

CLIENTS = (1, 8, 32, 64)
_OVERLOAD = 10
_NORMAL_WITHIN = 5.0  # seconds
_SHOWN = ("threads", "runs_at_once", "queue", "queue_wait", "batch")


def run(options: argparse.Namespace, record: Record) -> None:
    """Measure the closed loops for `--seconds` each, then the overload for twice as long."""
    requests = simple(pictures_of(options.photos, most=32), pictures_of(options.label_maps, most=32))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        tempfile.TemporaryDirectory(prefix="fewpair-load-") as home,
        running(options.models, Path(home), options.server) as server,
    ):
        record.add("settings", settings={name: server.settings[name] for name in _SHOWN})
        rows = asyncio.run(_closed_loops(server, requests, options.seconds, record))
        asyncio.run(_overload(server, requests, rows, 2 * options.seconds, record))


async def _closed_loops(
    server: Server, requests: Sequence[Request], seconds: float, record: Record
) -> list[dict[str, Any]]:
    rows = []
    for clients in CLIENTS:
        await closed_loop(server.url, requests, clients, seconds=seconds / 5)  # warm-up
        before, spent, own, began = server.metrics(), server.cpu_seconds(), time.process_time(), time.monotonic()
        seen = await closed_loop(server.url, requests, clients, seconds=seconds)
        took, after = time.monotonic() - began, server.metrics()
        rows.append(
            {
                "clients": clients,
                **summary(seen, took),
                "stage_ms": stage_means(before, after),
                "pictures_a_run": mean_batch(before, after),
                "server_cores": round((server.cpu_seconds() - spent) / took, 2),
                "clients_cores": round((time.process_time() - own) / took, 2),
            }
        )
        record.add("closed loop", **rows[-1])
    return rows


async def closed_loop(url: str, requests: Sequence[Request], clients: int, *, seconds: float) -> list[Answer]:
    """Let clients ask as soon as they are answered for so long; what was begun is waited for."""
    seen, until = list[Answer](), time.monotonic() + seconds

    async def client(start: int) -> None:
        for turn in itertools.count(start):
            if time.monotonic() >= until:
                return
            answer = await send(url, requests[turn % len(requests)])
            seen.append(answer.without_body())
            if answer.refused:
                await asyncio.sleep(float(answer.headers["retry-after"]))

    await asyncio.gather(*(client(number * 7) for number in range(clients)))
    return seen


def summary(seen: Sequence[Answer], seconds: float) -> dict[str, Any]:
    """Return throughput and percentiles of the 200s, and what became of the rest."""
    good = [one.seconds for one in seen if one.status == 200]
    failed = (one.error or f"status {one.status}" for one in seen if one.status != 200 and not one.refused)
    return {
        "answers_a_second": round(len(good) / seconds, 2),
        "p50_ms": milliseconds(percentile(good, 0.5)),
        "p95_ms": milliseconds(percentile(good, 0.95)),
        "p99_ms": milliseconds(percentile(good, 0.99)),
        "answers": len(good),
        "refused": sum(one.refused for one in seen),
        "failed": dict(Counter(failed).most_common()),
    }


async def _overload(
    server: Server, requests: Sequence[Request], rows: Sequence[dict[str, Any]], seconds: float, record: Record
) -> None:
    alone, capacity = rows[0], max(row["answers_a_second"] for row in rows)
    bound = 3 * alone["p99_ms"] + server.settings["queue_wait"]
    rate = _OVERLOAD * capacity
    most_inside = 0.0

    async def watch() -> None:
        nonlocal most_inside
        while True:
            with contextlib.suppress(OSError):
                metrics = await asyncio.to_thread(server.metrics)
                most_inside = max(most_inside, metrics.total("fewpair_requests_admitted"))
            await asyncio.sleep(0.25)

    async def ask(request: Request) -> Answer:
        return (await send(server.url, request, deadline=180)).without_body()

    watching, under_way, began = asyncio.create_task(watch()), [], time.monotonic()
    spent, own = server.cpu_seconds(), time.process_time()
    for number in range(max(1, round(rate * seconds))):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        under_way.append(asyncio.create_task(ask(requests[number % len(requests)])))
    sent_for = time.monotonic() - began
    cores = [round(value / sent_for, 2) for value in (server.cpu_seconds() - spent, time.process_time() - own)]
    normal_after = await _until_normal(server.url, requests, within=1.5 * alone["p50_ms"] / 1000)
    seen = list(await asyncio.gather(*under_way))
    watching.cancel()
    figures = summary(seen, sent_for)
    refused = [one.seconds for one in seen if one.refused]
    record.add(
        "overload",
        **figures,
        requests=len(seen),
        capacity=capacity,
        wanted_rate=round(rate, 1),
        reached_rate=round(len(seen) / sent_for, 1),
        admitted_at_most=server.capacity(),
        most_inside=most_inside,
        unloaded_p99_ms=alone["p99_ms"],
        bound_ms=round(bound, 1),
        refused_p50_ms=milliseconds(percentile(refused, 0.5)),
        refused_p99_ms=milliseconds(percentile(refused, 0.99)),
        normal_after_s=None if normal_after is None else round(normal_after, 2),
        server_cores=cores[0],
        clients_cores=cores[1],
    )
    p99 = figures["p99_ms"]
    record.check(
        "p99 of the admitted stays under 3 x the unloaded p99 + queue_wait",
        p99 is not None and p99 < bound,
        f"{p99} ms, bound {bound:.0f} ms",
    )
    record.check(
        "all others are refused with 503 or 429 and Retry-After",
        not figures["failed"],
        str(figures["failed"] or f"{len(refused)} refused"),
    )
    record.check(
        "no more are inside than admitted at a time",
        0 < most_inside <= server.capacity(),
        f"{most_inside:g} of {server.capacity()}",
    )
    reached = len(seen) / sent_for
    record.check(f"{_OVERLOAD} x the capacity was sent", reached >= 0.9 * rate, f"{reached:.0f} of {rate:.0f} a second")
    record.check(
        "normal again within 5 s",
        normal_after is not None and normal_after <= _NORMAL_WITHIN,
        "not within a minute" if normal_after is None else f"{normal_after:.2f} s",
    )


async def _until_normal(url: str, requests: Sequence[Request], *, within: float) -> float | None:
    """Return the seconds until five 200s in a row have a median of at most `within` seconds; None: not in a minute."""
    began, row = time.monotonic(), list[Answer]()
    for turn in itertools.count():
        if time.monotonic() > began + 60:
            return None
        answer = await send(url, requests[turn % len(requests)])
        row = [*row[-4:], answer] if answer.status == 200 else []
        if len(row) == 5 and statistics.median(one.seconds for one in row) <= within:
            return answer.ended - began
        if answer.status != 200:
            await asyncio.sleep(0.05)
    return None
