"""The way in: bounded, and refused at once beyond its bound."""

import asyncio
import threading
import time

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


def run(gate, seconds):
    """A request of one picture."""

    async def one():
        async with gate.place():
            await gate.run(lambda: time.sleep(seconds))

    return one()


def test_who_would_wait_too_long_at_the_pace_of_the_last_runs_is_refused_at_the_door():
    async def crowd():
        gate = Gate(runs_at_once=1, batch=1, queue=99, timeout=60, queue_wait=1.0)
        for _ in range(3):
            await run(gate, 0.15)
        asked = [asyncio.create_task(run(gate, 0.01)) for _ in range(20)]
        await asyncio.sleep(0)
        return gate.inside, await asyncio.gather(*asked, return_exceptions=True)

    inside, ends = asyncio.run(crowd())
    refusals = [end for end in ends if isinstance(end, Refusal)]
    assert 5 <= inside <= 6  # times .15 s and a quarter: a second
    assert len(refusals) == 20 - inside
    assert {(refusal.status, refusal.code, refusal.headers["Retry-After"]) for refusal in refusals} == {(503, "overloaded", "1")}


def test_a_slow_model_is_never_without_work_and_those_who_find_no_place_are_told_when_to_come_back():
    async def crowd():
        gate = Gate(runs_at_once=1, batch=1, queue=99, timeout=60, queue_wait=0.1)
        await run(gate, 0.4)
        return await asyncio.gather(*(run(gate, 0.4) for _ in range(6)), return_exceptions=True)

    ends = asyncio.run(crowd())
    assert ends[:3] == [None] * 3  # one runs and two are decoded ahead, though the third waits .8 s
    assert [(end.code, end.headers["Retry-After"]) for end in ends[3:]] == [("overloaded", "2")] * 3  # three times .4 s


def test_who_waits_too_long_for_his_turn_after_all_because_the_pace_fell_is_refused_then():
    async def crowd():
        gate = Gate(runs_at_once=1, batch=1, queue=99, timeout=60, queue_wait=0.3)
        await run(gate, 0.01)
        asked = [asyncio.create_task(run(gate, 0.5)) for _ in range(6)]
        await asyncio.sleep(0.2)
        early = sum(task.done() for task in asked)
        return early, await asyncio.gather(*asked, return_exceptions=True), gate

    early, ends, gate = asyncio.run(crowd())
    assert early == 0
    assert ends[:3] == [None] * 3  # whose turn has come is not sent away
    assert [(end.status, end.code, end.message) for end in ends[3:]] == [
        (503, "waited_too_long", "the request waited 0.3 s without its turn.")
    ] * 3
    assert (gate.inside, gate.waiting, gate._running._value, gate._worked_on._value) == (0, 0, 1, 3)


def test_a_request_of_several_pictures_waits_so_long_for_the_first_alone():
    async def crowd():
        gate = Gate(runs_at_once=1, batch=1, queue=99, timeout=60, queue_wait=0.3)

        async def several():
            async with gate.admitted(), gate.in_time():
                for _ in range(4):
                    async with gate.turn():
                        await gate.run(lambda: time.sleep(0.1))

        return await asyncio.gather(*(several() for _ in range(6)), return_exceptions=True)

    ends = asyncio.run(crowd())
    assert None in ends[3:], "who was let in by a pace that nobody knew yet"
    assert {end.code for end in ends if end is not None} <= {"waited_too_long"}
    assert ends[:3] == [None] * 3, "each waited more than .3 s in all"


def test_one_slow_run_does_not_shut_the_door_of_an_idle_server():
    async def visit():
        gate = Gate(runs_at_once=1, batch=1, queue=99, timeout=60, queue_wait=0.5)
        for _ in range(7):
            await run(gate, 0.01)
        await run(gate, 1.5)
        return await asyncio.gather(*(run(gate, 0.01) for _ in range(10)))

    assert asyncio.run(visit()) == [None] * 10


def test_who_still_sends_his_body_keeps_nobody_waiting_and_shuts_no_door():
    async def senders():
        gate, over = Gate(runs_at_once=1, batch=1, queue=99, timeout=60, queue_wait=0.5), asyncio.Event()
        await run(gate, 0.2)

        async def sender():
            async with gate.admitted():
                await over.wait()

        sending = [asyncio.create_task(sender()) for _ in range(20)]
        await asyncio.sleep(0)
        inside, full = gate.inside, gate.full
        await run(gate, 0.01)
        over.set()
        await asyncio.gather(*sending)
        return inside, full, gate.inside, gate._in_line

    assert asyncio.run(senders()) == (20, False, 0, 0)


def test_the_pace_is_that_of_the_last_runs_for_each_caller_and_knows_no_idle_time():
    pace = Pace()
    assert pace.wait(100) == 0  # nothing is known yet
    pace.ran(began=0.0, now=1.0, callers=1, others_wait=True)
    pace.ran(began=1.5, now=2.0, callers=1, others_wait=False)
    assert pace.seconds == pytest.approx(1.0)  # what lay between two runs for which somebody waited counts
    pace.ran(began=1000.0, now=1001.0, callers=1, others_wait=False)
    pace.ran(began=1000.5, now=1002.0, callers=1, others_wait=False)
    assert pace.seconds == pytest.approx(1.0)  # two at a time are half as long for the others
    for run_ in range(16):
        pace.ran(began=2000.0 + run_, now=2001.0 + run_, callers=4, others_wait=True)
    assert pace.seconds == pytest.approx(0.25)  # four shared each
    pace.ran(began=3000.0, now=3100.0, callers=1, others_wait=False)
    assert pace.wait(4) == pytest.approx(1.25)  # with a quarter in reserve, and without the longest
    pace.ran(began=4000.0, now=4008.0, callers=4, others_wait=False)
    assert pace.seconds < 0.4  # however many shared the longer two, the longest is left out


def test_who_waited_for_the_device_and_left_makes_no_pace_of_the_idle_time_after_him():
    pace = Pace()
    pace.ran(began=0.0, now=0.5, callers=1, others_wait=True)
    pace.ran(began=600.0, now=600.5, callers=1, others_wait=False)
    assert pace.seconds == pytest.approx(1.0)


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
