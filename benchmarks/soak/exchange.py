"""One request over a connection of its own, by bare sockets: an answer that comes before the body is sent is read all the same.

Libraries that send the whole body before they read lose the answer of a server that refuses early and closes. Here both go on at once, and
what is in the socket is read to its end also after a write has failed, so that a refusal counts as unseen only where it never arrived.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import h11

_PIECE = 2**18


@dataclass(frozen=True)
class Asked:
    """A request that is ready to be sent. `name` is what it is called in reports; equal names are equal requests."""

    name: str
    path: str
    body: bytes = b""
    content_type: str = ""
    method: str = "POST"


@dataclass(frozen=True)
class Answered:
    """What came back: an answer, or `trouble` in words and no status. Times are of `time.monotonic`, in seconds."""

    began: float
    ended: float
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    trouble: str | None = None
    whole: bool = True  # the body was sent to its end before the answer was read

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def refused(self) -> bool:
        """Whether the server had no room, and said when to come back."""
        return self.status in (429, 503) and "retry-after" in self.headers

    def without_body(self) -> Answered:
        """What is kept of thousands of answers."""
        return replace(self, body=b"")


@dataclass(frozen=True)
class Address:
    """Where a server answers, and what is sent along with every request."""

    host: str
    port: int
    headers: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(url: str, **headers: str) -> Address:
        """Of "http://127.0.0.1:3000"; underscores in the names of headers are dashes."""
        host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
        return Address(host, int(port), tuple((name.replace("_", "-"), value) for name, value in headers.items()))


async def ask(address: Address, asked: Asked, *, deadline: float, request_id: str | None = None) -> Answered:
    """Send a request and read its answer; what goes wrong on the way comes back as `trouble`. `deadline` in seconds, for all of it."""
    began = time.monotonic()
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(deadline):
                return await _exchange(connection, address, asked, began=began, request_id=request_id)
        except TimeoutError:
            return Answered(began, time.monotonic(), trouble=f"no answer within {deadline:g} s")
        except ConnectionRefusedError:
            return Answered(began, time.monotonic(), trouble="connection refused")
        except OSError as error:
            return Answered(began, time.monotonic(), trouble=type(error).__name__)


async def _exchange(connection: socket.socket, address: Address, asked: Asked, *, began: float, request_id: str | None) -> Answered:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, (address.host, address.port))
    wire = h11.Connection(h11.CLIENT)
    headers = [("Host", f"{address.host}:{address.port}"), *address.headers]
    if asked.method != "GET":
        headers += [("Content-Type", asked.content_type), ("Content-Length", str(len(asked.body)))]
    if request_id is not None:
        headers.append(("X-Request-ID", request_id))
    head = wire.send(h11.Request(method=asked.method, target=asked.path, headers=headers)) or b""
    sent = head + (wire.send(h11.Data(asked.body)) or b"") + (wire.send(h11.EndOfMessage()) or b"")
    sending = asyncio.ensure_future(loop.sock_sendall(connection, sent))
    try:
        return await _answer(connection, wire, sending, began=began)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)  # a write that fails is no trouble where an answer came


async def _answer(connection: socket.socket, wire: h11.Connection, sending: asyncio.Future[None], *, began: float) -> Answered:
    loop = asyncio.get_running_loop()
    status, headers, parts, whole = 0, {}, [], True
    while True:
        try:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                wire.receive_data(await loop.sock_recv(connection, _PIECE))
                continue
        except ConnectionError as error:
            return Answered(began, time.monotonic(), trouble=_cut(type(error).__name__, status))
        except h11.RemoteProtocolError:
            return Answered(began, time.monotonic(), trouble=_cut("closed", status))
        if isinstance(event, h11.Response):
            status, headers = event.status_code, {name.decode().lower(): value.decode("latin-1") for name, value in event.headers}
            whole = sending.done()
        elif isinstance(event, h11.Data):
            parts.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return Answered(began, time.monotonic(), status, headers, b"".join(parts), whole=whole)
        elif isinstance(event, h11.ConnectionClosed):
            return Answered(began, time.monotonic(), trouble=_cut("closed", status))


def _cut(how: str, status: int) -> str:
    return f"{how} within an answer of status {status}" if status else f"{how} before an answer"
