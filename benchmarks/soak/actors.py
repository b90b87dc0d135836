"""Who lives with the server during a soak: steady clients, strangers with bad uploads, jobs, an operator, and who kills workers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import signal
import time
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.soak.deck import form, get
from benchmarks.soak.exchange import Address, Answered, Asked, ask
from benchmarks.soak.fire import fault
from benchmarks.soak.server import Server
from benchmarks.soak.shelves import HALF, VISITOR, Change, Visitor
from benchmarks.soak.uploads import upload

ADMIN_TOKEN = "the-operator-of-the-soak"
_AFTER_A_KILL = 2.0  # seconds in which a connection to a killed worker is seen to be broken
_BACK_WITHIN = 120.0  # seconds in which a killed worker has to be replaced
_JOB_WITHIN = 600.0  # seconds


@dataclass
class Soak:
    """What all of them share: the server, what was seen so far, and whether they are to go on, to pause, or to end."""

    server: Server
    deadline: float
    tell: Callable[..., None]  # writes an event down
    references: dict[str, bytes] = field(default_factory=dict)  # the answer first seen, by the request's name
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    kills: list[tuple[float, float]] = field(default_factory=list)  # just before and just after each
    returns: list[float] = field(default_factory=list)  # seconds until a killed worker was replaced
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    going: asyncio.Event = field(default_factory=asyncio.Event)
    busy: int = 0

    def __post_init__(self) -> None:
        self.address = Address.of(self.server.url)
        self.operator = Address.of(self.server.url, Authorization=f"Bearer {ADMIN_TOKEN}")
        self.going.set()

    def wrong(self, what: str) -> None:
        """Note what must not happen."""
        self.faults.append(what)
        self.tell("fault", what=what)

    def excused(self, answered: Answered) -> bool:
        """Whether a connection broke because the worker behind it was killed: it was under way then, and broke at once."""
        return (
            answered.trouble is not None
            and "no answer within" not in answered.trouble
            and any(answered.began <= after and before <= answered.ended <= after + _AFTER_A_KILL for before, after in self.kills)
        )

    async def ask(self, asked: Asked, *, who: str, address: Address | None = None) -> Answered | None:
        """An answer that is one; None where a kill or a full queue took it, or, as a fault, where it was lost."""
        answered = await ask(address or self.address, asked, deadline=self.deadline)
        self.counts[f"{who}: requests"] += 1
        if self.excused(answered):
            self.counts[f"{who}: broken by a kill"] += 1
            return None
        if answered.trouble is not None:
            self.wrong(f"{who}, {asked.name}: {answered.trouble} after {answered.seconds:.1f} s")
            return None
        if answered.refused:
            self.counts[f"{who}: refused"] += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), float(answered.headers["retry-after"]))
            return None
        return answered

    def compare(self, name: str, answered: Answered, *, who: str) -> None:
        """Hold an answer against the one that was first seen for this request."""
        if answered.status != 200:
            self.wrong(f"{who}, {name}: {answered.status} {answered.body[:200]!r}")
        elif answered.body != self.references.setdefault(name, answered.body):
            self.counts["different answers"] += 1
            self.wrong(f"{who}, {name}: another answer than the first")
        else:
            self.counts["answers compared"] += 1

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One thing that is done to the server; a pause waits for its end."""
        await self.going.wait()
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    @contextlib.asynccontextmanager
    async def pause(self, *, settle: float) -> AsyncIterator[None]:
        """Let everybody finish what he does, and the server come to rest."""
        self.going.clear()
        try:
            while self.busy:
                await asyncio.sleep(0.05)
            await asyncio.sleep(settle)
            yield
        finally:
            self.going.set()

    async def rest(self, seconds: float) -> None:
        """Wait, unless it is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)


async def steady_client(soak: Soak, deck: Sequence[Asked], *, seed: int) -> None:
    """Asks for one thing after the other, and compares."""
    drawn = random.Random(seed)
    while not soak.ended.is_set():
        async with soak.turn():
            asked = drawn.choice(deck)
            answered = await soak.ask(asked, who="steady clients")
            if answered is not None:
                soak.compare(asked.name, answered, who="steady clients")


async def stranger(soak: Soak, *, first: int, pause: float) -> None:
    """Sends one bad upload after the other."""
    seed = first
    while not soak.ended.is_set():
        async with soak.turn():
            sent = await asyncio.to_thread(upload, seed)
            asked = Asked(f"upload {seed}, {sent.kind}", sent.path, sent.body, sent.content_type)
            answered = await soak.ask(asked, who="bad uploads")
            if answered is not None:
                why = fault(sent, answered.status, answered.headers, answered.body)
                if why is not None:
                    soak.wrong(f"{asked.name} to {asked.path}: {answered.status}, {why}")
        seed += 1
        await soak.rest(pause)


async def visitors_client(soak: Soak, visitor: Visitor, deck: Sequence[Asked], *, seed: int) -> None:
    """Asks for the model that comes, changes and goes: an answer has to be that of a content it had then; half a model never answers."""
    drawn = random.Random(seed)
    while not soak.ended.is_set():
        async with soak.turn():
            if drawn.random() < 0.2:
                asked = form(f"half {seed}", "/v1/segment", [("photo.png", visitor.photo)], model=HALF)
                answered = await soak.ask(asked, who="visitor's clients")
                if answered is not None and answered.status != 404:
                    soak.wrong(f"a half-written model was asked and answered {answered.status}")
                continue
            asked = drawn.choice(deck)
            answered = await soak.ask(asked, who="visitor's clients")
            if answered is not None:
                why = visitor.why_wrong(asked.name, answered)
                soak.counts["visitor's answers compared"] += 1
                if why is not None:
                    soak.wrong(f"{asked.name}: {why}")
        await soak.rest(0.3)


async def operator(soak: Soak, visitor: Visitor, *, every: float) -> None:
    """Changes the models folder in one way after the other, and has the server reload it."""
    turn = 0
    while not soak.ended.is_set():
        await soak.rest(every)
        if soak.ended.is_set():
            return
        async with soak.turn():
            await _reload(soak, visitor, visitor.change(turn))
        turn += 1


async def _reload(soak: Soak, visitor: Visitor, change: Change) -> None:
    began = time.monotonic()
    while True:
        answered = await soak.ask(Asked("reload", "/v1/admin/reload"), who="reloads", address=soak.operator)
        if answered is not None:
            break
        if soak.ended.is_set() or time.monotonic() > began + soak.deadline:
            soak.wrong(f"{change.what}: no reload was answered")
            return
    told = json.loads(answered.body)
    if answered.status != 200:
        soak.wrong(f"{change.what}: the reload answered {answered.status} {told}")
        return
    behind = told["workers"]["behind"]
    if behind and not any(began - 30 < after for _, after in soak.kills):
        soak.wrong(f"{change.what}: workers stayed behind: {behind}")
    if not behind:
        visitor.settled(change)
    soak.counts["reloads"] += 1
    seconds = round(time.monotonic() - began, 2)
    soak.tell("reload", change=change.what, took=seconds, workers=told["workers"], failed=[one["name"] for one in told["failed"]])
    for _ in range(6):
        listed = await soak.ask(get("/v1/models"), who="reloads")
        if listed is not None and not behind:
            names = {model["name"] for model in json.loads(listed.body)["models"]}
            if HALF in names or (VISITOR in names) not in change.listed:
                soak.wrong(f"{change.what}: afterwards a worker lists {sorted(names)}")


async def killer(soak: Soak, *, every: float) -> None:
    """Kills the youngest worker now and then: the eldest lives through it all, so that its memory can be watched."""
    while not soak.ended.is_set():
        await soak.rest(every)
        workers = soak.server.workers()
        if soak.ended.is_set() or len(workers) < 2:
            continue
        async with soak.turn():
            before = time.monotonic()
            os.kill(workers[-1], signal.SIGKILL)
            soak.kills.append((before, time.monotonic()))
            soak.counts["kills"] += 1
        soak.tell("kill", pid=workers[-1])
        while len(soak.server.workers()) < len(workers):
            if time.monotonic() > before + _BACK_WITHIN:
                soak.wrong(f"worker {workers[-1]} was killed, and none came in its place within {_BACK_WITHIN:g} s")
                return
            await asyncio.sleep(0.5)
        soak.returns.append(round(time.monotonic() - before, 1))


async def job_sender(soak: Soak, job: Asked, *, expected: bytes, every: float) -> None:
    """Sends a job now and then, waits for its end, fetches the answers, compares them with those of a request, and removes it."""
    while not soak.ended.is_set():
        await soak.rest(every)
        if soak.ended.is_set():
            return
        async with soak.turn():
            began = time.monotonic()
            told = await _insist(soak, job)
            if told is None:
                continue
            soak.counts["jobs"] += 1
            where, state = f"/v1/jobs/{told['id']}", told["state"]
            while state in ("queued", "running") and time.monotonic() < began + _JOB_WITHIN:
                await asyncio.sleep(1)
                seen = await soak.ask(get(where), who="jobs")
                state = json.loads(seen.body)["state"] if seen is not None and seen.status == 200 else state
            if state != "done":
                soak.wrong(f"job {told['id']} is {state} after {time.monotonic() - began:.0f} s")
                continue
            soak.tell("job", took=round(time.monotonic() - began, 1))
            while (result := await soak.ask(get(f"{where}/result"), who="jobs")) is None and time.monotonic() < began + _JOB_WITHIN:
                pass
            if result is None or unpacked(result.body) != unpacked(expected):
                soak.counts["different answers"] += 1
                soak.wrong(f"job {told['id']}: another result than the request's")
            else:
                soak.counts["jobs compared"] += 1
            await soak.ask(Asked(where, where, method="DELETE"), who="jobs")


def unpacked(packed: bytes) -> dict[str, bytes] | None:
    """The files of a ZIP by name; None where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile:
        return None


async def _insist(soak: Soak, job: Asked) -> dict[str, Any] | None:
    """Send a job until it is taken: who is cut off by a kill does not know its id."""
    until = time.monotonic() + soak.deadline
    while time.monotonic() < until:
        answered = await soak.ask(job, who="jobs")
        if answered is not None and answered.status == 202:
            return dict(json.loads(answered.body))
        if answered is not None:
            break
    soak.wrong("a job was not taken" + ("" if answered is None else f": {answered.status} {answered.body[:200]!r}"))
    return None
