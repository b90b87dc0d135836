"""Micro-batching: pictures of different callers that wait for the device share a run where their graph and their size are one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from serving.errors import Refusal
from serving.gate import Gate
from serving.imaging import Bytes
from serving.manifest import DirectionName
from serving.metrics import Trace, current_trace
from serving.tiles import BATCH_PIXELS
from serving.translator import RUN_FAILURES, Brake, ExportedModel

Found = dict[str, Bytes]
_FAILURES: tuple[type[Exception], ...] = (Refusal, *RUN_FAILURES)
_Kind = tuple[ExportedModel, DirectionName, tuple[int, ...]]


@dataclass(eq=False)
class _Asked:
    """One caller's picture, to be run once for each of its seeds."""

    pixels: Bytes
    seeds: tuple[int, ...]
    trace: Trace
    came: float
    taken: asyncio.Future[None]  # into a run, which others may lead
    found: asyncio.Future[Found]
    alone: bool = True


@dataclass(eq=False)
class _Run:
    """What goes to the device together."""

    members: list[_Asked]
    brake: Brake = field(default_factory=Brake)
    began: float = 0.0
    ended: float = 0.0

    def work(self, model: ExportedModel, direction: DirectionName) -> Found:
        self.began = perf_counter()
        try:
            pixels = np.concatenate([np.repeat(one.pixels[None], len(one.seeds), axis=0) for one in self.members])
            return model.run_batch(direction, pixels, seeds=[seed for one in self.members for seed in one.seeds], brake=self.brake)
        finally:
            self.ended = perf_counter()


class MicroBatches:
    """Whoever gets the device takes along the others of its kind, in the order they came, up to `most` pictures in a run.

    `wait` is how many seconds a run that is not full waits for more while nobody else waits for the device. Nobody's answer depends on his
    neighbours: models of which that is not so (`ExportedModel.batches`) run every picture alone.
    """

    def __init__(self, gate: Gate, *, most: int, wait: float) -> None:
        self._gate = gate
        self._most = most
        self._wait = wait
        self._lines: dict[_Kind, list[_Asked]] = {}

    def at_once(self, model: ExportedModel, pixels: Bytes) -> int:
        """How many pictures of this size a run takes."""
        if not model.batches:
            return 1
        area: int = pixels.shape[0] * pixels.shape[1]
        return max(1, min(self._most, BATCH_PIXELS // area))

    async def run(self, model: ExportedModel, direction: DirectionName, pixels: Bytes, *, seeds: Sequence[int]) -> list[Found]:
        """A picture [H,W] or [H,W,3] at the model's scale, once for each seed: output name -> [H,W] or [H,W,3]."""
        found: list[Found] = []
        most = self.at_once(model, pixels)
        for first in range(0, len(seeds), most):
            some = tuple(seeds[first : first + most])
            answers = await self._some(model, direction, pixels, some)
            found += [{name: value[index] for name, value in answers.items()} for index in range(len(some))]
        return found

    async def _some(self, model: ExportedModel, direction: DirectionName, pixels: Bytes, seeds: tuple[int, ...]) -> Found:
        loop = asyncio.get_running_loop()
        asked = _Asked(pixels, seeds, current_trace(), perf_counter(), loop.create_future(), loop.create_future())
        kind = (model, direction, pixels.shape)
        self._lines.setdefault(kind, []).append(asked)
        self._gate.arrival.set()
        try:
            await self._taken(kind, asked)
            return await asked.found
        except _FAILURES:
            if asked.alone:
                raise
        finally:
            self._leave(kind, asked)
            asked.found.cancel()  # where it is not there yet, nobody waits for it any more
        # What went wrong in company may be the company's size: memory, for one.
        run = _Run([asked])
        found = await self._gate.run(lambda: run.work(model, direction), images=len(seeds), abandon=run.brake.pull)
        _add(asked.trace, "run", run.ended - run.began)
        return found

    async def _taken(self, kind: _Kind, asked: _Asked) -> None:
        """Wait until the device is free, and lead a run; or until another's run has taken this along."""
        slot = asyncio.ensure_future(self._gate.slot())
        led = False
        try:
            await asyncio.wait({slot, asked.taken}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.taken.done():
                slot.result()
                held = perf_counter()
                await self._company(kind, asked)
                if not asked.taken.done():  # by somebody who got a device of his own meanwhile
                    self._lead(kind, asked, held=held)
                    led = True
            self._gate.waits_no_more()
        finally:
            if not slot.cancel() and not led and not slot.cancelled() and slot.exception() is None:
                self._gate.give_back()

    async def _company(self, kind: _Kind, asked: _Asked) -> None:
        """Give others the time to join, as long as there is room for them and nobody of another kind waits for the device."""
        if not self._wait:
            return
        most = self.at_once(kind[0], asked.pixels)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait):
                while not asked.taken.done() and self._gate.queued < len(self._lines[kind]) and self._seeds(kind) < most:
                    self._gate.arrival.clear()
                    await self._gate.arrival.wait()

    def _seeds(self, kind: _Kind) -> int:
        return sum(len(one.seeds) for one in self._lines[kind])

    def _lead(self, kind: _Kind, asked: _Asked, *, held: float) -> None:
        """Take along who fits, and start."""
        model, direction, _ = kind
        room = self.at_once(model, asked.pixels) - len(asked.seeds)
        members = [asked]
        for other in self._lines[kind]:
            if other is not asked and len(other.seeds) <= room:
                room -= len(other.seeds)
                members.append(other)
        run = _Run(members)
        started = self._gate.start(lambda: run.work(model, direction), images=sum(len(one.seeds) for one in members), callers=len(members))
        started.add_done_callback(lambda done: _share_out(run, done, held=held))
        for member in members:
            self._lines[kind].remove(member)
            member.alone = len(members) == 1
            member.taken.set_result(None)
            self._gate.arrival.set()
            member.found.add_done_callback(lambda _: run.brake.pull() if all(one.found.cancelled() for one in members) else None)

    def _leave(self, kind: _Kind, asked: _Asked) -> None:
        line = self._lines.get(kind, [])
        if asked in line:
            line.remove(asked)
        if not line:
            self._lines.pop(kind, None)


def _share_out(run: _Run, done: asyncio.Future[Found], *, held: float) -> None:
    """Give each member its part of the answers, and its clock the time that went by."""
    failed = done.exception() if not done.cancelled() else RuntimeError("the server stops")
    first = 0
    for one in run.members:
        last = first + len(one.seeds)
        _add(one.trace, "wait", max(0.0, held - one.came))
        _add(one.trace, "batch", max(0.0, run.began - max(held, one.came)))
        _add(one.trace, "run", run.ended - run.began)
        if not one.found.done():
            if failed is not None:
                one.found.set_exception(failed)
            else:
                one.found.set_result({name: value[first:last] for name, value in done.result().items()})
        first = last


def _add(trace: Trace, stage: str, seconds: float) -> None:
    trace.stages[stage] = trace.stages.get(stage, 0.0) + seconds
