"""Jobs in a folder: what outlives a server, what is given up, what is removed, and what happens without room."""

import asyncio
import contextlib
import gc
import io
import sqlite3
import time
import zipfile

import httpx
import pytest
from starlette.requests import Request

from serving.api.jobs import submitted
from serving.errors import Refusal, ServingError
from serving.inference.archive import Entry
from serving.jobs.runner import Jobs
from serving.jobs.store import Input, Store, Task, try_lock
from tests.serving.backends import backend_of
from tests.serving.factory import write_blurring_model, write_model
from tests.serving.pictures import file_of, noise, ramp

INPUTS = [Input(0, "a.png", "000000", None), Input(1, "b.png", "000001", None)]
ROOM = {"size": 10, "queue": 2, "bytes_in_all": 100}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "jobs.db")
    store.reserve("one", **ROOM)
    store.add(Task("one", "segment", {}), INPUTS, size=10)
    return store


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "tiny")
    write_blurring_model(folder / "blurring", side=16)
    return folder


def jobs_of(models, folder, **chosen):
    backend = backend_of(models, default_model="tiny", **chosen)
    return Jobs(folder, backend.settings, backend)


def request(*pictures, chunked=False, **fields):
    """A POST /v1/jobs as the server hands it on."""
    files = [("image", (f"{number}.png", picture)) for number, picture in enumerate(pictures)]
    form = httpx.Request("POST", "http://here", files=files, data=fields)
    messages = iter([{"type": "http.request", "body": form.read()}])

    async def receive():
        return next(messages)

    headers = [(name.lower(), value) for name, value in form.headers.raw if not (chunked and name == b"Content-Length")]
    return Request({"type": "http", "method": "POST", "headers": headers, "query_string": b""}, receive)


async def until(jobs, id, reached):
    async with asyncio.timeout(60):
        while not reached(status := await jobs.find(id)):
            await asyncio.sleep(0.01)
    return status


def test_the_oldest_job_is_taken_first_and_each_once(store):
    store.reserve("two", **ROOM)
    assert store.find("two") is None, "it is still being sent"
    store.add(Task("two", "segment", {}), INPUTS, size=10)
    assert [store.take().id for _ in range(2)] == ["one", "two"]
    assert store.take() is None


def test_servers_that_end_are_counted_as_attempts_and_an_orderly_stop_is_none(store):
    for _ in range(5):
        store.take()
        assert store.next_input("one").attempts == 1
        store.release("one")
    for attempt in (1, 2, 3):
        store.take()
        assert store.next_input("one").attempts == attempt
        store.requeue()


def test_a_picture_that_ended_three_servers_is_given_up(models, tmp_path):
    async def given_up():
        jobs = jobs_of(models, tmp_path)
        id = (await submitted(request(file_of(ramp()), file_of(noise()), operation="segment"), jobs)).id
        for _ in range(3):
            jobs._store.take()
            jobs._store.next_input(id)
            jobs._store.requeue()
        async with jobs.working():
            return await until(jobs, id, lambda status: status.finished is not None)

    status = asyncio.run(given_up())
    assert (status.state, status.pictures.done) == ("done", 1)
    assert [(one.name, one.error.code) for one in status.failures] == [("0.png", "gave_up")]


def test_more_jobs_or_bytes_than_allowed_are_refused_uploads_under_way_included(store):
    store.reserve("two", size=80, queue=2, bytes_in_all=100)
    with pytest.raises(Refusal) as many:
        store.reserve("three", size=1, queue=2, bytes_in_all=100)
    assert (many.value.status, many.value.headers["Retry-After"]) == (429, "60")
    with pytest.raises(Refusal) as full:
        store.reserve("three", size=11, queue=3, bytes_in_all=100)
    assert (full.value.status, full.value.code) == (507, "jobs_full")
    store.remove("two")
    store.reserve("three", size=90, queue=2, bytes_in_all=100)
    store.keep("one", 0, Entry("a.png"), seconds=1, size=5)  # of a job that does not run
    store.refuse_over(100)
    store.take()
    store.keep("one", 0, Entry("a.png"), seconds=1, size=5)
    with pytest.raises(Refusal, match="the jobs use"):
        store.refuse_over(100)


def test_a_job_whose_parameters_this_version_does_not_know_fails_and_the_next_one_runs(models, tmp_path):
    async def ended():
        jobs = jobs_of(models, tmp_path)
        first, second = [(await submitted(request(file_of(ramp()), operation="segment"), jobs)).id for _ in range(2)]
        jobs._store._execute("UPDATE jobs SET options = ? WHERE id = ?", '{"later": "1"}', first)
        async with jobs.working():
            await until(jobs, second, lambda status: status.ended)
        return await jobs.find(first), await jobs.find(second)

    first, second = asyncio.run(ended())
    assert (first.state, first.error.code, second.state) == ("failed", "unknown_field", "done")


def test_the_folder_has_one_lock_which_a_dead_process_does_not_keep(tmp_path):
    with try_lock(tmp_path):
        assert try_lock(tmp_path) is None
    with try_lock(tmp_path) as again:
        assert again is not None


def test_a_job_continues_where_a_stopped_server_left_it(models, tmp_path):
    async def stopped_and_started():
        first = jobs_of(models, tmp_path / "jobs")
        large = file_of(noise(300, 400))
        sent = request(file_of(ramp()), large, operation="segment", model="blurring", tiles="always", output="ids")
        async with first.working():
            id = (await submitted(sent, first)).id
            status = await until(
                first, id, lambda status: status.pictures.done == 1 and status.tiles and status.tiles.done
            )
            assert status.seconds_left is not None
        assert (await first.find(id)).state == "queued"
        answer = tmp_path / "jobs" / id / "out" / "000000-00.png"
        written = answer.stat().st_mtime_ns
        second = jobs_of(models, tmp_path / "jobs")
        async with second.working():
            await until(second, id, lambda status: status.pictures.done == 1 and status.tiles and status.tiles.done)
            assert answer.stat().st_mtime_ns == written, "it is not done again"
            status = await until(second, id, lambda status: status.finished is not None)
            return status, (await second.result(id)).read_bytes()

    status, result = asyncio.run(stopped_and_started())
    assert (status.state, status.pictures.done, status.pictures.failed) == ("done", 2, 0)
    with zipfile.ZipFile(io.BytesIO(result)) as archive:
        assert archive.namelist() == ["0.png", "1.png", "index.json"]
        assert archive.testzip() is None


def test_a_job_whose_model_is_gone_fails_with_the_reason(models, tmp_path):
    async def gone():
        jobs = jobs_of(models, tmp_path)
        id = (await submitted(request(file_of(ramp()), operation="segment", model="blurring"), jobs)).id
        others = write_model(tmp_path / "other-models" / "tiny").parent
        after = jobs_of(others, tmp_path)
        async with after.working():
            status = await until(after, id, lambda status: status.finished is not None)
        with pytest.raises(Refusal, match="no model called 'blurring'"):
            await after.result(id)
        return status

    status = asyncio.run(gone())
    assert (status.state, status.error.code) == ("failed", "unknown_model")


def test_a_job_whose_end_cannot_be_written_is_tried_again(models, tmp_path, caplog):
    async def finished():
        jobs = jobs_of(models, tmp_path)
        finish, failures = jobs._store.finish, [sqlite3.OperationalError("database is locked")]

        def sometimes(*arguments, **named):
            if failures:
                raise failures.pop()
            finish(*arguments, **named)

        jobs._store.finish = sometimes
        async with jobs.working():
            id = (await submitted(request(file_of(ramp()), operation="segment"), jobs)).id
            return await until(jobs, id, lambda status: status.finished is not None)

    assert asyncio.run(finished()).state == "done"
    assert "the work on jobs was interrupted" in caplog.text


def test_old_jobs_and_uploads_that_never_ended_are_removed(models, tmp_path, monkeypatch):
    async def removed():
        jobs = jobs_of(models, tmp_path, jobs_hours=1)
        jobs._store.reserve("never-ended", size=1, queue=9, bytes_in_all=99)
        (tmp_path / "never-ended").mkdir()
        async with jobs.working():
            id = (await submitted(request(file_of(ramp()), operation="segment"), jobs)).id
            await until(jobs, id, lambda status: status.finished is not None)
        now = time.time()
        monkeypatch.setattr("serving.jobs.runner.time.time", lambda: now + 8000)
        jobs._remove_expired()
        with pytest.raises(Refusal, match="there is no job"):
            await jobs.find(id)

    asyncio.run(removed())
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_full_disk_is_a_507_with_a_sentence(tmp_path):
    store = Store(tmp_path / "jobs.db")
    (pages,) = store._execute("PRAGMA page_count")[0]
    store._execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Refusal) as full:
        store.reserve("x" * 100_000, **ROOM)
    assert (full.value.status, full.value.code) == (507, "disk_full")
    assert store.ids() == [], "and the table goes on"


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_without_room_is_refused_before_it_is_read(models, tmp_path, chunked):
    jobs = jobs_of(models, tmp_path, jobs_max_bytes_in_all=5000, jobs_max_bytes=6000)
    with pytest.raises(Refusal) as full:
        asyncio.run(submitted(request(bytes(5500), chunked=chunked, operation="segment"), jobs))
    assert full.value.code == "jobs_full"
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_folder_that_cannot_be_used_is_named(models, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ServingError, match="file/jobs cannot be used"):
        jobs_of(models, tmp_path / "file" / "jobs")


def test_a_sender_who_leaves_before_the_answer_leaves_no_job(models, tmp_path):
    async def gone():
        jobs = jobs_of(models, tmp_path)
        sending = asyncio.create_task(submitted(request(file_of(ramp()), operation="segment"), jobs))
        while not list(tmp_path.glob("*/in/*")):
            await asyncio.sleep(0)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        assert sending.cancelled()
        await asyncio.sleep(0.2)
        return await jobs.all()

    assert asyncio.run(gone()) == []
    gc.collect()  # a file left open is a warning, which fails the test
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
