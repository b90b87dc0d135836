"""Who does not read his answer, or does not finish his request line, over real connections to one real server."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import threading
import time

import pytest
import uvicorn
from starlette.responses import StreamingResponse
from uvicorn.config import HTTP_PROTOCOLS

from serving import admission, connection, flows
from serving.admission import Admission, Stopping
from serving.connection import Connection
from serving.gate import Gate
from tests.serving.process import free_port

ROOM = 4  # one runs, two are decoded ahead, one waits
LARGE = bytes(range(256)) * 2**13  # 2 MiB, more than the buffers on both sides
SECONDS = 1.5  # for an answer, and 2 more for its 2 MiB


ended = threading.Event()  # of the endless stream


async def endless(scope, receive, send):
    async def parts():
        try:
            while True:
                yield b"."
                await asyncio.sleep(0.05)
        finally:
            ended.set()

    await receive()
    await StreamingResponse(parts())({**scope, "asgi": {"spec_version": "2.3"}}, receive, send)


async def answers(scope, receive, send):
    """Large, in one message; the page's events in many small ones, or without an end; a refusal before the body is there."""
    if scope["path"] == "/refused":
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"large"})
        return
    if scope["path"] == "/ui/endless":
        await endless(scope, receive, send)
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(256 if scope["path"] == "/ui/events" else 0):
        await send({"type": "http.response.body", "body": b"." * 2**14, "more_body": True})
    if scope["path"] == "/no-body-last":
        await send({"type": "http.response.body", "body": LARGE, "more_body": True})
        await send({"type": "http.response.body"})
        return
    await send({"type": "http.response.body", "body": LARGE if scope["path"] == "/large" else b"small"})


class Run:
    """One server in a thread, with what it counts."""

    def __init__(self) -> None:
        self.gate = Gate(runs_at_once=1, batch=1, queue=ROOM - 3, timeout=5)
        self.stopping = Stopping(grace=1)
        self.app = Admission(answers, lambda: self.gate, self.stopping, body_timeout=SECONDS)
        self.port = free_port()
        config = uvicorn.Config(
            self.app,
            port=self.port,
            http=Connection,
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=9,
        )
        self.server = uvicorn.Server(config)

    def ask(self, path="/large"):
        """Somebody who has asked and read nothing yet."""
        asking = socket.socket()
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.settimeout(10)
        asking.connect(("127.0.0.1", self.port))
        asking.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n.".encode())
        return asking


@pytest.fixture(scope="module")
def run():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_HEAD", 0.5)
        patch.setattr(connection, "_STUCK", 0.5)
        patch.setattr(flows, "_YOUNG", 0.5)
        patch.setattr(flows, "_TRICKLE", 2**20)
        patch.setattr(admission, "_UNREAD", 2 * len(LARGE))
        running = Run()
        thread = threading.Thread(target=running.server.run)
        thread.start()
        until(lambda: running.server.started)
        yield running
        running.server.should_exit = True
        thread.join()


def until(holds, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def read(asking, *, pause=0.0, size=2**16):
    """What comes until the connection ends."""
    came = 0
    try:
        while chunk := asking.recv(size):
            came += len(chunk)
            time.sleep(pause)
    except ConnectionResetError:
        pass
    return came


def status(port, path="/"):
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    asking.request("POST", path, b"a body")
    answer = asking.getresponse()
    answer.read()
    asking.close()
    return answer.status


def test_who_reads_slowly_but_in_time_gets_it_all_and_counts_as_open_until_then(run, monkeypatch):
    monkeypatch.setattr(connection, "_STUCK", 9)
    with run.ask() as asking:
        time.sleep(0.3)
        assert (run.stopping.open, run.gate.inside) == (1, 0), "the answer is on its way, and the place is somebody else's"
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        answer = http.client.HTTPResponse(asking)
        answer.begin()
        got = b""
        while len(got) < len(LARGE):
            got += answer.read(2**17)
            if len(got) < len(LARGE) // 2:
                assert run.stopping.open == 1
            time.sleep(0.03)
        assert got == LARGE
    until(lambda: run.stopping.open == 0)


def test_an_answer_that_nobody_reads_is_given_up_after_its_time_and_its_connection_is_closed(run, monkeypatch, caplog):
    monkeypatch.setattr(connection, "_STUCK", 9)
    began = time.monotonic()
    with run.ask() as asking:
        until(lambda: run.stopping.open == 1)
        until(lambda: run.stopping.open == 0)
        assert SECONDS + 1.5 < time.monotonic() - began < SECONDS + 5
        assert read(asking) < len(LARGE) // 2
    assert re.search(r"An answer was not read in time \([1-9]\d* bytes of it in (3\.[5-9]|[4-8]\.\d) s\)", caplog.text)


def test_more_unread_answers_than_there_is_memory_for_keep_their_places_until_somebody_wants_one(run, monkeypatch, caplog):
    monkeypatch.setattr(connection, "_STUCK", 9)
    unread = [run.ask() for _ in range(2 + ROOM)]
    until(lambda: run.gate.inside == ROOM)
    until(lambda: run.stopping.open == 2 + ROOM)
    assert status(run.port) == 503, "they are young"
    time.sleep(0.7)
    assert status(run.port) == 200, "the place of one who does not read"
    until(lambda: run.stopping.open == 2 + ROOM - 1)
    assert re.search(
        r"An answer was read slowly, and others wanted its place \([1-9]\d* bytes of it in (0\.[5-9]|[12]\.\d) s\)", caplog.text
    )
    for asking in unread:
        asking.close()
    until(lambda: run.stopping.open == 0)
    assert run.gate.inside == 0
    assert status(run.port, "/large") == 200


def test_an_answer_whose_last_message_has_no_body_comes_to_its_end(run):
    asking = http.client.HTTPConnection("127.0.0.1", run.port, timeout=10)
    asking.request("POST", "/no-body-last", b"a body")
    assert asking.getresponse().read() == LARGE
    asking.close()
    until(lambda: (run.stopping.open, run.gate.inside) == (0, 0))


def test_an_event_stream_that_nobody_reads_any_more_is_cut(run):
    with run.ask("/ui/events") as asking:
        time.sleep(1.2)
        assert 0 < read(asking) < 2**21


def test_a_head_that_does_not_come_to_its_end_is_given_up_and_an_idle_connection_is_not(run):
    idle = http.client.HTTPConnection("127.0.0.1", run.port, timeout=10)
    idle.request("POST", "/", b"a body")
    assert idle.getresponse().read() == b"small"
    began = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", run.port), timeout=10) as half,
        socket.create_connection(("127.0.0.1", run.port), 10) as none,
    ):
        half.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nX-A: ")
        assert half.recv(1) == none.recv(1) == b""
    assert 0.3 < time.monotonic() - began < 5
    idle.request("POST", "/", b"a body")
    assert idle.getresponse().read() == b"small"
    idle.close()


def test_a_server_whose_configuration_names_no_protocol_as_bentoml_s_does_takes_this_one(monkeypatch):
    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    connection.install()
    config = uvicorn.Config(answers, lifespan="off")
    config.load()
    assert config.http_protocol_class is Connection


def test_a_stream_of_the_page_ends_when_nobody_looks_at_it_any_more(run):
    with socket.create_connection(("127.0.0.1", run.port), timeout=10) as looking:
        looking.sendall(b"GET /ui/endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert looking.recv(2**16)
        assert not ended.wait(0.2)
    assert ended.wait(5)


def test_who_is_refused_may_send_the_rest_of_his_body_and_ask_again_over_the_same_connection(run):
    with socket.create_connection(("127.0.0.1", run.port), timeout=10) as sender:
        sender.sendall(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n..")
        for _ in range(5):
            time.sleep(0.2)  # in all twice the time for a head
            sender.sendall(b"..")
        for expected in (413, 200):
            answer = http.client.HTTPResponse(sender)
            answer.begin()
            assert (answer.status, len(answer.read())) == (expected, 5)
            sender.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n.")
