"""A crowd that does not wait: requests at fixed times whatever is answered, and how long a server takes to be normal after it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.soak.exchange import Address, Answered, Asked, ask
from benchmarks.soak.server import Server

_LOOK_EVERY = 0.25
_IN_A_ROW = 5
_PATIENCE = 60.0


@dataclass
class Crowd:
    """What was sent. Times are of `time.monotonic`; `latest` is by how many seconds a request was sent too late at most."""

    began: float
    last_sent: float
    latest: float
    most_inside: float
    under_way: list[asyncio.Task[Answered]]

    async def answers(self) -> list[Answered]:
        """Every answer, without its body; those that are under way are waited for."""
        return list(await asyncio.gather(*self.under_way))


async def crowd(server: Server, deck: Sequence[Asked], *, rate: float, seconds: float, deadline: float) -> Crowd:
    """Send `rate` requests a second for so long, each over its own connection; return when the last was sent."""
    _allow_connections()
    address, most, began = Address.of(server.url), _Most(), time.monotonic()
    under_way: list[asyncio.Task[Answered]] = []
    latest = 0.0
    looking = asyncio.create_task(most.look(server))
    for number in range(max(1, round(rate * seconds))):
        early = began + number / rate - time.monotonic()
        latest = max(latest, -early)
        await asyncio.sleep(max(0.0, early))
        under_way.append(asyncio.create_task(_ask(address, deck[number % len(deck)], deadline)))
    last_sent = time.monotonic()
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    return Crowd(began, last_sent, latest, most.inside, under_way)


async def until_normal(server: Server, deck: Sequence[Asked], *, within: float, since: float, deadline: float) -> float | None:
    """Seconds from `since` to the end of the first five 200s in a row with a median of at most `within` seconds; None: not in a minute."""
    address, row = Address.of(server.url), list[Answered]()
    turn = 0
    while time.monotonic() < since + _PATIENCE:
        answered = await _ask(address, deck[turn % len(deck)], deadline)
        turn += 1
        row = [*row[1 - _IN_A_ROW :], answered] if answered.status == 200 else []
        if len(row) == _IN_A_ROW and statistics.median(one.seconds for one in row) <= within:
            return answered.ended - since
        if answered.status != 200:
            await asyncio.sleep(0.05)
    return None


async def _ask(address: Address, asked: Asked, deadline: float) -> Answered:
    return (await ask(address, asked, deadline=deadline)).without_body()


class _Most:
    """The most requests that /metrics ever showed inside."""

    def __init__(self) -> None:
        self.inside = 0.0

    async def look(self, server: Server) -> None:
        while True:
            with contextlib.suppress(OSError):
                metrics = await asyncio.to_thread(server.metrics)
                self.inside = max(self.inside, metrics.sum("fewpair_requests_inside"))
            await asyncio.sleep(_LOOK_EVERY)


def _allow_connections() -> None:
    """As many open sockets as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
