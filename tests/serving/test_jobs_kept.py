"""Jobs in a folder: what outlives a server, what is given up, what is cleaned away, and when there is no room."""

import asyncio
import contextlib
import io
import time
import zipfile

import pytest
from starlette.requests import Request

from serving import jobfiles, jobstore
from serving.errors import Refusal, ServingError
from serving.jobs import Jobs
from serving.jobstore import Kept, NotMine, Sent, Store, Task
from serving.operations import Operations
from serving.settings import Settings
from serving.shelf import fill
from tests.serving.factory import write_blurring_model, write_model
from tests.serving.pictures import file_of, noise, ramp

JOB = Task("one", "segment", {})
PICTURES = [Sent(0, "a.png", "000000", None), Sent(1, "b.png", "000001", None)]
ROOM = {"size": 10, "queue": 2, "bytes_in_all": 100}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "jobs.sqlite3")
    store.add(JOB, PICTURES, **ROOM)
    return store


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "tiny")
    write_blurring_model(folder / "blurring", side=16)
    return folder


def jobs_of(models, folder, **chosen):
    settings = Settings(models=models, device="cpu", threads=1, default_model="tiny", **chosen)
    operations = Operations(fill(settings), settings)
    return Jobs(folder, settings, lambda: operations)


def request(*pictures, **fields):
    """A POST /v1/jobs as the server hands it on."""
    parts = [f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts += [
        f'--x\r\nContent-Disposition: form-data; name="image"; filename="{number}.png"\r\n\r\n'.encode() + picture
        for number, picture in enumerate(pictures)
    ]
    body = b"\r\n".join([*parts, b"--x--\r\n"])
    messages = iter([{"type": "http.request", "body": body[:1000], "more_body": True}, {"type": "http.request", "body": body[1000:]}])

    async def receive():
        return next(messages)

    headers = [(b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", str(len(body)).encode())]
    return Request({"type": "http", "method": "POST", "headers": headers, "query_string": b""}, receive)


async def until(jobs, id, reached):
    async with asyncio.timeout(60):
        while not reached(told := await jobs.find(id)):
            await asyncio.sleep(0.01)
    return told


def test_one_worker_of_two_gets_a_job_and_the_oldest_first(store):
    store.add(Task("two", "segment", {}), PICTURES, **ROOM)
    assert [store.claim(worker).id for worker in ("first", "second")] == ["one", "two"]
    assert store.claim("third") is None


def test_a_job_whose_worker_gives_no_sign_of_life_is_another_s_and_no_longer_its_own(store, monkeypatch):
    store.claim("first")
    picture = store.next_picture("one", "first")
    now = time.time()
    monkeypatch.setattr(jobstore.time, "time", lambda: now + jobstore.LEASE - 1)
    store.give_sign("first")
    monkeypatch.setattr(jobstore.time, "time", lambda: now + 2 * jobstore.LEASE - 2)
    assert store.claim("second") is None
    monkeypatch.setattr(jobstore.time, "time", lambda: now + 2 * jobstore.LEASE)
    assert store.claim("second") == JOB
    with pytest.raises(NotMine):
        store.keep("one", "first", picture.number, Kept("a.png", (), None), seconds=1, size=1)


def test_a_picture_that_ends_three_workers_is_given_up_and_the_next_is_done(store):
    for attempt in range(3):
        store.claim(f"worker {attempt}")
        assert store.next_picture("one", f"worker {attempt}").number == 0
        store.give_back(f"worker {attempt}")
    store.claim("last")
    assert store.next_picture("one", "last").number == 1
    assert [one.error["code"] for one in store.find("one").failures] == ["gave_up"]


def test_a_worker_that_stops_in_good_order_was_no_attempt(store):
    for _ in range(5):
        store.claim("worker")
        assert store.next_picture("one", "worker").number == 0
        store.put_off("one", "worker")
        store.give_back("worker")


def test_more_jobs_than_may_wait_and_more_bytes_than_may_be_kept_are_refused(store):
    with pytest.raises(Refusal) as full:
        store.add(Task("two", "segment", {}), PICTURES, size=91, queue=2, bytes_in_all=100)
    assert (full.value.status, full.value.code) == (507, "jobs_full")
    with pytest.raises(Refusal) as many:
        store.check_room(size=1, queue=1, bytes_in_all=100)
    assert (many.value.status, many.value.headers["Retry-After"]) == (429, "60")


def test_the_time_left_goes_by_the_pictures_and_the_tiles_done(store, monkeypatch):
    now = time.time()
    monkeypatch.setattr(jobstore.time, "time", lambda: now)
    store.claim("worker")
    assert store.find("one").seconds_left is None
    store.next_picture("one", "worker")
    store.keep("one", "worker", 0, Kept("a.png", (), None), seconds=8, size=1)
    store.next_picture("one", "worker")
    assert store.find("one").seconds_left == pytest.approx(8)
    monkeypatch.setattr(jobstore.time, "time", lambda: now + 3)
    store.progress("one", "worker", done=1, tiles=4)
    assert store.find("one").seconds_left == pytest.approx(9)


def test_a_job_goes_on_where_a_server_that_was_stopped_left_it(models, tmp_path):
    async def stopped_and_started():
        first = jobs_of(models, tmp_path / "jobs")
        large = file_of(noise(300, 400))
        sent = request(file_of(ramp()), large, operation="segment", model="blurring", tiles="always", output="ids")
        async with first.working():
            id = (await first.submit(sent)).id
            await until(first, id, lambda told: told.done == 1 and told.tiles_done)
        assert (await first.find(id)).state == "queued"
        finished = (tmp_path / "jobs" / id / "out" / "000000-00.png").stat()
        second = jobs_of(models, tmp_path / "jobs")
        assert (tmp_path / "jobs" / id / "out" / "000000-00.png").stat().st_mtime_ns == finished.st_mtime_ns
        async with second.working():
            told = await until(second, id, lambda told: told.finished is not None)
            return told, (await second.result(id)).read_bytes()

    told, result = asyncio.run(stopped_and_started())
    assert (told.state, told.done, told.failed) == ("done", 2, 0)
    with zipfile.ZipFile(io.BytesIO(result)) as archive:
        assert archive.namelist() == ["0.png", "1.png", "index.json"]
        assert archive.testzip() is None


def test_a_job_whose_model_is_gone_fails_with_the_reason(models, tmp_path):
    async def gone():
        jobs = jobs_of(models, tmp_path)
        id = (await jobs.submit(request(file_of(ramp()), operation="segment", model="blurring"))).id
        others = write_model(tmp_path / "other-models" / "tiny").parent
        after = jobs_of(others, tmp_path)
        async with after.working():
            told = await until(after, id, lambda told: told.finished is not None)
        with pytest.raises(Refusal, match="no model called 'blurring'"):
            await after.result(id)
        return told

    told = asyncio.run(gone())
    assert (told.state, told.error["code"]) == ("failed", "unknown_model")


def test_old_jobs_and_uploads_that_never_ended_are_removed(models, tmp_path, monkeypatch):
    async def swept():
        jobs = jobs_of(models, tmp_path, jobs_hours=1)
        (tmp_path / "never-ended").mkdir()
        async with jobs.working():
            id = (await jobs.submit(request(file_of(ramp()), operation="segment"))).id
            await until(jobs, id, lambda told: told.finished is not None)
        now = time.time()
        monkeypatch.setattr("serving.jobs.time.time", lambda: now + 8000)
        (tmp_path / "other").mkdir()
        jobs._clean()
        with pytest.raises(Refusal, match="there is no job"):
            await jobs.find(id)
        return id

    asyncio.run(swept())
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_full_disk_is_a_507_with_a_sentence(tmp_path):
    with pytest.raises(Refusal) as full, contextlib.closing(open("/dev/full", "wb", buffering=0)) as file:  # noqa: PTH123
        jobfiles.on_disk(lambda: file.write(b"x"))
    assert (full.value.status, full.value.code) == (507, "disk_full")
    assert full.value.message == "the disk that the jobs are kept on is full."
    store = Store(tmp_path / "jobs.sqlite3")
    with pytest.raises(Refusal) as full:
        fill_up(store)
    assert full.value.code == "disk_full"


def fill_up(store):
    """SQLite's own word for a disk without room, without one."""
    with store._open(write=True) as database:
        database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
        row = ("x" * 100_000,)
        database.execute("INSERT INTO jobs (id, operation, options, state, bytes, created) VALUES ('a', '', ?, '', 0, 0)", row)


def test_an_upload_that_is_larger_than_the_room_left_is_refused_before_it_is_read(models, tmp_path):
    jobs = jobs_of(models, tmp_path, jobs_max_bytes_in_all=5000)
    with pytest.raises(Refusal) as full:
        asyncio.run(jobs.submit(request(bytes(6000), operation="segment")))
    assert full.value.code == "jobs_full"
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_folder_that_cannot_be_used_is_named(models, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ServingError, match="file/jobs cannot be used"):
        jobs_of(models, tmp_path / "file" / "jobs")


def test_a_sender_who_leaves_before_the_answer_leaves_no_job(models, tmp_path):
    async def gone():
        jobs = jobs_of(models, tmp_path)
        added, really_added = asyncio.Event(), jobs._add
        loop = asyncio.get_running_loop()

        def slowly(*sent):
            loop.call_soon_threadsafe(added.set)
            time.sleep(0.1)
            really_added(*sent)

        jobs._add = slowly
        sending = asyncio.create_task(jobs.submit(request(file_of(ramp()), operation="segment")))
        await added.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        return await jobs.all()

    assert asyncio.run(gone()) == []
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
