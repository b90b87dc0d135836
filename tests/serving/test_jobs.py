"""Jobs over HTTP on a real server: sent, followed, fetched, cancelled, and continued after a kill -9."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import zipfile

import httpx
import pytest

from serving.client import Client
from serving.errors import Refusal
from tests.serving.conftest import OPERATOR
from tests.serving.pictures import file_of, noise, ramp, stripes, zip_of
from tests.serving.process import ROOT, workers_of
from tests.serving.test_server import error_of

LONG = {"model": "blurring", "tiles": "always", "output": "ids"}  # thousands of tiles of 24x24: a matter of seconds


@pytest.fixture
def folder(operated_folder):
    return operated_folder


@pytest.fixture(scope="module")
def server(operated):
    return operated


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def large():
    """1.1 megapixels, and over the limit of a request in bytes and in pixels."""
    return file_of(noise(1000, 1100))


def submit(http, *files, **fields):
    sent = [
        ("image", file if isinstance(file, tuple) else (f"{number}.png", file)) for number, file in enumerate(files)
    ]
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


def rows(folder, query):
    with sqlite3.connect(folder / "kept" / "jobs.db") as database:
        return database.execute(query).fetchall()


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="the page speaks to a shell with curl")
def test_what_the_page_says_of_jobs_works_as_it_is_printed(http, server, tmp_path):
    lines = [
        line.strip()
        for line in (ROOT / "docs/jobs.md").read_text(encoding="utf-8").splitlines()
        if re.match(r" {4}.*JOB\b", line)
    ]
    assert len(lines) == 5
    (tmp_path / "photos.zip").write_bytes(zip_of({"a.png": file_of(ramp()), "b.png": file_of(noise())}))
    script = "\n".join(lines).replace("http://127.0.0.1:3000", server.url)
    ended = subprocess.run(
        ["bash", "-e"], input=f"{script}\necho\necho $JOB", cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert http.get(f"/v1/jobs/{ended.stdout.splitlines()[-1]}").status_code == 404, "it is removed at the end"
    with zipfile.ZipFile(tmp_path / "labels.zip") as answers:
        assert answers.namelist() == ["a.png", "b.png", "index.json"]


def test_the_result_of_a_job_is_what_a_request_with_the_same_pictures_is_answered(http):
    files = [
        ("photos.zip", zip_of({"a.png": file_of(ramp()), "in/b.jpg": file_of(noise(), "JPEG")})),
        ("c.txt", b"no picture"),
    ]
    response = submit(http, *files, output="overlay", opacity="0.3")
    job = response.json()
    assert (response.status_code, response.headers["location"]) == (202, f"/v1/jobs/{job['id']}")
    job = until(http, job["id"], ended)
    assert (job["state"], job["progress"], job["pictures"]) == ("done", 1.0, {"total": 3, "done": 2, "failed": 1})
    assert [(one["name"], one["error"]["code"]) for one in job["failures"]] == [("c.txt", "not_an_image")]
    result = http.get(job["result"])
    assert result.headers["content-type"] == "application/zip"
    at_once = http.post(
        "/v1/segment", files=[("image", file) for file in files], data={"output": "overlay", "opacity": "0.3"}
    )
    theirs, ours = (zipfile.ZipFile(io.BytesIO(one.content)) for one in (at_once, result))
    assert theirs.namelist() == ours.namelist() == ["a.jpg", "in/b.jpg", "index.json"]
    assert all(theirs.read(name) == ours.read(name) for name in ours.namelist())
    assert http.get(job["result"], headers={"Range": "bytes=0-3"}).content == b"PK\x03\x04"
    beyond = http.get(job["result"], headers={"Range": f"bytes={len(result.content)}-"})
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (416, "no_such_range")
    assert beyond.headers["content-range"].endswith(f"*/{len(result.content)}")
    error_of(http.delete(f"/v1/jobs/{job['id']}/result"), 405)
    assert http.delete(f"/v1/jobs/{job['id']}").status_code == 200
    error_of(http.get(f"/v1/jobs/{job['id']}"), 404)
    error_of(http.get(job["result"]), 404)


def test_photos_come_from_the_seed_as_in_a_request(client, tmp_path):
    job = client.jobs.synthesize([file_of(stripes())], seed=7, count=2, format="png")
    assert client.jobs.wait(job.id, seconds=60, every=0.05).state == "done"
    with zipfile.ZipFile(client.jobs.fetch(job.id, tmp_path / "made.zip")) as archive:
        made = client.synthesize_several(file_of(stripes()), count=2, seed=7, format="png")
        assert [archive.read(f"image-1-seed-{one.seed}.png") for one in made] == [one.photo for one in made]
        assert [one["seed"] for one in json.loads(archive.read("index.json"))["answers"]] == [7, 8]
    client.jobs.remove(job.id)


def test_a_picture_over_the_limits_of_a_request_is_done_in_tiles_with_progress(client, large, tmp_path):
    with pytest.raises(Refusal, match="over the limit"):
        client.segment(large)
    job = client.jobs.segment([large], model="blurring", tiles="always", output="ids")
    seen = [client.jobs.find(job.id)]
    while not seen[-1].ended:
        time.sleep(0.01)
        seen.append(client.jobs.find(job.id))
    client.jobs.fetch(job.id, tmp_path / "one.zip")
    client.jobs.remove(job.id)
    assert (seen[-1].state, seen[-1].error) == ("done", None)
    inside = [job for job in seen if 0 < job.progress < 1]
    assert [job.progress for job in inside] == sorted(job.progress for job in inside)
    assert len(inside) > 3
    assert all(job.seconds_left is not None and 0 <= job.seconds_left < 3600 for job in inside)
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert json.loads(archive.read("index.json"))["answers"][0]["tiling"] == "61x56"


def test_a_job_continues_after_a_kill_and_finished_pictures_are_not_done_again(http, server, folder, large):
    id = submit(http, file_of(ramp()), large, file_of(noise()), **LONG).json()["id"]
    until(http, id, lambda job: job["pictures"]["done"] == 1 and in_its_tiles(job))
    (killed,) = workers_of(server.process.pid)
    os.kill(killed, signal.SIGKILL)
    end, job = time.monotonic() + 120, {"state": "running"}
    while not ended(job) and time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            job = http.get(f"/v1/jobs/{id}").json()
        time.sleep(0.2)
    assert (job["state"], job["pictures"]) == ("done", {"total": 3, "done": 3, "failed": 0})
    assert rows(folder, "SELECT attempts FROM pictures ORDER BY number") == [(1,), (2,), (1,)]
    with zipfile.ZipFile(io.BytesIO(http.get(job["result"]).content)) as archive:
        alone = http.post("/v1/segment", files={"image": file_of(noise())}, data=LONG).content
        assert archive.read("2.png") == alone
    http.delete(f"/v1/jobs/{id}")


def test_a_slow_upload_does_not_delay_a_job(http, server):
    pictures = [file_of(ramp())] * 6
    with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port)) as slow:
        slow.sendall(
            b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 900000\r\n\r\nx"
        )
        time.sleep(0.3)
        began = time.monotonic()
        job = until(http, submit(http, *pictures).json()["id"], ended)
        assert time.monotonic() - began < 10
    assert job["pictures"]["done"] == 6
    http.delete(f"/v1/jobs/{job['id']}")


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
    assert not [path for path in (folder / "kept").iterdir() if path.is_dir() and "fewpair" not in path.name]
    after = until(http, submit(http, file_of(ramp())).json()["id"], ended, seconds=20)
    assert after["state"] == "done"
    for id in (running, second, waiting, after["id"]):
        http.delete(f"/v1/jobs/{id}")


def test_a_job_of_nothing_but_refused_pictures_has_failed(http):
    files = (b"no", file_of(ramp(2500, 2500)), file_of(ramp(1200, 1000)))
    job = until(http, submit(http, *files, tiles="never").json()["id"], ended)
    assert (job["state"], job["error"]["code"], job["result"]) == ("failed", "all_refused", None)
    codes = [one["error"]["code"] for one in job["failures"]]
    assert codes == ["not_an_image", "too_many_pixels", "too_large_without_tiles"]
    assert error_of(http.get(f"/v1/jobs/{job['id']}/result"), 409)["code"] == "no_result"
    http.delete(f"/v1/jobs/{job['id']}")


def test_what_is_wrong_for_every_picture_is_refused_at_once_and_nothing_is_kept(http, folder):
    form = {"data": {"operation": "segment"}}
    cut = {"content": b"--x\r\ngarbage", "headers": {"content-type": "multipart/form-data; boundary=x"}}
    many = zip_of({f"{number}.png": b"x" for number in range(9)})
    for answer, status, code in (
        (submit(http, file_of(ramp()), operation="paint"), 400, "unknown_operation"),
        (submit(http, file_of(ramp()), output="nonsense"), 400, "bad_request"),
        (submit(http, file_of(ramp()), seed="7"), 400, "unknown_field"),
        (submit(http, file_of(ramp()), answers="json"), 400, "unknown_field"),
        (submit(http, file_of(ramp()), model="tiny", tiles="always"), 400, "tiling_forbidden"),
        (submit(http, file_of(ramp()), model="x" * 70_000), 400, "field_too_long"),
        (submit(http, ("a.zip", zip_of({}))), 400, "no_image"),
        (submit(http, ("a.zip", many)), 413, "too_many_pictures"),
        (submit(http, *[b"x"] * 9), 413, "too_many_pictures"),
        (submit(http, *[b"x"] * 50), 413, "too_many_pictures"),
        (submit(http, bytes(21_000_000)), 413, "too_many_bytes"),
        (http.post("/v1/jobs", files={"picture": b"x"}, **form), 400, "unknown_field"),
        (http.post("/v1/jobs", json={"operation": "segment"}), 415, "not_multipart"),
        (http.post("/v1/jobs", **cut), 400, "broken_form"),
        (http.get("/v1/jobs/nope"), 404, "unknown_job"),
    ):
        assert error_of(answer, status)["code"] == code
    assert not [path for path in (folder / "kept").iterdir() if path.is_dir() and "fewpair" not in path.name]


def test_uploads_under_way_count_among_the_bytes_of_all_jobs(http, server, folder):
    head = (
        "POST /v1/jobs?operation=segment HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        "Content-Length: 19000000\r\n\r\n--x\r\n"
    )
    port = httpx.URL(server.url).port
    with socket.create_connection(("127.0.0.1", port)) as one, socket.create_connection(("127.0.0.1", port)) as two:
        for sending in (one, two):
            sending.sendall(head.encode())
        end = time.monotonic() + 20
        while rows(folder, "SELECT count(*) FROM jobs WHERE state = 'uploading'") != [(2,)]:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert error_of(submit(http, bytes(3_000_000)), 507)["code"] == "jobs_full"
    end = time.monotonic() + 20
    while (job := submit(http, bytes(3_000_000))).status_code == 507:
        assert time.monotonic() < end, "what was reserved for them is given back"
        time.sleep(0.1)
    http.delete(f"/v1/jobs/{job.json()['id']}")


def test_only_the_operator_sees_all_jobs(http):
    id = submit(http, file_of(ramp())).json()["id"]
    assert id not in json.dumps(error_of(http.get("/v1/jobs"), 401))
    listed = http.get("/v1/jobs", headers={"Authorization": f"Bearer {OPERATOR}"}).json()["jobs"]
    assert listed[-1]["id"] == id
    until(http, id, ended)
    http.delete(f"/v1/jobs/{id}")
