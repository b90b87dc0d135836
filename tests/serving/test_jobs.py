"""Jobs over HTTP on a real server of two workers: sent, followed, fetched, cancelled, and taken up again after a SIGKILL."""

import asyncio
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
import zipfile

import httpx
import pytest

from serving.client import AsyncClient, Client
from serving.errors import Refusal
from tests.serving.factory import write_blurring_model, write_model
from tests.serving.pictures import file_of, noise, ramp, stripes
from tests.serving.process import ROOT, running_server
from tests.serving.test_server import error_of

TOKEN = "for-the-operator"
LONG = {"model": "blurring", "tiles": "always", "output": "ids"}  # thousands of tiles of 24x24: a matter of seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def server(folder):
    write_model(folder / "models" / "tiny")
    write_blurring_model(folder / "models" / "blurring", side=24)
    limits = {
        "FEWPAIR_JOBS": str(folder / "kept"),
        "FEWPAIR_JOBS_QUEUE": "3",
        "FEWPAIR_JOBS_MAX_BYTES": "20000000",
        "FEWPAIR_JOBS_MAX_BYTES_IN_ALL": "40000000",
        "FEWPAIR_JOBS_MAX_PICTURES": "8",
        "FEWPAIR_JOBS_MAX_PIXELS": "6000000",
        "FEWPAIR_MAX_BYTES": "1048576",
        "FEWPAIR_MAX_PIXELS": "1000000",
        "FEWPAIR_ADMIN_TOKEN": TOKEN,
    }
    with running_server(folder / "models", folder / "server", "--no-ui", "--workers", "2", "--default-model", "tiny", **limits) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def client(server):
    with Client(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def large():
    """1.1 megapixels, and over the limit of a request in bytes and in pixels."""
    return file_of(noise(1000, 1100))


def submit(http, *files, **fields):
    sent = [("image", file if isinstance(file, tuple) else (f"{number}.png", file)) for number, file in enumerate(files)]
    return http.post("/v1/jobs", files=sent, data={"operation": "segment", **fields})


def until(http, id, reached, *, seconds=90):
    end = time.monotonic() + seconds
    while not reached(job := http.get(f"/v1/jobs/{id}").json()):
        assert time.monotonic() < end, job
        time.sleep(0.05)
    return job


def ended(job):
    return job["state"] in ("done", "failed", "cancelled")


def in_its_tiles(job):
    return job["state"] == "running" and job["tiles"] is not None and job["tiles"]["done"] > 0


def zip_of(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return packed.getvalue()


def rows(folder, query):
    with sqlite3.connect(folder / "kept" / "jobs.sqlite3") as database:
        return database.execute(query).fetchall()


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="the README speaks to a shell with curl")
def test_what_the_readme_says_of_jobs_works_as_it_is_printed(http, server, tmp_path):
    lines = [line.strip() for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if re.match(" {4}.*JOB", line)]
    assert len(lines) == 5
    (tmp_path / "photos.zip").write_bytes(zip_of({"a.png": file_of(ramp()), "b.png": file_of(noise())}))
    script = "\n".join(lines).replace("http://127.0.0.1:3000", server.url)
    ended = subprocess.run(["bash", "-e"], input=f"{script}\necho\necho $JOB", cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert http.get(f"/v1/jobs/{ended.stdout.splitlines()[-1]}").status_code == 404, "it is removed at the end"
    with zipfile.ZipFile(tmp_path / "labels.zip") as answers:
        assert answers.namelist() == ["a.png", "b.png", "index.json"]


def test_the_result_of_a_job_is_what_a_request_with_the_same_pictures_is_answered(http):
    files = [("photos.zip", zip_of({"a.png": file_of(ramp()), "in/b.jpg": file_of(noise(), "JPEG")})), ("c.txt", b"no picture")]
    response = submit(http, *files, output="overlay", opacity="0.3")
    job = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"/v1/jobs/{job['id']}")
    job = until(http, job["id"], ended)
    assert (job["state"], job["progress"], job["pictures"]) == ("done", 1.0, {"total": 3, "done": 2, "failed": 1})
    assert [(one["name"], one["error"]["code"]) for one in job["failures"]] == [("c.txt", "not_an_image")]
    result = http.get(job["result"])
    assert result.headers["content-type"] == "application/zip"
    at_once = http.post("/v1/segment", files=[("image", file) for file in files], data={"output": "overlay", "opacity": "0.3"})
    theirs, ours = (zipfile.ZipFile(io.BytesIO(one.content)) for one in (at_once, result))
    assert theirs.namelist() == ours.namelist() == ["a.jpg", "in/b.jpg", "index.json"]
    assert all(theirs.read(name) == ours.read(name) for name in ours.namelist())
    assert http.get(job["result"], headers={"Range": "bytes=0-3"}).content == b"PK\x03\x04"
    error_of(http.delete(f"/v1/jobs/{job['id']}/result"), 405)
    assert http.delete(f"/v1/jobs/{job['id']}").status_code == 200
    error_of(http.get(f"/v1/jobs/{job['id']}"), 404)
    error_of(http.get(job["result"]), 404)


@pytest.mark.parametrize("face", ["", "/v1"])
def test_an_answer_tells_how_its_picture_was_run(http, face):
    told = {}
    for tiles in ("auto", "always"):
        answer = http.post(f"{face}/segment", files={"image": file_of(noise())}, data={**LONG, "tiles": tiles})
        told[answer.headers["x-tiling"]] = answer.content
    assert list(told) == ["none", "4x3"]
    assert len(set(told.values())) == 1
    refused = http.post(f"{face}/segment", files={"image": file_of(ramp())}, data={"model": "tiny", "tiles": "always"})
    assert error_of(refused, 400)["code"] == "tiling_forbidden"


def test_photos_come_from_the_seed_as_in_a_request(client, tmp_path):
    job = client.jobs.synthesize([file_of(stripes())], seed=7, count=2, format="png")
    assert client.jobs.wait(job.id, seconds=60, every=0.05).state == "done"
    with zipfile.ZipFile(client.jobs.fetch(job.id, tmp_path / "made.zip")) as archive:
        made = client.synthesize_several(file_of(stripes()), count=2, seed=7, format="png")
        assert [archive.read(f"image-1-seed-{one.seed}.png") for one in made] == [one.photo for one in made]
        assert [one["seed"] for one in json.loads(archive.read("index.json"))["answers"]] == [7, 8]
    client.jobs.remove(job.id)


def test_a_picture_over_the_limits_of_a_request_is_done_in_tiles_and_its_progress_is_told(server, large, tmp_path):
    async def sent_and_followed():
        async with AsyncClient(server.url) as client:
            with pytest.raises(Refusal, match="over the limit"):
                await client.segment(large)
            job = await client.jobs.segment([large], model="blurring", tiles="always", output="ids")
            told = [await client.jobs.find(job.id)]
            while not told[-1].ended:
                await asyncio.sleep(0.05)
                told.append(await client.jobs.find(job.id))
            await client.jobs.fetch(job.id, tmp_path / "one.zip")
            await client.jobs.remove(job.id)
            return told

    told = asyncio.run(sent_and_followed())
    assert (told[-1].state, told[-1].error) == ("done", None)
    inside = [job for job in told if 0 < job.progress < 1]
    assert [job.progress for job in inside] == sorted(job.progress for job in inside)
    assert len(inside) > 3
    assert all(job.seconds_left is not None and 0 <= job.seconds_left < 3600 for job in inside)
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert json.loads(archive.read("index.json"))["answers"][0]["tiling"] == "61x56"


def test_a_worker_that_is_killed_has_its_job_taken_up_and_finished_pictures_are_not_done_again(http, folder, large):
    id = submit(http, file_of(ramp()), large, file_of(noise()), **LONG).json()["id"]
    until(http, id, lambda job: job["pictures"]["done"] == 1 and in_its_tiles(job))
    worker = rows(folder, "SELECT worker FROM jobs WHERE state = 'running'")[0][0]
    os.kill(int(worker.split(":")[1]), signal.SIGKILL)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if ended(job := http.get(f"/v1/jobs/{id}").json()):
                break
        except httpx.TransportError:  # the connection led to the worker that is gone
            pass
        time.sleep(0.2)
    assert (job["state"], job["pictures"]) == ("done", {"total": 3, "done": 3, "failed": 0})
    assert rows(folder, "SELECT attempts FROM pictures ORDER BY number") == [(1,), (2,), (1,)]
    with zipfile.ZipFile(io.BytesIO(http.get(job["result"]).content)) as archive:
        alone = http.post("/v1/segment", files={"image": file_of(noise())}, data=LONG).content
        assert archive.read("2.png") == alone
    http.delete(f"/v1/jobs/{id}")


def test_requests_are_answered_while_a_job_runs(http, large):
    id = submit(http, large, **LONG).json()["id"]
    until(http, id, in_its_tiles)
    waits = []
    for _ in range(10):
        started = time.monotonic()
        assert http.post("/v1/segment", files={"image": file_of(ramp())}).status_code == 200
        waits.append(time.monotonic() - started)
    assert not ended(http.get(f"/v1/jobs/{id}").json())
    assert sorted(waits)[5] < 1
    http.delete(f"/v1/jobs/{id}")


def test_a_cancelled_job_stops_and_leaves_nothing_and_one_job_waits_for_another(http, folder, large):
    running, second, waiting = (submit(http, large, **LONG).json()["id"] for _ in range(3))
    until(http, running, in_its_tiles)
    assert error_of(submit(http, file_of(ramp())), 429)["code"] == "too_many_jobs"
    assert http.get(f"/v1/jobs/{waiting}").json()["before"] > 0
    error = error_of(http.get(f"/v1/jobs/{running}/result"), 409)
    assert error["code"] == "not_finished"
    for id in (running, second, waiting):
        assert http.delete(f"/v1/jobs/{id}").json()["state"] == "cancelled"
        assert http.get(f"/v1/jobs/{id}").json()["state"] == "cancelled"
    error_of(http.get(f"/v1/jobs/{running}/result"), 409)
    time.sleep(0.5)
    assert not [path for path in (folder / "kept").iterdir() if path.is_dir()]
    after = until(http, submit(http, file_of(ramp())).json()["id"], ended, seconds=20)
    assert after["state"] == "done"
    for id in (running, second, waiting, after["id"]):
        http.delete(f"/v1/jobs/{id}")


def test_a_job_of_nothing_but_refused_pictures_has_failed(http):
    job = until(http, submit(http, b"no", b"neither").json()["id"], ended)
    assert (job["state"], job["error"]["code"], job["pictures"]["failed"]) == ("failed", "all_refused", 2)
    assert job["result"] is None
    assert error_of(http.get(f"/v1/jobs/{job['id']}/result"), 409)["code"] == "no_result"
    http.delete(f"/v1/jobs/{job['id']}")


def test_a_picture_over_the_limit_of_a_job_is_refused_and_one_that_cannot_be_tiled_too(http):
    huge, tall = file_of(ramp(2500, 2500)), file_of(ramp(1200, 1000))
    job = until(http, submit(http, huge, tall, tiles="never").json()["id"], ended)
    assert [one["error"]["code"] for one in job["failures"]] == ["too_many_pixels", "too_large_without_tiles"]
    http.delete(f"/v1/jobs/{job['id']}")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"operation": "paint"}, "unknown_operation"),
        ({"output": "nonsense"}, "bad_request"),
        ({"seed": "7"}, "unknown_field"),
        ({"answers": "json"}, "unknown_field"),
        ({"model": "tiny", "tiles": "always"}, "tiling_forbidden"),
    ],
    ids=str,
)
def test_what_is_wrong_for_every_picture_is_refused_at_once_and_nothing_is_kept(http, folder, fields, code):
    assert error_of(submit(http, file_of(ramp()), **fields), 400)["code"] == code
    assert not [path for path in (folder / "kept").iterdir() if path.is_dir()]


def test_what_is_no_form_with_pictures_is_refused(http, folder):
    assert error_of(submit(http, ("a.zip", zip_of({}))), 400)["code"] == "no_image"
    assert error_of(http.post("/v1/jobs", files={"image": (None, "text")}, data={"operation": "segment"}), 400)["code"] == "not_a_file"
    assert error_of(http.post("/v1/jobs", files={"picture": b"x"}, data={"operation": "segment"}), 400)["code"] == "unknown_field"
    assert error_of(http.post("/v1/jobs", json={"operation": "segment"}), 415)["code"] == "not_multipart"
    cut = {"content": b"--x\r\ngarbage", "headers": {"content-type": "multipart/form-data; boundary=x"}}
    assert error_of(http.post("/v1/jobs", **cut), 400)["code"] == "broken_form"
    assert error_of(submit(http, *[b"x"] * 9), 413)["code"] == "too_many_pictures"
    assert error_of(submit(http, ("a.zip", zip_of({f"{number}.png": b"x" for number in range(9)}))), 413)["code"] == "too_many_pictures"
    assert error_of(submit(http, bytes(21_000_000)), 413)["code"] == "too_many_bytes"
    assert error_of(http.get("/v1/jobs/nope"), 404)["code"] == "unknown_job"
    assert not [path for path in (folder / "kept").iterdir() if path.is_dir()]


def test_only_the_operator_sees_all_jobs(http):
    id = submit(http, file_of(ramp())).json()["id"]
    assert id not in json.dumps(error_of(http.get("/v1/jobs"), 401))
    listed = http.get("/v1/jobs", headers={"Authorization": f"Bearer {TOKEN}"}).json()["jobs"]
    assert listed[-1]["id"] == id
    until(http, id, ended)
    http.delete(f"/v1/jobs/{id}")
