"""The way in: how many requests may wait, how many are worked on, and how many run on the device at once."""

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serving.errors import Refusal

T = TypeVar("T")
_AHEAD = 2  # requests decoded beside those that run, so that the device does not wait for a decoder


class Gate:
    """Admits a bounded number of requests, refuses the rest at once, and keeps decoded pictures few."""

    def __init__(self, *, runs_at_once: int, queue: int, timeout: float) -> None:
        self.inside = 0  # admitted and not yet answered
        self.waiting = 0  # of these, waiting for their turn
        self._room = runs_at_once + _AHEAD + queue
        self._timeout = timeout
        self._worked_on = asyncio.Semaphore(runs_at_once + _AHEAD)
        self._running = asyncio.Semaphore(runs_at_once)
        self._threads = ThreadPoolExecutor(2 * (runs_at_once + _AHEAD), thread_name_prefix="fewpair")

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place among the requests that are worked on; Refusal where the queue is full or the wait too long."""
        async with self.admitted(), self.turn():
            yield

    @contextlib.asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Be one of the requests inside; Refusal where the queue is full."""
        if self.inside >= self._room:
            raise Refusal(
                503,
                "overloaded",
                "the server has as many requests waiting as it takes.",
                hint="Try again in a moment.",
                headers={"Retry-After": "1"},
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

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

    async def run(self, work: Callable[[], T]) -> T:
        """Run a model in a thread, with no more runs beside it than the device was given."""
        await self._wait_for(self._running)
        run = asyncio.get_running_loop().run_in_executor(self._threads, contextvars.copy_context().run, work)
        # A caller may be cancelled while its run goes on; the slot is free when the run is over, not when the caller is.
        run.add_done_callback(lambda _: self._running.release())
        return await asyncio.shield(run)

    def close(self) -> None:
        """Let the threads go: what has not begun will not, so that a server that stops waits for nothing but the runs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _wait_for(self, semaphore: asyncio.Semaphore) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout(self._timeout):
                await semaphore.acquire()
        except TimeoutError:
            raise Refusal(
                503,
                "waited_too_long",
                f"the request waited {self._timeout:g} s without its turn.",
                hint="Try again when the server is less busy.",
                headers={"Retry-After": "5"},
            ) from None
        finally:
            self.waiting -= 1
