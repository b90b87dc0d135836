"""A client's connection as uvicorn keeps it, but one that ends where a request does not come, or its answer is not read."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.h11_impl import H11Protocol

CUT = "fewpair.cut"  # in the state of a request's scope: closes its connection, whatever is still to be sent over it
_HEAD = 20.0  # seconds for a request line and its headers; between requests uvicorn closes earlier
_REST = 120.0  # seconds for what is still on its way of a request that has been refused; to close at once would take the refusal along
_STUCK = 60.0  # seconds in which nobody takes what has been written
_HIGH = 2**16  # bytes that are written without waiting
_UNSENT = 2**17  # bytes that the system takes beyond what is on the wire; it would take megabytes, and hide who does not read


class Connection(H11Protocol):
    """Closes where a head is not whole after its time, and where what was written is not taken in its time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first head."""
        self._head: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self.app_state: dict[str, Any] = {**self.app_state, CUT: transport.abort}
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_HIGH, low=0)  # so that who waits to write knows that all before has left the process
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux and macOS
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        self._await_head(_HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_head()
        self._stop_stuck()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take it in; the clock runs as long as it has not made a request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_head()
        elif self._head is None:
            self._await_head(_REST if self.conn.their_state is h11.SEND_BODY else _HEAD)

    def pause_writing(self) -> None:
        """Have the application wait, though not for ever."""
        super().pause_writing()
        self._stop_stuck()
        self._stuck = self.loop.call_later(_STUCK, self.transport.abort)  # to close would wait until all is sent

    def resume_writing(self) -> None:
        """Let the application go on."""
        self._stop_stuck()
        super().resume_writing()

    def _await_head(self, seconds: float) -> None:
        self._head = self.loop.call_later(seconds, self._give_up_head)

    def _give_up_head(self) -> None:
        self._head = None
        if self.transport.get_protocol() is self:  # a websocket has another
            self.transport.close()

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _stop_stuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


def install() -> None:
    """Have uvicorn use it; uvicorn takes a class of one's own in its configuration, but BentoML, which makes that, passes none on."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"
