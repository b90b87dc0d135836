"""Pictures of different callers in one run: who shares, who waits, and that nobody's answer shows it."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from serving.errors import Refusal
from serving.gate import Gate
from serving.metrics import Trace, follow
from serving.microbatch import MicroBatches
from tests.serving.pictures import file_of, noise
from tests.serving.process import running_server
from tests.serving.slow import write_slow_model

SMALL, OTHER = (8, 16, 3), (16, 8, 3)


class Graph:
    """Stands for a model: answers each picture with its mean plus its seed, slowly if told to, and notes what it was run on."""

    def __init__(self, *, batches: bool = True) -> None:
        self.batches = batches
        self.runs: list[int] = []
        self.go = threading.Event()
        self.broken_off = threading.Event()
        self.most = 99

    def run_batch(self, direction, pixels, *, seeds, brake):
        self.runs.append(len(pixels))
        while not self.go.wait(0.005):
            if brake.options.terminate:
                self.broken_off.set()
                raise RuntimeError("Exiting due to terminate flag being set to true.")
        if len(pixels) > self.most:
            raise MemoryError
        return {"label": np.stack([picture[..., 0] + seed for picture, seed in zip(pixels, seeds, strict=True)]).astype(np.uint8)}


def picture(value, shape=SMALL):
    return np.full(shape, value, np.uint8)


def crowd(graph, asked, *, most=4, wait=0.0, runs_at_once=1, before=0.05, timeout=10):
    """Ask for (value, shape, seeds) all at once, let the device go after a while; the answers' first values."""

    async def play():
        gate = Gate(runs_at_once=runs_at_once, batch=most, queue=99, timeout=timeout)
        shared = MicroBatches(gate, most=most, wait=wait)

        async def one(value, shape, seeds):
            async with gate.place():
                found = await shared.run(graph, "to_label", picture(value, shape), seeds=seeds)
                return [int(each["label"][0, 0]) for each in found]

        tasks = [asyncio.create_task(one(*each)) for each in asked]
        await asyncio.sleep(before)
        graph.go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert (gate.inside, gate.waiting, shared._lines) == (0, 0, {})
        return answers

    return asyncio.run(play())


def test_who_comes_together_shares_runs_in_the_order_of_coming():
    graph = Graph()
    assert crowd(graph, [(value, SMALL, (0,)) for value in range(6)]) == [[value] for value in range(6)]
    assert graph.runs == [4, 2]


def test_pictures_of_another_size_run_apart():
    graph = Graph()
    answers = crowd(graph, [(1, SMALL, (0,)), (2, OTHER, (0,)), (3, SMALL, (0,)), (4, OTHER, (0,))])
    assert answers == [[1], [2], [3], [4]]
    assert graph.runs == [2, 2]


def test_the_photos_of_one_label_map_share_runs_among_themselves():
    graph = Graph()
    assert crowd(graph, [(10, SMALL, (0, 1, 2, 3, 4, 5))]) == [[10, 11, 12, 13, 14, 15]]
    assert graph.runs == [4, 2]


def test_a_run_that_is_not_full_waits_for_company_as_long_as_it_was_told_and_no_longer_when_it_is_full():
    graph = Graph()
    graph.go.set()
    asked = time.monotonic()
    assert crowd(graph, [(1, SMALL, (0,)), (2, SMALL, (0,))], wait=0.2, before=0) == [[1], [2]]
    assert graph.runs == [2]
    assert time.monotonic() - asked > 0.2
    crowd(graph, [(value, SMALL, (0,)) for value in range(4)], wait=60, before=0)
    assert graph.runs == [2, 4]


def test_a_model_whose_answers_change_in_company_runs_every_picture_alone():
    graph = Graph(batches=False)
    assert crowd(graph, [(value, SMALL, (0, 1)) for value in range(3)]) == [[value, value + 1] for value in range(3)]
    assert graph.runs == [1] * 6


def test_pictures_too_large_to_share_a_run_do_not():
    graph = Graph()
    assert crowd(graph, [(value, (1024, 1024, 3), (0,)) for value in range(3)]) == [[0], [1], [2]]
    assert graph.runs == [1, 1, 1]


def test_a_run_that_fails_in_company_is_tried_alone():
    graph = Graph()
    graph.most = 2
    assert crowd(graph, [(value, SMALL, (0,)) for value in range(4)]) == [[0], [1], [2], [3]]
    assert graph.runs == [4, 1, 1, 1, 1]


def test_who_waits_too_long_is_told_so_and_who_was_run_too_long_is_told_that():
    graph = Graph()
    ends = crowd(graph, [(1, SMALL, (0,)), (2, OTHER, (0,))], timeout=0.1, before=0.5)
    assert [(end.status, end.code) for end in ends if isinstance(end, Refusal)] == [(504, "timeout"), (503, "waited_too_long")]
    assert graph.broken_off.wait(1), "nobody waits for it any more"


@pytest.mark.parametrize("gone", [1, 2])
def test_a_run_is_broken_off_when_the_last_who_waits_for_it_has_gone_and_not_before(gone):
    graph = Graph()

    async def play():
        gate = Gate(runs_at_once=1, batch=4, queue=9, timeout=10)
        shared = MicroBatches(gate, most=4, wait=0.05)
        tasks = [asyncio.create_task(shared.run(graph, "to_label", picture(value), seeds=(0,))) for value in (1, 2)]
        await asyncio.sleep(0.2)
        for task in tasks[:gone]:
            task.cancel()
        await asyncio.sleep(0.1)
        assert graph.broken_off.is_set() is (gone == 2)
        graph.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ends = asyncio.run(play())
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [True, gone == 2]
    assert graph.runs == [2]


def test_who_goes_while_he_waits_is_not_run_and_the_device_is_free_for_the_next():
    graph = Graph()

    async def play():
        gate = Gate(runs_at_once=1, batch=4, queue=9, timeout=10)
        shared = MicroBatches(gate, most=4, wait=0)
        tasks = []
        for value in (1, 2, 3):
            tasks.append(asyncio.create_task(shared.run(graph, "to_label", picture(value), seeds=(0,))))
            await asyncio.sleep(0.05)
        tasks[1].cancel()
        await asyncio.sleep(0.05)
        graph.go.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        again = await shared.run(graph, "to_label", picture(5), seeds=(0,))
        return int(again[0]["label"][0, 0])

    assert asyncio.run(play()) == 5
    assert graph.runs == [1, 1, 1]


def test_of_two_who_wait_for_company_with_a_device_each_one_takes_the_other_along():
    graph = Graph()
    graph.go.set()

    async def play():
        gate = Gate(runs_at_once=2, batch=4, queue=9, timeout=10)
        shared = MicroBatches(gate, most=4, wait=0.1)
        first = asyncio.create_task(shared.run(graph, "to_label", picture(1), seeds=(0,)))
        await asyncio.sleep(0.03)
        both = await asyncio.gather(first, shared.run(graph, "to_label", picture(2), seeds=(0,)))
        await asyncio.sleep(0.03)
        return [int(found[0]["label"][0, 0]) for found in both], gate._running._value

    assert asyncio.run(play()) == ([1, 2], 2)
    assert graph.runs == [2]


def test_nobody_waits_for_company_while_somebody_of_another_kind_waits_for_the_device():
    graph = Graph()
    graph.go.set()
    asked = time.monotonic()
    assert crowd(graph, [(1, SMALL, (0,)), (2, OTHER, (0,))], wait=1.5, before=0) == [[1], [2]]
    assert 1.4 < time.monotonic() - asked < 2.8, "the last is alone, and waits for company"


def test_who_goes_in_the_step_in_which_he_is_taken_along_is_not_waited_for():
    graph = Graph()

    async def play():
        gate = Gate(runs_at_once=1, batch=4, queue=9, timeout=10)
        shared = MicroBatches(gate, most=4, wait=0.05)
        tasks = [asyncio.create_task(shared.run(graph, "to_label", picture(value), seeds=(0,))) for value in (1, 2)]
        lead = shared._lead

        def lead_and_go(*given, **named):
            lead(*given, **named)
            for task in tasks:
                task.cancel()

        shared._lead = lead_and_go
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(end) for end in asyncio.run(play())] == [asyncio.CancelledError] * 2
    assert graph.broken_off.wait(2)


@pytest.mark.parametrize("runs_at_once", [1, 2])
@pytest.mark.parametrize("wait", [0, 0.02])
def test_after_a_storm_of_people_who_come_and_go_no_slot_is_lost_and_no_answer_was_anothers(runs_at_once, wait):
    graphs = [Graph(), Graph(), Graph(batches=False)]
    for graph in graphs:
        graph.go.set()
    drawn = random.Random(f"{runs_at_once} {wait}")

    async def play():
        gate = Gate(runs_at_once=runs_at_once, batch=4, queue=16, timeout=0.5)
        shared = MicroBatches(gate, most=4, wait=wait)
        answered = []

        async def visit():
            graph, value, seeds = drawn.choice(graphs), drawn.randrange(100), tuple(range(drawn.choice([1, 1, 1, 2, 5])))
            async with gate.admitted(), gate.in_time(), gate.turn():
                found = await shared.run(graph, "to_label", picture(value, drawn.choice([SMALL, OTHER])), seeds=seeds)
                answered.append([int(one["label"][0, 0]) for one in found] == [value + seed for seed in seeds])

        tasks = []
        for _ in range(200):
            tasks.append(asyncio.create_task(visit()))
            if drawn.random() < 0.5:
                asyncio.get_running_loop().call_later(drawn.expovariate(80), tasks[-1].cancel)
            if drawn.random() < 0.7:
                await asyncio.sleep(drawn.expovariate(250))
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.3)
        left = (gate.inside, gate.waiting, gate.queued, gate._running._value, gate._worked_on._value, shared._lines)
        return ends, answered, left

    ends, answered, left = asyncio.run(play())
    assert left == (0, 0, 0, runs_at_once, 4 * runs_at_once + 2, {})
    assert len(answered) > 20
    assert all(answered)
    assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError, Refusal}


def test_time_is_told_apart_by_what_it_was_spent_on():
    graph = Graph()
    graph.go.set()

    async def play():
        gate = Gate(runs_at_once=1, batch=4, queue=9, timeout=10)
        shared, traces = MicroBatches(gate, most=2, wait=0.1), [Trace() for _ in range(3)]

        async def one(trace):
            follow(trace)
            await shared.run(graph, "to_label", picture(1), seeds=(0,))

        begun = time.perf_counter()
        await asyncio.gather(*(one(trace) for trace in traces))
        return traces, time.perf_counter() - begun

    traces, elapsed = asyncio.run(play())
    assert graph.runs == [2, 1]
    assert all(set(trace.stages) == {"wait", "batch", "run"} for trace in traces)
    assert all(sum(trace.stages.values()) <= elapsed for trace in traces)
    assert traces[2].stages["batch"] >= 0.1, "nobody came to share the last run"
    assert traces[0].stages["batch"] < 0.1


@pytest.mark.slow
def test_strangers_who_share_a_run_get_the_bytes_that_each_gets_alone(tmp_path):
    write_slow_model(tmp_path / "models" / "slow", pytest.MonkeyPatch())
    photos = [file_of(np.roll(noise(90, 120), value, axis=1)) for value in range(8)]
    with running_server(tmp_path / "models", tmp_path, "--no-ui", FEWPAIR_BATCH="4", FEWPAIR_BATCH_WAIT="100") as server:

        def ask(photo):
            return httpx.post(f"{server.url}/segment", files={"image": photo}, timeout=60).raise_for_status().content

        def runs():
            told = httpx.get(f"{server.url}/metrics").text
            return [float(re.findall(rf"^fewpair_batch_size_{what} (\S+)", told, re.MULTILINE)[0]) for what in ("count", "sum")]

        alone = [ask(photo) for photo in photos]
        before = runs()
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, photos)) == alone
        count, pictures = (after - then for after, then in zip(runs(), before, strict=True))
    assert len(set(alone)) == 8
    assert pictures == 8
    assert count <= 4
