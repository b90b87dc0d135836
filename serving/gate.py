"""The way in: how many requests may wait, how many are worked on, how many run on the device at once, and by when each is answered."""

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from serving.errors import Refusal

T = TypeVar("T")
_AHEAD = 2  # requests decoded beside those that run, so that the device does not wait for a decoder


@dataclass
class Ticket:
    """A request's place inside: taken before its body is read, given back with the answer."""

    deadline: float | None = None  # of the answer, in the loop's time; the clock starts when the body is there
    waits: bool = False  # for a turn, so that it is said when the time runs out
    valid: bool = True


_ticket: contextvars.ContextVar[Ticket | None] = contextvars.ContextVar("ticket", default=None)


class Gate:
    """Admits a bounded number of requests, refuses the rest at once, and keeps decoded pictures few."""

    def __init__(self, *, runs_at_once: int, batch: int, queue: int, timeout: float) -> None:
        self.inside = 0  # admitted and not yet answered
        self.waiting = 0  # of these, waiting for their turn
        self.queued = 0  # waiting for the device
        self.arrival = asyncio.Event()  # of somebody at the device, or at a run that takes others along
        self.on_run: Callable[[int], None] = lambda images: None  # told of each run, with how many pictures it took
        at_work = runs_at_once * batch + _AHEAD
        self._room = at_work + queue
        self._timeout = timeout
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
        if self.inside >= self._room:
            raise Refusal(
                503,
                "overloaded",
                "the server has as many requests waiting as it takes.",
                hint="Try again in a moment.",
                headers={"Retry-After": "1"},
            )
        self.inside += 1
        ticket = Ticket()
        # Not reset on the way out: what outlives the request in a task of its own holds a ticket that is void, and queues anew.
        _ticket.set(ticket)
        try:
            yield ticket
        finally:
            ticket.valid = False
            self.inside -= 1

    def start_clock(self) -> float:
        """When the request has to be answered, in the loop's time; the first call starts its clock."""
        now = asyncio.get_running_loop().time()
        ticket = _ticket.get()
        if ticket is None or not ticket.valid:
            return now + self._timeout
        if ticket.deadline is None:
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
            raise (self._waited() if ticket is not None and ticket.waits else self._too_late()) from None

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be worked on. A request of many pictures takes a turn for each, so that others get theirs in between."""
        await self._wait_for(self._worked_on)
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
        ticket = _ticket.get()
        if ticket is not None:
            ticket.waits = False

    def give_back(self) -> None:
        """Leave the device to the next."""
        self._running.release()

    def start(self, work: Callable[[], T], *, images: int) -> asyncio.Future[T]:
        """Run a model in the slot that was waited for; it is free when the run is over, not when the caller is."""
        run = asyncio.get_running_loop().run_in_executor(self._runners, contextvars.copy_context().run, work)
        run.add_done_callback(lambda run: self._ran(run, images))
        return run

    def close(self) -> None:
        """Let the threads go: what has not begun will not, so that a server that stops waits for nothing but the runs."""
        for threads in (self._threads, self._runners):
            threads.shutdown(wait=False, cancel_futures=True)

    def _ran(self, run: asyncio.Future[T], images: int) -> None:
        self._running.release()
        if not run.cancelled() and run.exception() is None:
            self.on_run(images)

    async def _wait_for(self, semaphore: asyncio.Semaphore) -> None:
        ticket = _ticket.get() or Ticket()
        self.waiting += 1
        ticket.waits = True
        try:
            async with asyncio.timeout_at(self.start_clock()):
                await semaphore.acquire()
            ticket.waits = False
        except TimeoutError:
            raise self._waited() from None
        finally:
            self.waiting -= 1

    def _waited(self) -> Refusal:
        return Refusal(
            503,
            "waited_too_long",
            f"the request waited {self._timeout:g} s without its turn.",
            hint="Try again when the server is less busy.",
            headers={"Retry-After": "5"},
        )

    def _too_late(self) -> Refusal:
        return Refusal(
            504,
            "timeout",
            f"the request was not done within {self._timeout:g} s.",
            hint="Send fewer or smaller pictures, or have the operator raise FEWPAIR_TIMEOUT.",
        )
