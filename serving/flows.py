"""Bodies on their way in and answers on their way out: each against a clock, and known for slow where it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.types import Message, Receive, Send

from serving.errors import Refusal

SLOWEST = 2**20  # bytes a second that a body which says its length, or an answer, may take beyond the time for any
PIECE = 2**16  # bytes: what a connection buffers before it has its writer wait
_TRICKLE = 2**15  # bytes a second: what is slower gives up its place where somebody else has none
_YOUNG = 3.0  # seconds before that is asked of it
_log = logging.getLogger("fewpair.serving")


class Flow:
    """Bytes of one request, on their way in or out; who waits for them does so against `_clock`."""

    def __init__(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self._bytes = 0
        self._under_way = True
        self._clock: asyncio.Timeout | None = None
        self._given_up = False

    def pace(self) -> float:
        """Bytes a second so far."""
        return self._bytes / (asyncio.get_running_loop().time() - self._began)

    def trickles(self) -> bool:
        """Whether it is on its way, no longer young, and slow."""
        return self._under_way and asyncio.get_running_loop().time() - self._began >= _YOUNG and self.pace() < _TRICKLE

    def give_up(self) -> None:
        """Have whoever waits for it, now or next, hear that it was too slow."""
        self._given_up = True
        if self._clock is not None and not self._clock.expired():  # its time may have run out in this very turn of the loop
            self._clock.reschedule(0)


class Body(Flow):
    """A request's messages: the body against a clock, and after it the news that the client has gone."""

    def __init__(self, receive: Receive, seconds: float, *, on_end: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._receive = receive
        self._seconds = seconds
        self._until = self._began + seconds
        self._on_end = on_end
        self._ended = asyncio.Event()
        self._gone = asyncio.Event()
        self._listening = asyncio.Lock()

    async def receive(self) -> Message:
        """The next message; Refusal where the body is slower than it may be."""
        if self._ended.is_set():
            return await self._disconnect()
        message = await self._next()
        self._bytes += len(message.get("body", b""))
        if message["type"] == "http.disconnect":
            self._end()
            self._gone.set()
        elif not message.get("more_body", False):
            self._on_end()
            self._end()
        return message

    async def gone(self) -> None:
        """Return when the client has gone, or was answered."""
        await self._ended.wait()
        async with self._listening:
            while not self._gone.is_set():
                if (await self._receive())["type"] == "http.disconnect":
                    self._gone.set()

    def _end(self) -> None:
        self._under_way = False
        self._ended.set()

    async def _next(self) -> Message:
        if self._given_up:
            raise _trickled()
        self._clock = clock = asyncio.timeout_at(self._until)
        try:
            async with clock:
                return await self._receive()
        except TimeoutError:
            if not clock.expired():
                raise
            raise (_trickled() if self._given_up else _slow_body(self._seconds)) from None
        finally:
            self._clock = None

    async def _disconnect(self) -> Message:
        await self.gone()
        return {"type": "http.disconnect"}


class Unread:
    """Room, in bytes, for answers that are being sent and whose requests hold no place any more."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, size: int) -> bool:
        """Whether there was room for it; if so, it is taken until `give_back`."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Have room for others again."""
        self._left += size


class Sending(Flow):
    """An answer's messages. A large one goes out in pieces, so that who does not read it fills no buffer.

    The time is `seconds` and one more for each MiB of a message; when it is over, `cut` closes the connection. Where there is room among
    the `unread`, the request's place is let go before its answer is sent; otherwise the answer keeps it, so that no more are made than
    are read.
    """

    def __init__(
        self, send: Send, seconds: float, *, cut: Callable[[], object], unread: Unread, let_go: Callable[[], object] | None = None
    ) -> None:
        super().__init__()
        self._send = send
        self._seconds = seconds
        self._cut = cut
        self._unread = unread
        self._let_go = let_go
        self._under_way = False

    async def send(self, message: Message) -> None:
        """Pass a message on; what does not fit into a connection's buffer is waited for until it has been taken."""
        size = len(message.get("body", b""))
        if self._bytes + size <= PIECE:
            self._bytes += size
            await self._send(message)
            return
        last = not message.get("more_body", False)
        if not (last and self._let_go is not None and self._unread.take(size)):
            await self._in_time(message, last=last)
            return
        self._let_go()
        try:
            await self._in_time(message, last=last)
        finally:
            self._unread.give_back(size)

    async def _in_time(self, message: Message, *, last: bool) -> None:
        if not self._under_way:
            self._under_way, self._began = True, asyncio.get_running_loop().time()
        body = memoryview(message.get("body", b""))
        seconds = self._seconds + len(body) / SLOWEST
        self._clock = clock = asyncio.timeout(0 if self._given_up else seconds)
        try:
            async with clock:
                await self._in_pieces(body, last=last)
        except TimeoutError:
            if not clock.expired():
                raise
            spent = asyncio.get_running_loop().time() - self._began
            why = "was read slowly, and others wanted its place" if self._given_up else "was not read in time"
            _log.warning("An answer %s (%d bytes of it in %.1f s): its connection is closed.", why, self._bytes, spent)
            self._cut()
            await self._send({"type": "http.response.body", "body": b"", "more_body": True})  # returns when the connection is gone
        finally:
            self._clock = None

    async def _in_pieces(self, body: memoryview, *, last: bool) -> None:
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self._bytes += len(piece)
        if last:  # by itself: it waits until the pieces have left the process, and a request counts as open until then
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._under_way = False


def _slow_body(seconds: float) -> Refusal:
    return Refusal(
        408,
        "slow_body",
        f"the request's body did not arrive within {seconds:g} s.",
        hint="Send a smaller one, or have the operator raise FEWPAIR_BODY_TIMEOUT.",
        headers={"Connection": "close"},
    )


def _trickled() -> Refusal:
    return Refusal(
        408,
        "slow_body",
        f"the request's body came at less than {_TRICKLE // 2**10} KiB a second, and others wanted its place.",
        hint="Send a smaller one, or when the server is less busy.",
        headers={"Connection": "close"},
    )
