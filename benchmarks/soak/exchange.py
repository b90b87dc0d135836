"""One request over its own connection, on bare sockets.

A client library that sends the whole body before it reads loses the answer of a server that refuses early and closes.
Here both go on at once, and the socket is read to its end also after a write has failed.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import h11

_CHUNK = 2**18


@dataclass(frozen=True)
class Request:
    """A request that is ready to be sent. Requests with equal names are equal."""

    name: str
    path: str
    body: bytes = b""
    content_type: str = ""
    method: str = "POST"


@dataclass(frozen=True)
class Answer:
    """What came back: an answer, or no status and an `error` in words. Times are of `time.monotonic`, in seconds."""

    began: float
    ended: float
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str | None = None

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def refused(self) -> bool:
        """Whether the server was full, and said when to try again."""
        return self.status in (429, 503) and "retry-after" in self.headers

    def without_body(self) -> Answer:
        return replace(self, body=b"")


async def send(url: str, request: Request, *, deadline: float = 120.0, token: str | None = None) -> Answer:
    """Send a request and read its answer; what goes wrong comes back as `error`. `deadline`: seconds for all of it."""
    began = time.monotonic()
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(deadline):
                return await _exchange(connection, url.removeprefix("http://"), request, began=began, token=token)
        except TimeoutError:
            return Answer(began, time.monotonic(), error=f"no answer within {deadline:g} s")
        except OSError as error:
            return Answer(began, time.monotonic(), error=type(error).__name__)


async def send_until_admitted(url: str, request: Request, *, deadline: float = 120.0) -> Answer:
    """Send a request again, when the server says so, as long as it is refused because the server is full."""
    until = time.monotonic() + deadline
    while (answer := await send(url, request, deadline=deadline)).refused and time.monotonic() < until:
        await asyncio.sleep(float(answer.headers["retry-after"]))
    return answer


async def _exchange(
    connection: socket.socket, address: str, request: Request, *, began: float, token: str | None
) -> Answer:
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    await loop.sock_connect(connection, (host, int(port)))
    protocol = h11.Connection(h11.CLIENT)
    headers = [("Host", address)]
    if token is not None:
        headers.append(("Authorization", f"Bearer {token}"))
    if request.method == "POST":
        headers += [("Content-Type", request.content_type), ("Content-Length", str(len(request.body)))]
    data = protocol.send(h11.Request(method=request.method, target=request.path, headers=headers)) or b""
    data += (protocol.send(h11.Data(request.body)) or b"") + (protocol.send(h11.EndOfMessage()) or b"")
    sending = asyncio.ensure_future(loop.sock_sendall(connection, data))
    try:
        return await _receive(connection, protocol, began=began)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)  # a failed write does not matter where an answer came


async def _receive(connection: socket.socket, protocol: h11.Connection, *, began: float) -> Answer:
    loop = asyncio.get_running_loop()
    status, headers, parts = 0, dict[str, str](), list[bytes]()
    while True:
        try:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                protocol.receive_data(await loop.sock_recv(connection, _CHUNK))
                continue
        except (ConnectionError, h11.RemoteProtocolError) as error:
            where = f"within an answer of status {status}" if status else "before an answer"
            return Answer(began, time.monotonic(), error=f"{type(error).__name__} {where}")
        if isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            parts.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return Answer(began, time.monotonic(), status, headers, b"".join(parts))
        elif isinstance(event, h11.ConnectionClosed):
            return Answer(began, time.monotonic(), error="closed before an answer")
