"""The scheduler: bounded admission, permits, priorities, batches, and what happens to work that nobody waits for."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import pytest

from serving.errors import Refusal
from serving.inference.archive import Picture
from serving.inference.parameters import SegmentParameters
from serving.inference.pipeline import translate, translator
from serving.inference.scheduler import Scheduler
from tests.serving.backends import backend_of
from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp


class Device:
    """Doubles each item once it may go, and records the batches."""

    def __init__(self, *, free: bool = True, largest: int = 99) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.terminated = threading.Event()
        self.largest = largest
        if free:
            self.go.set()

    def run(self, items, cancel):
        self.batches.append(list(items))
        while not self.go.wait(0.005):
            if cancel.options.terminate:
                self.terminated.set()
                raise RuntimeError("Exiting due to terminate flag being set to true.")
        if len(items) > self.largest:
            raise MemoryError
        return [2 * item for item in items]


def scheduler(**changes):
    return Scheduler(**{"runs_at_once": 1, "batch": 1, "queue": 99, "timeout": 10, **changes})


async def ask(scheduler, device, item, *, most=1, key="size"):
    """A request of one picture."""
    async with scheduler.admit() as admission:
        return await admission.work(lambda task: task.run(device.run, item, most=most, key=key))


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def outcomes(tasks):
    """The result of each task, or the code of its refusal."""
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return [end.code if isinstance(end, Refusal) else end for end in ends]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back():
    async def main():
        queue, device = scheduler(queue=1), Device(free=False)
        tasks = [asyncio.create_task(ask(queue, device, item)) for item in range(6)]
        await asyncio.sleep(0.1)
        refused = [task.exception() for task in tasks if task.done()]
        device.go.set()
        return refused, await outcomes(tasks), queue

    refused, ends, queue = asyncio.run(main())
    assert {(error.status, error.code, error.headers["Retry-After"]) for error in refused} == {(503, "overloaded", "1")}
    assert ends == [0, 2, 4, 6, "overloaded", "overloaded"]  # one runs, two are decoded ahead, one waits
    assert (queue.admitted, queue.waiting) == (0, 0)


def test_retry_after_is_the_queue_length_times_the_mean_of_the_last_runs_and_at_most_queue_wait():
    async def main(queue_wait):
        queue = scheduler(queue=7, queue_wait=queue_wait)
        await work(queue, lambda task: task.run(lambda items, cancel: time.sleep(0.1) or items, 1))
        assert 0 < queue.seconds_a_picture < 1
        queue.seconds_a_picture = 0.5
        tasks = [asyncio.create_task(ask(queue, Device(free=False), item)) for item in range(10)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal) as refusal:
            queue.check_capacity()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return refusal.value.headers["Retry-After"]

    assert asyncio.run(main(queue_wait=0)) == "5"
    assert asyncio.run(main(queue_wait=2)) == "2", "those who wait longer are refused"


def test_the_wait_for_a_first_permit_is_bounded_and_the_wait_for_the_next_is_not():
    async def main():
        queue, device = scheduler(queue_wait=0.2), Device(free=False)
        tasks = [asyncio.create_task(ask(queue, device, item)) for item in range(5)]
        await until(lambda: sum(task.done() for task in tasks) == 2)
        device.go.set()
        ends = await outcomes(tasks)

        async def several():
            async with queue.admit() as admission:
                for _ in range(4):
                    await admission.work(lambda task: task.run(lambda items, cancel: time.sleep(0.1) or items, 1))

        return ends, await outcomes([several() for _ in range(3)])

    assert asyncio.run(main()) == ([0, 2, 4, "waited_too_long", "waited_too_long"], [None] * 3)


def test_a_request_that_is_not_done_in_time_is_a_504_and_its_run_is_terminated():
    async def main():
        queue, device = scheduler(timeout=0.1), Device(free=False)
        ends = await outcomes([ask(queue, device, 1)])
        await until(device.terminated.is_set)
        return ends

    assert asyncio.run(main()) == ["timeout"]


class Gauge:
    """Counts who is inside at a time."""

    def __init__(self):
        self._lock, self._inside, self.most = threading.Lock(), 0, 0

    def __enter__(self):
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_):
        with self._lock:
            self._inside -= 1


async def work(scheduler, function):
    """A request whose picture is worked on by the function."""
    async with scheduler.admit() as admission:
        return await admission.work(function)


def test_a_permit_is_kept_until_its_thread_is_done_whatever_became_of_its_request():
    async def main():
        queue, go, decoding = scheduler(), threading.Event(), Gauge()

        def decode(task):
            with decoding:
                go.wait(10)

        for _ in range(3):  # three times all clients leave while their pictures are decoded
            tasks = [asyncio.create_task(work(queue, decode)) for _ in range(4)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        left = queue.admitted
        go.set()
        assert await ask(queue, Device(), 4) == 8
        return decoding.most, left

    assert asyncio.run(main()) == (3, 0)


def test_no_more_runs_at_once_than_allowed():
    async def main():
        queue, running = scheduler(runs_at_once=2), Gauge()

        def run(items, cancel):
            with running:
                time.sleep(0.01)
            return items

        await asyncio.gather(*(work(queue, lambda task: task.run(run, 1)) for _ in range(20)))
        return running.most

    assert asyncio.run(main()) == 2


def batches_behind(device, asked, *, most=4):
    """Ask for (item, key) all at once while a first run holds the device; the results and the batches after it."""

    async def main():
        queue, first = scheduler(batch=4), Device(free=False)
        blocking = asyncio.create_task(ask(queue, first, 0, key=None))
        await until(lambda: first.batches)
        tasks = [asyncio.create_task(ask(queue, device, item, most=most, key=key)) for item, key in asked]
        await until(lambda: len(queue._requests) == len(asked))
        first.go.set()
        await blocking
        return await outcomes(tasks)

    return asyncio.run(main())


def test_entries_of_one_key_share_a_run_in_their_order_and_others_run_apart():
    device = Device()
    assert batches_behind(device, [(1, "a"), (2, "b"), (3, "a"), (4, "b"), (5, "a")]) == [2, 4, 6, 8, 10]
    assert device.batches == [[1, 3, 5], [2, 4]]


def test_a_batch_takes_no_more_than_fit_and_entries_without_a_key_run_alone():
    device = Device()
    assert batches_behind(device, [(item, "a") for item in range(5)], most=2) == [0, 2, 4, 6, 8]
    assert device.batches == [[0, 1], [2, 3], [4]]
    alone = Device()
    assert batches_behind(alone, [(1, None), (2, None)]) == [2, 4]
    assert alone.batches == [[1], [2]]


def test_a_run_that_fails_for_a_batch_is_tried_for_each_alone():
    device = Device(largest=1)
    assert batches_behind(device, [(1, "a"), (2, "a"), (3, "a")]) == [2, 4, 6]
    assert device.batches == [[1, 2, 3], [1], [2], [3]]


def test_an_entry_whose_request_is_gone_is_skipped():
    async def main():
        queue, device = scheduler(), Device(free=False)
        first, second, third = (asyncio.create_task(ask(queue, device, item)) for item in (1, 2, 3))
        await until(lambda: len(queue._requests) == 2)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        device.go.set()
        return await first, await third, device.batches

    assert asyncio.run(main()) == (2, 6, [[1], [3]])


def test_a_job_runs_when_no_request_is_inside_and_after_its_patience_in_any_case(monkeypatch):
    monkeypatch.setattr("serving.inference.scheduler._JOB_PATIENCE", 0.5)

    async def main():
        queue, device = scheduler(), Device()
        async with queue.admit():  # a request that is decoded, for one
            job = asyncio.create_task(queue.background(lambda task: task.run(device.run, 100)))
            await asyncio.sleep(0.1)
            assert await ask(queue, device, 1) == 2
            assert not job.done()
            async with asyncio.timeout(5):
                assert await job == 200
        assert await queue.background(lambda task: task.run(device.run, 200)) == 400
        return device.batches

    assert asyncio.run(main()) == [[1], [100], [200]]


def test_pictures_are_freed_when_their_run_is_over_without_a_garbage_collection():
    class Pixels:
        """Something to hold a weak reference to."""

    sizes = []

    def run(items, cancel):
        sizes.append(len(items))
        time.sleep(0.05)  # in which the others come
        if len(items) > 1:
            raise MemoryError
        return [Pixels() for _ in items]

    async def main():
        queue, pixels = scheduler(batch=2), weakref.WeakSet()

        async def one():
            item = Pixels()
            pixels.add(item)
            pixels.add(await work(queue, lambda task: task.run(run, item, most=2, key="size")))

        await asyncio.gather(one(), one(), one())
        await asyncio.sleep(0.1)
        return len(pixels)

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(main()) == 0
        assert 2 in sizes
    finally:
        gc.enable()


def test_a_server_that_stops_cancels_what_has_not_begun():
    async def main():
        queue, device = scheduler(), Device(free=False)
        running, waiting = (asyncio.create_task(ask(queue, device, item)) for item in (1, 2))
        await until(lambda: device.batches and len(queue._requests) == 1)
        queue.close()
        device.go.set()
        ends = await asyncio.gather(running, waiting, return_exceptions=True)
        with pytest.raises(RuntimeError, match="after shutdown"):
            await ask(queue, device, 3)
        return ends

    running, waiting = asyncio.run(main())
    assert running == 2
    assert isinstance(waiting, asyncio.CancelledError)


def test_a_request_of_several_pictures_that_waited_too_long_is_refused_as_a_whole(tmp_path):
    write_model(tmp_path / "tiny")

    async def main():
        backend = backend_of(tmp_path, queue_wait=50)
        while not backend.scheduler.permits.locked():
            await backend.scheduler.permits.acquire()
        pictures = [Picture(name, lambda: file_of(ramp())) for name in ("a.png", "b.png")]
        with pytest.raises(Refusal, match=r"would not reach the device within 0\.05 s") as refused:
            await translate(pictures, translator(backend.models, SegmentParameters()), backend)
        backend.scheduler.close()
        return refused.value.status

    assert asyncio.run(main()) == 503
