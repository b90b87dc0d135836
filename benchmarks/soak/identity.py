"""Whether equal requests get equal bytes: alone, among other clients, in shared runs, and after a restart.

On the CPU. The requests are of every kind, to every model. The answer that a fresh server gives to each of them alone
is the reference: status, type, X-Seed, X-Model and body.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.soak.exchange import Answer, Request, send_until_admitted
from benchmarks.soak.record import Record
from benchmarks.soak.requests import get, pictures_of, varied
from benchmarks.soak.server import Server, mean_batch, running

_HEADERS = ("content-type", "x-seed", "x-model", "x-tiling", "x-label-spelling")
_OPTIONS = ("--no-ui", "--threads", "1", "--batch", "4")  # on the CPU, runs are shared only where that is set
_OTHER_CLIENTS, _ROUNDS = 6, 3
Seen = tuple[int, tuple[str | None, ...], bytes]


def run(options: argparse.Namespace, record: Record) -> None:
    """Compare all answers with the first ones."""
    photos, labels = pictures_of(options.photos, most=6), pictures_of(options.label_maps, most=6)
    references: dict[str, Seen] = {}

    def compare(where: str, rounds: Sequence[dict[str, Seen]], pictures_a_run: float | None = None) -> None:
        different = sorted({name for seen in rounds for name, one in seen.items() if one != references[name]})
        compared = sum(map(len, rounds))
        record.add(
            where,
            requests=len(references),
            compared=compared,
            different=len(different),
            which=different[:10],
            pictures_a_run=pictures_a_run,
        )
        record.check(f"equal {where}", not different, f"{len(different)} of {compared} differ")

    with tempfile.TemporaryDirectory(prefix="fewpair-identity-") as home:
        with running(options.models, Path(home) / "first", [*_OPTIONS, *options.server]) as server:
            requests = asyncio.run(_requests(server, photos, labels))
            references.update(asyncio.run(_each(server.url, requests)))
            wrong = [name for name, (status, _, _) in references.items() if status != 200]
            record.check("every request is answered", not wrong, str(wrong or f"{len(references)} requests"))
            pairs = [(name, f"/v1{name}") for name in references if f"/v1{name}" in references]
            differ = [short for short, full in pairs if references[short] != references[full]]
            record.check("/segment and /v1/segment answer alike", not differ, f"{len(differ)} of {len(pairs)} differ")
            compare("alone again", [asyncio.run(_each(server.url, requests))])
            before = server.metrics()
            rounds = asyncio.run(_among_others(server, requests, photos, labels))
            batch = mean_batch(before, server.metrics())
            compare("among other clients", rounds, batch)
            record.check("runs were shared then", (batch or 0) > 1, f"{batch} pictures a run")
        with running(options.models, Path(home) / "again", [*_OPTIONS, *options.server]) as again:
            compare("after a restart", [asyncio.run(_each(again.url, requests))])


async def _requests(server: Server, photos: Sequence[Path], labels: Sequence[Path]) -> list[Request]:
    listed = await send_until_admitted(server.url, get("/v1/models"))
    return varied(json.loads(listed.body)["models"], photos, labels)


async def _each(url: str, requests: Sequence[Request], *, at_once: int = 1) -> dict[str, Seen]:
    """Send every request once, so many at a time."""
    seen, left = dict[str, Seen](), iter(requests)

    async def client() -> None:
        for request in left:
            seen[request.name] = _kept(await send_until_admitted(url, request))

    await asyncio.gather(*(client() for _ in range(at_once)))
    return seen


def _kept(answer: Answer) -> Seen:
    body = answer.body if answer.error is None else answer.error.encode()
    return answer.status, tuple(answer.headers.get(name) for name in _HEADERS), body


async def _among_others(
    server: Server, requests: Sequence[Request], photos: Sequence[Path], labels: Sequence[Path]
) -> list[dict[str, Seen]]:
    """Send the requests in another order each time, four at once, while clients ask for other pictures."""
    others, over = await _requests(server, photos[::-1], labels[::-1]), asyncio.Event()

    async def other(start: int) -> None:
        for number in itertools.count(start * 5):
            if over.is_set():
                return
            await send_until_admitted(server.url, others[number % len(others)])

    clients = [asyncio.create_task(other(number)) for number in range(_OTHER_CLIENTS)]
    rounds = []
    for number in range(_ROUNDS):
        shuffled = random.Random(number).sample(list(requests), len(requests))
        rounds.append(await _each(server.url, shuffled, at_once=4))
    over.set()
    await asyncio.gather(*clients)
    return rounds
