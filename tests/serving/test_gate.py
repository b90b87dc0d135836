"""The way in: bounded, and refused at once beyond its bound."""

import asyncio
import threading

import pytest

from serving.api import Inside, build_api
from serving.errors import Refusal
from serving.gate import Gate
from serving.operations import Operations
from serving.pace import Pace
from serving.settings import Settings
from serving.shelf import Shelf


def test_what_is_over_the_queue_is_refused_at_once_with_when_to_come_back():
    async def crowd():
        gate, go = Gate(runs_at_once=1, batch=1, queue=1, timeout=10), threading.Event()

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


async def paced(gate, seconds):
    """Requests one after the other, so that the gate knows what one takes."""
    for _ in range(3):
        async with gate.place():
            gate.start_clock()
            await asyncio.sleep(seconds)


def test_who_would_wait_too_long_at_the_pace_of_the_last_answers_is_refused_at_the_door():
    async def crowd():
        gate, go = Gate(runs_at_once=1, batch=1, queue=99, timeout=60, queue_wait=1.0), asyncio.Event()
        await paced(gate, 0.15)

        async def one():
            async with gate.place():
                await go.wait()

        asked = [asyncio.create_task(one()) for _ in range(20)]
        await asyncio.sleep(0.05)
        inside = gate.inside
        go.set()
        return inside, await asyncio.gather(*asked, return_exceptions=True)

    inside, ends = asyncio.run(crowd())
    refusals = [end for end in ends if isinstance(end, Refusal)]
    assert 5 <= inside <= 6  # times .15 s and a quarter: a second
    assert len(refusals) == 20 - inside
    assert {(refusal.status, refusal.code, refusal.headers["Retry-After"]) for refusal in refusals} == {(503, "overloaded", "1")}


def test_a_slow_model_is_never_without_work_and_those_who_wait_for_it_are_told_when_to_come_back():
    async def crowd():
        gate = Gate(runs_at_once=1, batch=1, queue=99, timeout=60, queue_wait=0.1)
        await paced(gate, 0.4)

        async def one():
            async with gate.place():
                await gate.run(lambda: threading.Event().wait(0.4))

        return await asyncio.gather(*(one() for _ in range(6)), return_exceptions=True)

    ends = asyncio.run(crowd())
    assert [end for end in ends if end is not None and not isinstance(end, Refusal)] == []
    assert ends[:3] == [None] * 3  # one runs and two are decoded ahead, though the third waits .8 s
    assert [end.headers["Retry-After"] for end in ends[3:]] == ["2"] * 3  # three times .4 s


def test_who_waits_too_long_after_all_because_the_pace_fell_is_refused_then():
    async def crowd():
        gate, go = Gate(runs_at_once=1, batch=1, queue=99, timeout=60, queue_wait=0.3), threading.Event()
        await paced(gate, 0.01)

        async def one():
            async with gate.place():
                await gate.run(lambda: go.wait(10))

        asked = [asyncio.create_task(one()) for _ in range(6)]
        await asyncio.sleep(0.2)
        early = sum(task.done() for task in asked)
        await asyncio.sleep(0.3)
        go.set()
        return early, await asyncio.gather(*asked, return_exceptions=True), gate

    early, ends, gate = asyncio.run(crowd())
    assert (early, ends[0]) == (0, None)  # who runs is not cut off
    assert {(end.status, end.code) for end in ends[1:]} == {(503, "waited_too_long")}
    assert all("waited 0.3 s" in end.message for end in ends[1:])
    assert (gate.inside, gate.waiting, gate._running._value) == (0, 0, 1)


def test_the_pace_is_that_of_the_last_answers_and_knows_no_idle_time():
    pace = Pace()
    assert pace.wait(100) == 0  # nothing is known yet
    pace.answered(since=0.0, now=1.0)
    pace.answered(since=0.5, now=1.5)
    assert pace.seconds == pytest.approx(0.75)
    pace.answered(since=1000.0, now=1000.75)
    assert pace.seconds == pytest.approx(0.75)
    for answer in range(1, 17):
        pace.answered(since=1000.0, now=1000.75 + 2 * answer)
    assert pace.seconds == pytest.approx(2)
    assert pace.wait(4) == pytest.approx(10)  # with a quarter in reserve


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
        gate = Gate(runs_at_once=2, batch=1, queue=100, timeout=10)

        async def one():
            async with gate.place():
                await gate.run(work)

        await asyncio.gather(*(one() for _ in range(20)))

    asyncio.run(crowd())
    assert most == 2


def test_a_wait_and_a_run_that_are_too_long_end_in_a_sentence_each():
    async def crowd():
        gate, go = Gate(runs_at_once=1, batch=1, queue=9, timeout=0.05), threading.Event()

        async def one():
            async with gate.place():
                return await gate.run(lambda: go.wait(10))

        first, second = asyncio.create_task(one()), asyncio.create_task(one())
        ends = await asyncio.gather(first, second, return_exceptions=True)
        go.set()
        return [(end.status, end.code) for end in ends]

    assert asyncio.run(crowd()) == [(504, "timeout"), (503, "waited_too_long")]


def test_who_is_inside_already_takes_no_second_place_and_who_outlives_his_request_queues_anew():
    async def visit():
        gate = Gate(runs_at_once=1, batch=1, queue=0, timeout=10)
        later = asyncio.Event()

        async def outlives():
            await later.wait()
            async with gate.admitted():
                return gate.inside

        async with gate.admitted(), gate.admitted():
            once = gate.inside
            task = asyncio.create_task(outlives())
            await asyncio.sleep(0)
        left = gate.inside
        later.set()
        return once, left, await task

    assert asyncio.run(visit()) == (1, 0, 1)


def test_the_clock_of_a_request_is_one_for_all_it_does():
    async def several():
        gate = Gate(runs_at_once=1, batch=1, queue=9, timeout=0.2)
        async with gate.admitted():
            first = gate.start_clock()
            await asyncio.sleep(0.05)
            async with gate.in_time(), gate.turn():
                assert gate.start_clock() == first
            with pytest.raises(Refusal, match=r"within 0\.2 s"):
                async with gate.in_time():
                    await asyncio.sleep(1)
            with pytest.raises(Refusal, match="within"):  # and nothing is begun once it has run out
                async with gate.in_time():
                    pytest.fail("it began")

    asyncio.run(several())


def test_a_caller_that_goes_away_does_not_give_its_running_place_to_another():
    async def crowd():
        gate, go, second_ran = Gate(runs_at_once=1, batch=1, queue=9, timeout=10), threading.Event(), threading.Event()

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


def test_a_run_whose_caller_has_gone_is_told_to_end():
    async def leave():
        gate, go, told = Gate(runs_at_once=1, batch=1, queue=9, timeout=10), threading.Event(), threading.Event()

        def abandon():
            told.set()
            go.set()

        task = asyncio.create_task(gate.run(lambda: go.wait(10), abandon=abandon))
        await asyncio.sleep(0.05)
        assert not told.is_set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.05)
        return told.is_set(), gate._running._value

    assert asyncio.run(leave()) == (True, 1)
