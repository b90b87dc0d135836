"""Who sends his body slower than a trickle, over real connections: his place is his until somebody else wants it."""

from __future__ import annotations

import asyncio
import http.client
import select
import socket
import threading
import time

import pytest
import uvicorn

from serving import flows
from serving.admission import Admission, Stopping
from serving.errors import Refusal
from serving.flows import Body
from serving.gate import Gate
from tests.serving.process import free_port

ROOM = 4  # one runs, two are decoded ahead, one waits
YOUNG = 0.5  # seconds


async def reads(scope, receive, send):
    """What a server does with a body that it is to answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setattr(flows, "_YOUNG", YOUNG)
    gate = Gate(runs_at_once=1, batch=1, queue=1, timeout=5)
    app = Admission(reads, lambda: gate, Stopping(grace=1), body_timeout=60)
    number = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=number, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join()
    assert gate.inside == 0


@pytest.fixture
def senders(port):
    """As many as there are places, each at the beginning of his body of a million bytes."""
    connections = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(ROOM)]
    for connection in connections:
        connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    until = time.monotonic() + 5
    while status(port) != 503:
        assert time.monotonic() < until, "somebody has no place"
    yield connections
    for connection in connections:
        connection.close()


def status(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/v1/segment", b"a body that is there at once")
    answered = connection.getresponse().status
    connection.close()
    return answered


def test_who_comes_when_all_places_are_taken_gets_that_of_the_slowest_body(port, senders):
    for connection, sent in zip(senders, (300, 100, 200, 400), strict=True):
        connection.sendall(b"." * sent)
    time.sleep(YOUNG)
    assert status(port) == 200
    answered, _, _ = select.select(senders, [], [], 5)
    assert answered == [senders[1]], "one place was wanted, and one was taken back"
    said = http.client.HTTPResponse(senders[1])
    said.begin()
    assert (said.status, said.headers["connection"]) == (408, "close")
    assert b"slow_body" in said.read()
    assert status(port) == 200, "who came has left again, and his place is free"


def test_a_body_that_comes_along_keeps_its_place_and_so_does_a_young_one(port, senders):
    assert status(port) == 503
    began = time.monotonic()
    while time.monotonic() < began + 1.5 * YOUNG:
        for connection in senders:
            connection.sendall(b"." * 10_000)
        time.sleep(0.05)
    assert status(port) == 503
    assert select.select(senders, [], [], 0)[0] == []


def test_a_slow_body_keeps_its_place_where_places_are_not_what_is_missing(port, monkeypatch):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sender:
        sender.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n" + b"." * 100)
        time.sleep(1.2 * YOUNG)
        with monkeypatch.context() as patch:
            patch.setattr(Gate, "full", True)  # the wait would be too long at the pace of the last runs, as `queue_wait` has it
            assert status(port) == 503
        sender.sendall(b"." * 100)
        answered = http.client.HTTPResponse(sender)
        answered.begin()
        assert answered.status == 200


def test_a_body_whose_place_is_wanted_in_the_moment_when_its_time_is_over_is_given_up_once():
    async def meet():
        loop, never = asyncio.get_running_loop(), asyncio.Event()
        unheard = []
        loop.set_exception_handler(lambda _, context: unheard.append(context))
        body = Body(never.wait, 0.01)
        reading = asyncio.ensure_future(body.receive())
        loop.call_later(0.02, body.give_up)
        await asyncio.sleep(0)
        time.sleep(0.05)  # both are due in the next turn of the loop, its clock first
        with pytest.raises(Refusal, match="body"):
            await reading
        assert unheard == []

    asyncio.run(meet())
