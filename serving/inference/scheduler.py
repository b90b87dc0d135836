"""Bounded admission, permits for worker threads, and batched runs on the device."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from serving.errors import Refusal
from serving.models.model import CancelToken
from serving.telemetry.metrics import current_trace

T = TypeVar("T")
Work = Callable[[Sequence[Any], CancelToken], Sequence[Any]]  # the items of one run -> a result for each
_EXTRA_PERMITS = 2  # pictures decoded or encoded beside those that run, so that the device does not wait for a decoder
_JOB_PATIENCE = 5.0  # seconds after which a job's run no longer yields to requests
_SMOOTHING = 0.25  # weight of the last run in the mean
_LONGEST_RETRY = 60


@dataclass(eq=False)
class _Entry:
    """One run that waits for the device. Entries with an equal key may share a run of up to `most` images."""

    work: Work
    item: Any
    images: int
    most: int
    key: Hashable | None
    queued_at: float = field(default_factory=time.monotonic)
    began_at: float = 0.0
    ended_at: float = 0.0
    result: Future[Any] = field(default_factory=Future)


class Task:
    """The work on one picture in a worker thread. Its runs on the device go through `run`."""

    def __init__(self, submit: Callable[[_Entry], None]) -> None:
        self._submit = submit
        self._entry: _Entry | None = None
        self._cancelled = False

    def run(self, work: Work, item: Any, *, images: int = 1, most: int = 1, key: Hashable | None = None) -> Any:
        """Run on the device and return the result; called in the worker thread.

        Raises concurrent.futures.CancelledError where the caller was cancelled or the server stops.
        """
        self._entry = entry = _Entry(work, item, images, most, key)
        if self._cancelled:  # checked after the entry is set; `cancel` sets this first and then reads the entry
            entry.result.cancel()
        self._submit(entry)
        result = entry.result.result()
        current_trace().add("wait", entry.began_at - entry.queued_at)
        current_trace().add("run", entry.ended_at - entry.began_at)
        return result

    def cancel(self) -> None:
        """Skip its next run, and terminate the one under way unless it is shared with others."""
        self._cancelled = True
        if self._entry is not None:
            self._entry.result.cancel()


class Scheduler:
    """Admits at most `queue` requests beside those worked on, and runs models `runs_at_once` times in parallel.

    `queue_wait` is the number of seconds that a request may wait for its first run (0: no limit), `timeout` the number
    of seconds from admission to the answer. Runs of jobs yield to requests.
    """

    def __init__(self, *, runs_at_once: int, batch: int, queue: int, timeout: float, queue_wait: float = 0) -> None:
        permits = runs_at_once * batch + _EXTRA_PERMITS
        self.batch = batch
        self.timeout = timeout
        self.queue_wait = queue_wait or math.inf
        self.admitted = 0  # requests admitted and not yet answered
        self.without_permit = 0  # of these, how many wait for a permit
        self.seconds_a_picture = 0.0  # on the device, in the last runs
        self.permits = asyncio.Semaphore(permits)
        self.on_run: Callable[[int], None] = lambda images: None  # called after each run with its number of images
        self._capacity = permits + queue
        self._job_permit = asyncio.Semaphore(1)
        self._requests: deque[_Entry] = deque()
        self._jobs: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = ThreadPoolExecutor(permits + 1, thread_name_prefix="worker")
        for number in range(runs_at_once):
            threading.Thread(target=self._dispatch, name=f"device-{number}", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Requests that wait for a permit or for the device."""
        return self.without_permit + len(self._requests)

    def check_capacity(self) -> None:
        """Raise Refusal (503) where no further request is admitted."""
        if self.admitted >= self._capacity:
            raise self.busy("overloaded", f"the server already has {self.admitted} requests waiting.")

    @contextlib.asynccontextmanager
    async def admit(self) -> AsyncIterator[Admission]:
        """Admit a request whose body has arrived. Raises Refusal (503) where the queue is full."""
        self.check_capacity()
        self.admitted += 1
        try:
            yield Admission(self, asyncio.get_running_loop().time() + self.timeout)
        finally:
            self.admitted -= 1
            with self._changed:
                self._changed.notify_all()

    async def background(self, function: Callable[[Task], T]) -> T:
        """Call the function in a worker thread for a job: without admission and deadline, one at a time."""
        await self._job_permit.acquire()
        return await self.in_thread(function, self._job_permit, self._jobs)

    async def in_thread(
        self, function: Callable[[Task], T], permit: asyncio.Semaphore, queue: deque[_Entry] | None = None
    ) -> T:
        """Call the function in a worker thread; its permit is released when the thread is done."""
        task = Task(lambda entry: self._submit(entry, self._requests if queue is None else queue))
        context = contextvars.copy_context()
        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, context.run, function, task)
        except RuntimeError:  # the server stops
            permit.release()
            raise
        future.add_done_callback(lambda _: permit.release())
        try:
            return await asyncio.shield(future)
        finally:
            task.cancel()

    def close(self) -> None:
        """Cancel what has not begun and let the threads end."""
        with self._changed:
            self._closed = True
            for entry in (*self._requests, *self._jobs):
                entry.result.cancel()
            self._changed.notify_all()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def busy(self, code: str, message: str) -> Refusal:
        """Return a refusal (503); Retry-After is the admitted requests x the mean run, at most `queue_wait`."""
        seconds = math.ceil(min(self.admitted * self.seconds_a_picture, self.queue_wait))
        headers = {"Retry-After": f"{min(_LONGEST_RETRY, max(1, seconds))}"}
        return Refusal(503, code, message, hint="Try again when the server is less busy.", headers=headers)

    def _submit(self, entry: _Entry, queue: deque[_Entry]) -> None:
        with self._changed:
            if self._closed:
                entry.result.cancel()
            queue.append(entry)
            self._changed.notify_all()

    def _dispatch(self) -> None:
        while self._run_next():
            pass  # what a run held is freed before the wait for the next one

    def _run_next(self) -> bool:
        """Wait for a batch and run it; return False once the scheduler is closed."""
        with self._changed:
            while (queue := self._next_queue()) is None:
                if self._closed:
                    return False
                until = self._jobs[0].queued_at + _JOB_PATIENCE if self._jobs else None
                self._changed.wait(until and max(0.0, until - time.monotonic()))
            batch = self._take_batch(queue)
        if batch:
            self._run(batch)
        return True

    def _next_queue(self) -> deque[_Entry] | None:
        """Return the queue that is served next. A job's run yields while a request is admitted, up to its patience."""
        for queue in (self._requests, self._jobs):
            while queue and queue[0].result.cancelled():
                queue.popleft()
        if self._jobs and time.monotonic() - self._jobs[0].queued_at >= _JOB_PATIENCE:
            return self._jobs
        if self._requests:
            return self._requests
        return self._jobs if self._jobs and not self.admitted else None

    def _take_batch(self, queue: deque[_Entry]) -> list[_Entry]:
        """Remove the first entry from its queue, with others of its key up to `most` images."""
        first = queue.popleft()
        batch, images = [first], first.images
        for other in list(queue) if first.key is not None else ():
            if other.key == first.key and images + other.images <= first.most:
                queue.remove(other)
                images += other.images
                batch.append(other)
        return [entry for entry in batch if not entry.result.cancelled()]

    def _run(self, batch: list[_Entry]) -> None:
        cancel, began = CancelToken(), time.monotonic()
        if len(batch) == 1:
            batch[0].result.add_done_callback(lambda result: cancel.cancel() if result.cancelled() else None)
        try:
            results = batch[0].work([entry.item for entry in batch], cancel)
        except Exception as error:
            if len(batch) > 1:  # for example too large a batch for the memory
                for entry in batch:
                    self._run([entry])
                return
            with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
                batch[0].result.set_exception(error)
            return
        ended = time.monotonic()
        self.seconds_a_picture += _SMOOTHING * ((ended - began) / len(batch) - self.seconds_a_picture)
        self.on_run(sum(entry.images for entry in batch))
        for entry, result in zip(batch, results, strict=True):
            entry.began_at, entry.ended_at = began, ended
            with contextlib.suppress(InvalidStateError):
                entry.result.set_result(result)


@dataclass
class Admission:
    """An admitted request: its deadline, and its access to worker threads."""

    scheduler: Scheduler
    deadline: float
    first: bool = True

    async def work(self, function: Callable[[Task], T]) -> T:
        """Call the function in a worker thread. A request of many pictures calls this for each, so that others run in
        between.

        Raises Refusal: 503 where the first permit takes longer than `queue_wait`, 504 where the deadline passes. The
        thread keeps its permit until it ends, even where its caller does not wait for it.
        """
        scheduler, clock = self.scheduler, asyncio.timeout_at(self.deadline)
        try:
            async with clock:
                await asyncio.sleep(0)  # where a deadline that has passed takes effect
                await self._acquire()
                return await scheduler.in_thread(function, scheduler.permits)
        except TimeoutError:
            if not clock.expired():
                raise
            hint = "Send fewer or smaller pictures, or have the operator raise FEWPAIR_TIMEOUT."
            message = f"the request was not done within {scheduler.timeout:g} s."
            raise Refusal(504, "timeout", message, hint=hint) from None

    async def _acquire(self) -> None:
        """Wait for a permit; for the first one only so long that the request reaches the device within `queue_wait`."""
        scheduler, started = self.scheduler, time.monotonic()
        wait = max(0.0, scheduler.queue_wait - _EXTRA_PERMITS * scheduler.seconds_a_picture) if self.first else None
        scheduler.without_permit += 1
        try:
            async with asyncio.timeout(wait):
                await scheduler.permits.acquire()
        except TimeoutError:
            why = f"the request would not reach the device within {scheduler.queue_wait:g} s."
            raise scheduler.busy("waited_too_long", why) from None
        finally:
            scheduler.without_permit -= 1
            current_trace().add("wait", time.monotonic() - started)
        self.first = False
