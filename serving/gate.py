"""The way in: how many requests may wait, how many are worked on, how many run on the device at once, and by when each is answered."""

import asyncio
import contextlib
import contextvars
import math
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from serving.errors import Refusal
from serving.pace import Pace

T = TypeVar("T")
_AHEAD = 2  # requests decoded beside those that run, so that the device does not wait for a decoder
_COME_BACK = 60  # seconds after which a refused client is asked to come back, at most


@dataclass
class Ticket:
    """A request's place inside: taken before its body is read, given back with the answer."""

    clock: float | None = None  # when the body was there, in the loop's time
    deadline: float = math.inf  # of the answer
    had_a_turn: bool = False
    waits: bool = False  # for a turn, so that it is said when the time runs out
    valid: bool = True


_ticket: contextvars.ContextVar[Ticket | None] = contextvars.ContextVar("ticket", default=None)


class Gate:
    """Admits a bounded number of requests, refuses the rest at once, and keeps decoded pictures few.

    `queue` bounds how many wait, `queue_wait` (seconds; 0: nothing does) how long: who would wait longer at the pace of the last runs is
    refused at the door, and who waits longer for his first turn after all, because the pace fell, is refused then. As many as are worked on
    at a time are always let in.
    """

    def __init__(self, *, runs_at_once: int, batch: int, queue: int, timeout: float, queue_wait: float = 0.0) -> None:
        self.inside = 0  # admitted and not yet answered
        self._in_line = 0  # of these, those whose body is there: who still sends keeps nobody waiting
        self.waiting = 0  # of these, waiting for their turn
        self.queued = 0  # waiting for the device
        self.arrival = asyncio.Event()  # of somebody at the device, or at a run that takes others along
        self.on_run: Callable[[int], None] = lambda images: None  # told of each run, with how many pictures it took
        at_work = runs_at_once * batch + _AHEAD
        self._at_work = at_work
        self._room = at_work + queue
        self._timeout = timeout
        self._queue_wait = queue_wait or math.inf
        self._pace = Pace()
        self._worked_on = asyncio.Semaphore(at_work)
        self._running = asyncio.Semaphore(runs_at_once)
        self._threads = ThreadPoolExecutor(2 * (runs_at_once + _AHEAD), thread_name_prefix="fewpair")
        self._runners = ThreadPoolExecutor(runs_at_once, thread_name_prefix="fewpair-run")

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place among the requests that are worked on; Refusal where the queue is full or the wait too long."""
        async with self.admitted(), self.in_time(), self.turn():
            yield

    @contextlib.asynccontextmanager
    async def admitted(self) -> AsyncIterator[Ticket]:
        """Be one of the requests inside; Refusal where the queue is full. Who is inside already stays on the same ticket."""
        held = _ticket.get()
        if held is not None and held.valid:
            yield held
            return
        if self.full:
            raise self._overloaded()
        self.inside += 1
        ticket = Ticket()
        # Not reset on the way out: what outlives the request in a task of its own holds a ticket that is void, and queues anew.
        _ticket.set(ticket)
        try:
            yield ticket
        finally:
            self.take_back(ticket)

    @property
    def full(self) -> bool:
        """Whether who comes now is refused."""
        return self.no_place or (self._in_line >= self._at_work and self._pace.wait(self._in_line) > self._queue_wait)

    @property
    def no_place(self) -> bool:
        """Whether that is because the places are taken, and not because of the pace."""
        return self.inside >= self._room

    def take_back(self, ticket: Ticket) -> None:
        """Let somebody else have the place, whatever its request is still about."""
        if ticket.valid:
            ticket.valid = False
            self.inside -= 1
            self._in_line -= ticket.clock is not None

    def start_clock(self) -> float:
        """When the request has to be answered, in the loop's time; the first call starts its clock."""
        now = asyncio.get_running_loop().time()
        ticket = _ticket.get()
        if ticket is None or not ticket.valid:
            return now + self._timeout
        if ticket.clock is None:
            ticket.clock = now
            self._in_line += 1
            ticket.deadline = now + self._timeout
        return ticket.deadline

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Do what the request's clock leaves time for; Refusal (504) where it runs out."""
        deadline, ticket = self.start_clock(), _ticket.get()
        if asyncio.get_running_loop().time() >= deadline:
            raise self._too_late()
        clock = asyncio.timeout_at(deadline)
        try:
            async with clock:
                yield
        except TimeoutError:
            if not clock.expired():
                raise
            raise (self._waited(self._timeout) if ticket is not None and ticket.waits else self._too_late()) from None

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be worked on. A request of many pictures takes a turn for each, so that others get theirs in between."""
        ticket = self._mine()
        await self._wait_for(self._worked_on, at_most=math.inf if ticket.had_a_turn else self._queue_wait)
        ticket.had_a_turn = True
        try:
            yield
        finally:
            self._worked_on.release()

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Decode or encode in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, contextvars.copy_context().run, work)

    async def run(self, work: Callable[[], T], *, images: int = 1, abandon: Callable[[], None] = lambda: None) -> T:
        """Run a model on some images in a thread, with no more runs beside it than the device was given.

        `abandon` is called where the caller is cancelled while the run goes on.
        """
        await self.slot()
        try:
            run = self.start(work, images=images)
        except RuntimeError:  # the threads have been let go: the server stops
            self.give_back()
            raise
        try:
            return await asyncio.shield(run)
        except asyncio.CancelledError:
            abandon()
            raise

    async def slot(self) -> None:
        """Wait until the device has room for a run; who has waited calls `start` or `give_back`."""
        self.queued += 1
        self.arrival.set()
        try:
            await self._wait_for(self._running)
        finally:
            self.queued -= 1

    def waits_no_more(self) -> None:
        """Say that the request has got to the device by somebody else's slot."""
        self._mine().waits = False

    def give_back(self) -> None:
        """Leave the device to the next."""
        self._running.release()

    def start(self, work: Callable[[], T], *, images: int, callers: int = 1) -> asyncio.Future[T]:
        """Run a model in the slot that was waited for; it is free when the run is over, not when the caller is."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        run = loop.run_in_executor(self._runners, contextvars.copy_context().run, work)
        run.add_done_callback(lambda run: self._ran(run, images=images, callers=callers, began=began, now=loop.time()))
        return run

    def close(self) -> None:
        """Let the threads go: what has not begun will not, so that a server that stops waits for nothing but the runs."""
        for threads in (self._threads, self._runners):
            threads.shutdown(wait=False, cancel_futures=True)

    def _ran(self, run: asyncio.Future[T], *, images: int, callers: int, began: float, now: float) -> None:
        self._running.release()
        if run.cancelled():
            return
        self._pace.ran(began=began, now=now, callers=callers, others_wait=self.queued > 0)
        if run.exception() is None:
            self.on_run(images)

    @staticmethod
    def _mine() -> Ticket:
        """Of the request that is being answered; outside of any one that counts for nothing."""
        return _ticket.get() or Ticket()

    async def _wait_for(self, semaphore: asyncio.Semaphore, *, at_most: float = math.inf) -> None:
        ticket, loop = self._mine(), asyncio.get_running_loop()
        came = loop.time()
        self.waiting += 1
        ticket.waits = True
        try:
            async with asyncio.timeout_at(min(self.start_clock(), came + at_most)):
                await semaphore.acquire()
            ticket.waits = False
        except TimeoutError:
            raise self._waited(loop.time() - came) from None
        finally:
            self.waiting -= 1

    def _come_back(self) -> dict[str, str]:
        """When those who are inside now will have been answered."""
        return {"Retry-After": f"{min(_COME_BACK, max(1, math.ceil(self._in_line * self._pace.seconds)))}"}

    def _overloaded(self) -> Refusal:
        return Refusal(
            503,
            "overloaded",
            "the server has as many requests waiting as it takes.",
            hint="Try again in a moment.",
            headers=self._come_back(),
        )

    def _waited(self, seconds: float) -> Refusal:
        return Refusal(
            503,
            "waited_too_long",
            f"the request waited {seconds:.1f} s without its turn.",
            hint="Try again when the server is less busy.",
            headers=self._come_back(),
        )

    def _too_late(self) -> Refusal:
        return Refusal(
            504,
            "timeout",
            f"the request was not done within {self._timeout:g} s.",
            hint="Send fewer or smaller pictures, or have the operator raise FEWPAIR_TIMEOUT.",
        )
