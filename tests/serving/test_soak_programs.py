"""The programs of the long proofs, for a few seconds each: what they write down makes sense, and what goes wrong is found."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import itertools
import json
import os
import re
import shutil
import socket
import struct
import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from benchmarks.soak import endure, fire, identical, load, report
from benchmarks.soak.actors import Soak, unpacked
from benchmarks.soak.alike import alike
from benchmarks.soak.deck import form, requests, same_to_both, varied
from benchmarks.soak.exchange import Address, Answered, ask
from benchmarks.soak.record import percentile, slope
from benchmarks.soak.samples import Sample, leaked, stretches, together
from benchmarks.soak.server import Metrics, batch_sizes, split_options, stage_means
from benchmarks.soak.shelves import GONE, Visitor
from serving.errors import Refusal
from serving.middleware import refuse
from tests.serving.factory import CLASSES, write_model
from tests.serving.pictures import file_of, noise, ramp, stripes
from tests.serving.slow import write_slow_model

PAGE = "# A page\n\n<!-- figures -->\n<!-- end of figures -->\n\nWords.\n"
OTHER_COLOURS = [{**row, "color": [255 - value for value in row["color"]]} for row in CLASSES]
OTHER_DOMAINS = {"photo": {"kind": "picture", "classes": None}, "label": {"kind": "classes", "classes": OTHER_COLOURS}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders of photos and label maps, as options of the programs."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, files in (("photos", (ramp(90, 120), noise(80, 100), ramp())), ("labels", (stripes(), stripes(60, 64)))):
        (folder / name).mkdir()
        for number, pixels in enumerate(files):
            (folder / name / f"{number}.png").write_bytes(file_of(pixels))
    return ["--photos", str(folder / "photos"), "--label-maps", str(folder / "labels")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models that colour label maps differently."""
    folder = tmp_path_factory.mktemp("soaked")
    write_model(folder / "one")
    write_model(folder / "two", domains=OTHER_DOMAINS)
    return folder


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def written(figures, tmp_path):
    """The results page that comes of a file of figures."""
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert report.main(["--into", str(page), str(figures)]) == 0
    told = page.read_text()
    assert told.startswith("# A page\n")
    for table in re.findall(r"(?:^\|.*\n)+", told, re.MULTILINE):
        assert len({line.count(" | ") for line in table.splitlines()}) == 1, "each row has a cell for each column"
    assert told.endswith("\nWords.\n")
    return told


class TestExchange:
    """Against sockets that behave as servers should not."""

    @staticmethod
    def meet(behave, *, size=10, deadline=10.0):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = Address("127.0.0.1", listening.getsockname()[1])

            async def both():
                serving = asyncio.create_task(asyncio.to_thread(TestExchange.serve, listening, behave))
                answered = await ask(address, form("large", "/segment", [("a.png", bytes(size))]), deadline=deadline)
                await serving
                return answered

            return asyncio.run(both())

    @staticmethod
    def serve(listening, behave):
        connection, _ = listening.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.recv(1000)
            behave(connection)

    def test_a_refusal_that_comes_before_the_body_is_sent_is_seen_though_the_server_closes(self):
        def refuse(connection):
            connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno")
            # and then closes with megabytes unread, which the sender is told by a reset

        answered = self.meet(refuse, size=30_000_000)
        assert (answered.status, answered.body, answered.trouble, answered.whole) == (503, b"no", None, False)
        assert answered.refused

    def test_what_is_no_answer_says_how_it_ended(self):
        def reset(connection):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def cut(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")

        assert self.meet(lambda connection: None).trouble == "closed before an answer"
        assert self.meet(reset).trouble == "ConnectionResetError before an answer"
        assert self.meet(cut).trouble == "closed within an answer of status 200"
        assert self.meet(lambda connection: time.sleep(0.5), deadline=0.2).trouble == "no answer within 0.2 s"

    def test_nobody_listening_is_said(self):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        assert asyncio.run(ask(Address("127.0.0.1", port), form("a", "/", []), deadline=5)).trouble == "connection refused"


class TestFigures:
    def test_percentiles_and_slopes_are_numpys(self):
        values = np.random.default_rng(0).normal(size=137)
        for share in (0.5, 0.95, 0.99):
            assert percentile(list(values), share) == np.percentile(values, 100 * share, method="inverted_cdf")
        minutes = np.arange(137) / 12
        assert slope(list(zip(minutes, values, strict=True))) == pytest.approx(np.polyfit(minutes, values, 1)[0])

    def test_differences_of_metrics_are_means_of_stages_and_sizes_of_runs(self):
        def look(runs, seconds):
            sizes = "".join(f'fewpair_batch_size_bucket{{le="{le}"}} {count}\n' for le, count in runs.items())
            total, pictures = runs["+Inf"], sum(seconds)
            return Metrics(
                f"# TYPE fewpair_batch_size histogram\n{sizes}fewpair_batch_size_count {total}\nfewpair_batch_size_sum {pictures}\n"
                "# TYPE fewpair_stage_seconds histogram\n"
                + "".join(
                    f'fewpair_stage_seconds_count{{endpoint="{one}",stage="run"}} {count}\n'
                    f'fewpair_stage_seconds_sum{{endpoint="{one}",stage="run"}} {count * 0.5}\n'
                    for one, count in zip("ab", seconds, strict=True)
                )
            )

        before, after = look({"1.0": 1, "2.0": 1, "+Inf": 1}, (1, 0)), look({"1.0": 3, "2.0": 7, "+Inf": 7}, (5, 6))
        assert batch_sizes(before, after) == {"1": 2, "2": 4, "mean": round(10 / 6, 3)}
        assert stage_means(before, after) == {"run": 500}

    def test_a_process_that_grows_is_found_and_its_beginning_does_not_count(self):
        def life(pid, since, grows):
            moments = range(since, 1200, 5)
            return [Sample(s, pid, "worker", 500 + (300 if s < since + 60 else 0) + grows * s / 60, 400, 300, 30, False) for s in moments]

        samples = life(1, 0, 0.0) + life(2, 0, 2.5) + life(3, 600, 0.5)
        found = {row["pid"]: row for row in stretches(samples, after=300, warm_up=60, until=1200)}
        for slopes in ("rss_mb_a_minute", "floor_mb_a_minute"):
            assert {pid: row[slopes] for pid, row in found.items()} == {1: 0, 2: pytest.approx(2.5), 3: pytest.approx(0.5)}
        assert (found[1]["from_s"], found[3]["from_s"]) == (300, 660)
        growing = [Sample(s, 1, "worker", 0, 100 + 2 * s / 60, 0, 0, False) for s in range(0, 1201, 5)]
        assert together(growing, after=300, until=1200)["mb_a_minute"] == pytest.approx(2, rel=0.02)
        quiet = [Sample(s, 1, "worker", 0, 0, 0, files, True) for s, files in ((300, 30), (1200, 33))]
        assert leaked(samples + quiet) == {1: 3}

    def test_options_of_the_server_without_a_flag_become_variables(self):
        switches, variables = split_options(["--no-ui", "--queue", "16", "--batch-wait=5", "--workers", "2"])
        assert switches == ["--no-ui"]
        assert variables == {"FEWPAIR_QUEUE": "16", "FEWPAIR_BATCH_WAIT": "5", "FEWPAIR_WORKERS": "2"}
        with pytest.raises(SystemExit, match="stray"):
            split_options(["stray"])

    def test_a_page_without_the_marks_is_left_alone(self, tmp_path):
        (tmp_path / "page.md").write_text("words")
        (tmp_path / "figures.jsonl").write_text("")
        assert report.main(["--into", str(tmp_path / "page.md"), str(tmp_path / "figures.jsonl")]) == 2
        assert (tmp_path / "page.md").read_text() == "words"


class TestSoaksEyes:
    """That a soak finds what it looks for."""

    @pytest.fixture
    def soak(self):
        return Soak(SimpleNamespace(url="http://127.0.0.1:1"), 5, lambda event, **values: None)

    def test_only_what_was_under_way_when_a_worker_was_killed_is_excused(self, soak):
        soak.kills.append((100.0, 100.01))
        broken = "closed before an answer"
        assert soak.excused(Answered(99, 100.2, trouble=broken))
        assert not soak.excused(Answered(99, 99.9, trouble=broken)), "it broke before the kill"
        assert not soak.excused(Answered(100.5, 100.6, trouble=broken)), "it began after the kill"
        assert not soak.excused(Answered(99, 140, trouble=broken)), "it broke long after the kill"
        assert not soak.excused(Answered(99, 100.2, trouble="no answer within 1 s")), "a hang is a hang"
        assert not soak.excused(Answered(99, 100.2, status=500)), "an answer is no broken connection"

    def test_an_answer_that_is_lost_or_differs_is_a_fault(self, soak):
        asyncio.run(soak.ask(form("lost", "/segment", []), who="a client"))
        assert soak.faults == ["a client, lost: connection refused after 0.0 s"]
        soak.compare("same", Answered(0, 1, 200, body=b"a"), who="a client")
        soak.compare("same", Answered(0, 1, 200, body=b"a"), who="a client")
        assert len(soak.faults) == 1
        soak.compare("same", Answered(0, 1, 200, body=b"b"), who="a client")
        soak.compare("new", Answered(0, 1, 500, body=b"oh"), who="a client")
        assert len(soak.faults) == 3
        assert soak.counts["different answers"] == 1
        assert unpacked(b"no ZIP") is None

    def test_a_visitor_answers_from_what_it_was_while_it_was_asked_and_from_nothing_else(self, models, tmp_path):
        copies = tmp_path / "models"
        shutil.copytree(models, copies)
        visitor = Visitor(copies, [copies / "one", copies / "two"], b"")
        visitor.answers = {("one", "map"): b"1", ("two", "map"): b"2"}

        def asked(status, body, began=None):
            now = time.monotonic()
            return Answered(began or now, now, status, body=body)

        assert visitor.why_wrong("map", asked(404, b"")) is None
        assert "could be" in visitor.why_wrong("map", asked(200, b"1"))
        change = visitor.change(0)
        assert change.contents == {"one"}
        assert json.loads((copies / "visitor" / "manifest.json").read_text())["name"] == "visitor"
        assert visitor.why_wrong("map", asked(404, b"")) is None, "not every worker has followed"
        assert visitor.why_wrong("map", asked(200, b"1")) is None
        visitor.settled(change)
        settled = time.monotonic()
        time.sleep(0.01)
        assert visitor.why_wrong("map", asked(200, b"2")) is not None
        assert visitor.why_wrong("map", asked(404, b"")) is not None
        assert visitor.why_wrong("map", asked(404, b"", began=settled - 1)) is None, "it was asked before"
        for turn in range(1, 7):
            change = visitor.change(turn)
            visitor.settled(change)
        assert change.contents == {GONE}
        assert sorted(path.name for path in copies.iterdir()) == ["one", "two"]

    def test_the_deck_has_every_output_format_and_face_and_no_name_twice(self, pictures):
        card = {"name": "one", "directions": ["to_label", "to_photo"], "label_kind": "classes", "confidence": True, "seeded": True}
        folders = [sorted(endure.Path(pictures[place]).iterdir()) for place in (1, 3)]
        deck = varied([card, {**card, "name": "two", "seeded": False}], *folders)
        assert len({asked.name for asked in deck}) == len(deck)
        assert len(same_to_both(deck)) == 2 * 9 + 1  # six outputs, three formats, and the one model's three photos
        assert len({asked.path.partition("?")[0] for asked in requests("mix", *folders, model=None)}) == 2


@pytest.mark.slow
def test_load_measures_closed_loops_and_a_crowd_and_holds_them_against_the_bound(pictures, tmp_path):
    write_slow_model(tmp_path / "models" / "slow", pytest.MonkeyPatch())
    figures = tmp_path / "figures.jsonl"
    options = ["--endpoint", "segment", "--clients", "1", "4", "--seconds", "1.5", "--warm-up", "0.3", "--overload-seconds", "2"]
    server = ["--", "--no-ui", "--threads", "1", "--queue", "3", "--queue-wait", "700"]
    code = load.main(["--models", str(tmp_path / "models"), *pictures, *options, "--figures", str(figures), *server])
    lines = lines_of(figures)
    assert [line["figure"] for line in lines] == ["closed loop", "closed loop", "overload", "verdict"]
    for line in lines[:2]:
        assert line["answers"] > 0
        assert line["failed"] == {}
        assert 0 < line["p50_ms"] <= line["p95_ms"] <= line["p99_ms"]
        assert line["stage_ms"]["run"] > 0
        assert line["batch_sizes"]["mean"] >= 1
        assert (line["workers"], line["queue"], line["queue_wait"]) == ("1", "3", "700")
        assert line["machine"]["cores"] == len(os.sched_getaffinity(0))
    crowd = lines[2]
    assert crowd["failed"] == {}
    assert set(crowd["statuses"]) <= {"200", "503"}
    assert sum(crowd["statuses"].values()) == crowd["requests"] == crowd["answers"] + crowd["refused"]
    assert crowd["refused"] > crowd["answers"] > 0
    held = {promise["promise"]: promise["held"] for promise in lines[3]["promises"]}
    assert crowd["most_inside"] <= crowd["room"]
    assert held["no more are inside than the gates admit"] is (crowd["most_inside"] > 0), "where nobody was seen, nothing was shown"
    assert crowd["bound_ms"] == pytest.approx(3 * crowd["unloaded_p99_ms"] + 700, abs=0.1)
    assert crowd["bound_by_room_ms"] == pytest.approx(3 * crowd["unloaded_p99_ms"] + 1000 * crowd["room"] / crowd["capacity"], abs=0.1)
    assert code == int(not all(promise["held"] for promise in lines[3]["promises"]))
    told = written(figures, tmp_path)
    assert f"| {crowd['bound_ms']} (unloaded p99: {crowd['unloaded_p99_ms']}) |" in told
    assert "python -m benchmarks.soak.load --models .../models" in told


@pytest.mark.slow
def test_a_soak_sees_reloads_kills_jobs_and_bad_uploads_and_finds_nothing_wrong(models, pictures, tmp_path):
    figures = tmp_path / "figures.jsonl"
    pace = ["--reload-every", "1", "--kill-every", "4", "--job-every", "2", "--sample-every", "1", "--life-warm-up", "1"]
    minutes = ["--minutes", "0.2", "--warm-up", "0.05", "--least-minutes", "0.05", "--clients", "2", "--deadline", "60", "--settle", "0.5"]
    endure.main(["--models", str(models), *pictures, "--out", str(tmp_path / "out"), *pace, *minutes, "--figures", str(figures)])
    (soak,) = lines_of(figures)
    assert soak["faults"] == []
    counts = soak["counts"]
    assert counts["answers compared"] > 50
    assert counts["bad uploads: requests"] > 10
    assert min(counts[what] for what in ("kills", "reloads", "jobs compared", "visitor's answers compared")) >= 1
    held = {promise["promise"]: promise["held"] for promise in soak["promises"]}
    assert held["nothing is lost, and nothing else goes wrong"]
    assert held["the server stopped in order"]
    assert held["no temporary files are left"]
    rows = list(csv.DictReader((tmp_path / "out" / "samples.csv").read_text().splitlines()))
    assert {row["role"] for row in rows} >= {"launcher", "worker"}
    assert all(float(row["rss"]) >= float(row["pss"]) >= float(row["uss"]) > 0 for row in rows)
    assert {"reload", "kill", "job"} <= {json.loads(line)["event"] for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()}
    assert "| nothing is lost, and nothing else goes wrong | yes | 0 faults" in written(figures, tmp_path)


@pytest.mark.slow
def test_answers_are_identical_alone_among_strangers_from_both_workers_and_after_a_restart(pictures, tmp_path):
    models, figures = tmp_path / "models", tmp_path / "figures.jsonl"
    write_model(models / "one")
    options = ["--rounds", "1", "--strangers", "3", "--other-threads", "0", "--pictures", "2", "--figures", str(figures)]
    assert identical.main(["--models", str(models), *pictures, *options]) == 0
    lines = {line["figure"]: line for line in lines_of(figures)}
    assert list(lines) == ["both faces", "alone again", "among strangers", "from two workers", "after a restart", "verdict"]
    compared = [line for line in lines.values() if "compared" in line]
    assert all(line["different"] == 0 and line["compared"] >= line["requests"] > 0 for line in compared)
    assert len(lines["from two workers"]["answers_by_worker"]) == 2
    assert "| from two workers | " in written(figures, tmp_path)


@pytest.mark.slow
def test_a_corpus_is_fired_at_a_server_of_its_own_and_its_memory_is_watched(models, tmp_path):
    figures = tmp_path / "figures.jsonl"
    fire.main(["--models", str(models), "--count", "25", "--clients", "2", "--figures", str(figures), "--", "--no-ui"])
    (fired,) = lines_of(figures)
    assert fired["broken"] == {}
    assert sum(fired["statuses"].values()) == fired["uploads"] == 25
    assert len(fired["weights_mb"]) >= 10
    assert all(mb > 50 for _, mb in fired["weights_mb"])
    assert "25, seeds from 0, 2 at a time" in written(figures, tmp_path)


def refusing(times):
    """A server that is full so often for each of its clients, and then finds every upload wrong."""
    asked = itertools.count()

    async def answer(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        full = next(asked) % (times + 1) < times
        refusal = Refusal(503 if full else 400, "full" if full else "wrong", "no.", headers={"Retry-After": "0"} if full else {})
        await refuse(refusal, scope=scope, receive=receive, send=send)

    return httpx.ASGITransport(answer)


@pytest.mark.parametrize(("times", "statuses", "broken"), [(2, {400: 3}, 0), (10**9, {503: 3}, 3)])
def test_an_upload_that_a_full_server_refuses_is_sent_again_and_never_counts_as_tried(monkeypatch, times, statuses, broken):
    client = httpx.AsyncClient
    monkeypatch.setattr(fire.httpx, "AsyncClient", lambda **options: client(**options, transport=refusing(times)))
    fired = asyncio.run(fire.fire("http://here", count=3, clients=1, deadline=0.2))
    assert (fired.statuses, len(fired.broken)) == (statuses, broken)
    assert fired.refusals >= 2 * 3


def test_memory_is_compared_at_equal_shelves_and_requests_under_way_do_not_count():
    def held(minute, megabytes, pid="1", role="worker"):
        return {"seconds": f"{60 * minute}", "pid": pid, "role": role, "rss": f"{megabytes}"}

    changes = ["added", "removed"] * 4
    events = [{"event": "reload", "seconds": 120 * number, "took": 1, "change": change} for number, change in enumerate(changes)]
    samples = []
    for number, change in enumerate(changes):
        shelf = 300 if change == "added" else 200
        for part, passing in ((0.2, 90), (0.6, 0), (1.0, 40), (1.4, 70)):
            at = 2 * number + part
            samples += [held(at, shelf + 3 * at + passing), held(at, 50, "9", "launcher")]
    samples[1:1] = [held(0.2, 999, "2")]  # a worker that was killed
    found = {one["after"]: one for one in alike(samples, events, after=0)}
    assert {change: one["mb_a_minute"] for change, one in found.items()} == {"added": 3, "removed": 3}
    assert found["removed"]["least_mb"] == [200 + 3 * at for at in (2.6, 6.6, 10.6, 14.6)]
    warm = {one["after"]: len(one["least_mb"]) for one in alike(samples, events, after=300)}
    assert warm == {"removed": 3, "added": 2}, "a stretch that lies in the warm-up does not count"
