"""The way in: bounded, and refused at once beyond its bound."""

import asyncio
import threading

import pytest

from serving.api import Inside, build_api
from serving.errors import Refusal
from serving.gate import Gate
from serving.operations import Operations
from serving.settings import Settings
from serving.shelf import Shelf


def test_what_is_over_the_queue_is_refused_at_once_with_when_to_come_back():
    async def crowd():
        gate, go = Gate(runs_at_once=1, queue=1, timeout=10), threading.Event()

        async def one():
            async with gate.place():
                return await gate.run(lambda: go.wait(10))

        asked = [asyncio.create_task(one()) for _ in range(6)]
        await asyncio.sleep(0.1)
        refused = [task for task in asked if task.done()]
        go.set()
        return await asyncio.gather(*asked, return_exceptions=True), len(refused), gate

    answers, refused, gate = asyncio.run(crowd())
    refusals = [answer for answer in answers if isinstance(answer, Refusal)]
    assert len(refusals) == refused == 2  # one runs, two are decoded ahead, one waits
    assert {(refusal.status, refusal.code, refusal.headers["Retry-After"]) for refusal in refusals} == {(503, "overloaded", "1")}
    assert (gate.inside, gate.waiting) == (0, 0)


def test_no_more_run_at_once_than_were_given():
    running, most, lock = 0, 0, threading.Lock()

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    async def crowd():
        gate = Gate(runs_at_once=2, queue=100, timeout=10)

        async def one():
            async with gate.place():
                await gate.run(work)

        await asyncio.gather(*(one() for _ in range(20)))

    asyncio.run(crowd())
    assert most == 2


def test_a_wait_that_is_too_long_ends_in_a_sentence():
    async def crowd():
        gate, go = Gate(runs_at_once=1, queue=9, timeout=0.05), threading.Event()

        async def one():
            async with gate.place():
                return await gate.run(lambda: go.wait(10))

        first, second = asyncio.create_task(one()), asyncio.create_task(one())
        with pytest.raises(Refusal, match="without its turn"):
            await second
        go.set()
        await first

    asyncio.run(crowd())


def test_a_caller_that_goes_away_does_not_give_its_running_place_to_another():
    async def crowd():
        gate, go, second_ran = Gate(runs_at_once=1, queue=9, timeout=10), threading.Event(), threading.Event()

        async def one(work):
            async with gate.place():
                return await gate.run(work)

        first = asyncio.create_task(one(lambda: go.wait(10)))
        await asyncio.sleep(0.05)
        first.cancel()
        second = asyncio.create_task(one(second_ran.set))
        await asyncio.sleep(0.05)
        early = second_ran.is_set()
        go.set()
        await second
        return early

    assert asyncio.run(crowd()) is False


def test_a_server_that_stops_lets_the_threads_go():
    inside = Inside(operations=Operations(Shelf({}, {}, {}), Settings.from_environment({})))
    api = build_api(inside, page=None)

    async def work_and_stop():
        async with api.router.lifespan_context(api):
            assert await inside.need().gate.off_loop(lambda: "done") == "done"
        with pytest.raises(RuntimeError, match="after shutdown"):
            await inside.need().gate.off_loop(lambda: "too late")

    asyncio.run(work_and_stop())
