"""How a server ends: told to, it finishes what it has taken; killed, a worker takes only its own requests along and comes back."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.process import running_server
from tests.serving.slow import write_slow_model

LONG = file_of(np.zeros((700, 800, 3), np.uint8))  # some two seconds of the slow model
PATIENT = {"FEWPAIR_QUEUE_WAIT": "0"}  # how long it may wait for its turn is not what is tried here


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ends")
    write_model(folder / "tiny")
    write_slow_model(folder / "slow", pytest.MonkeyPatch())
    return folder


def ask(url, model, photo):
    try:
        return httpx.post(f"{url}/segment", files={"image": photo}, data={"model": model, "output": "ids"}, timeout=60)
    except httpx.TransportError as error:
        return error


def workers_of(launcher):
    """The processes that answer: grandchildren of the launcher."""

    def children(pid):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    found = [worker for server in children(launcher) for worker in children(server)]
    return [worker for worker in found if b"_bentoml_impl.worker" in Path(f"/proc/{worker}/cmdline").read_bytes()]


def inside(url):
    return float(re.findall(r"^fewpair_requests_inside (\S+)", httpx.get(f"{url}/metrics").text, re.MULTILINE)[0])


def is_asked(worker):
    return any(connection.status == psutil.CONN_ESTABLISHED for connection in psutil.Process(worker).net_connections("tcp"))


def ask_for_much(url):
    """A photo to the tiny model for an answer of megabytes, of which nothing has been read."""
    host, port = url.removeprefix("http://").split(":")
    asking = socket.socket()
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    asking.settimeout(20)
    asking.connect((host, int(port)))
    photo = file_of(np.random.default_rng(0).integers(0, 256, (2000, 2400, 3), dtype=np.uint8))
    head = [f"POST /v1/segment?model=tiny&output=confidence HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png", "Connection: close"]
    asking.sendall("\r\n".join([*head, f"Content-Length: {len(photo)}", "", ""]).encode() + photo)
    return asking


def read_all(asking):
    """What was read and what was to be read."""
    with asking:
        answer = http.client.HTTPResponse(asking)
        answer.begin()
        try:
            return len(answer.read()), int(answer.headers["content-length"])
        except http.client.IncompleteRead as error:
            return len(error.partial), int(answer.headers["content-length"])


@pytest.mark.slow
def test_told_to_stop_it_finishes_what_it_has_taken_and_refuses_what_comes_after(models, tmp_path):
    with running_server(models, tmp_path, "--no-ui", "--default-model", "tiny", **PATIENT) as server, ThreadPoolExecutor(4) as pool:
        unread = ask_for_much(server.url)
        unread.recv(1, socket.MSG_PEEK)  # from here on it is being sent
        taken = [pool.submit(ask, server.url, "slow", LONG) for _ in range(3)]
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        ready = httpx.get(f"{server.url}/readyz", timeout=10)
        after = ask(server.url, "tiny", file_of(ramp()))
        assert [answer.result().status_code for answer in taken] == [200, 200, 200]
        time.sleep(4)  # longer than the connections have to close themselves
        got, announced = read_all(unread)
        assert got == announced > 2**22, "what is being read is waited for"
        assert server.process.wait(30) == 0
    assert (after.status_code, after.json()["error"]["code"]) == (503, "stopping")
    assert after.headers["retry-after"]
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "stopping")
    assert isinstance(ask(server.url, "tiny", file_of(ramp())), httpx.ConnectError)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_a_killed_worker_comes_back_and_only_its_own_requests_fail(models, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    options = ("--no-ui", "--workers", "2", "--default-model", "tiny")
    with running_server(models, tmp_path, *options, TMPDIR=str(temporary), **PATIENT) as server:
        workers = workers_of(server.process.pid)
        assert len(workers) == 2
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, server.url, "slow", LONG) for _ in range(6)]
            until = time.monotonic() + 10
            while inside(server.url) < 6:
                assert time.monotonic() < until, "they are not taken"
                time.sleep(0.02)
            told = [inside(server.url) for _ in range(10)]  # by either worker, as the system likes
            assert min(told) >= 4, "each tells of the requests of both, whether it was asked before or not"  # the first may be answered
            killed = next(worker for worker in workers if is_asked(worker))  # one worker may have accepted them all
            os.kill(killed, signal.SIGKILL)
            ends = [answer.result() for answer in asked]
        answered = [end.status_code for end in ends if isinstance(end, httpx.Response)]
        assert set(answered) <= {200}, "the other worker's requests are answered"
        assert len(answered) < len(ends), "those of the killed one are not"

        until = time.monotonic() + 60
        while len(again := workers_of(server.process.pid)) < 2:
            assert ask(server.url, "tiny", file_of(ramp())).status_code == 200, "the other one answers meanwhile"
            assert time.monotonic() < until, "it did not come back"
            time.sleep(0.2)
        assert killed not in again
        while {folder.name for folder in temporary.rglob("worker-*")} != {f"worker-{worker}" for worker in again}:
            assert time.monotonic() < until, "the files of the killed one are removed by who came in its place"
            time.sleep(0.2)
        assert {ask(server.url, "tiny", file_of(ramp())).status_code for _ in range(20)} == {200}
        until = time.monotonic() + 10  # an answer is out a moment before its place is given back
        while inside(server.url) != 0:
            assert time.monotonic() < until, "what the killed one had inside is forgotten"
            time.sleep(0.2)
    assert list(temporary.iterdir()) == []
