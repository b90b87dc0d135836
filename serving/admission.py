"""Who may come in before their body is read: a place first, a clock on the body, an eye on the client, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import Refusal
from serving.gate import Gate, Ticket
from serving.middleware import answer_refusals, refuse

_GONE = 499  # what nginx writes down for a client that did not wait for its answer
_PAGE = "/ui"
_READY = ("/readyz", "/v2/health/ready")
_HEALTH = (*_READY, "/livez", "/healthz", "/v2/health/live", "/metrics")
_LOOK_EVERY = 0.05
_SLOWEST = 2**20  # bytes a second that a body which says its length may take beyond the time for any
_TRICKLE = 2**15  # bytes a second: a body that is slower gives up its place where somebody else has none
_YOUNG = 3.0  # seconds before that is asked of a body


class Stopping:
    """Knows that the server is to stop: from then on nothing new is taken, and what was is finished before the process ends."""

    def __init__(self, *, grace: float) -> None:
        self.begun = False
        self.open = 0  # requests under way
        self._grace = grace
        self._leaving: asyncio.Future[None] | None = None

    def hold_signals(self, inside: Callable[[], int]) -> None:
        """Keep SIGTERM and SIGINT from whoever handles them until no request is open and nobody inside, or the grace is over."""
        if threading.current_thread() is not threading.main_thread():  # signals are the main thread's: this is no server of its own
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told(signal.getsignal(number), loop, inside))

    def _told(self, before: object, loop: asyncio.AbstractEventLoop, inside: Callable[[], int]) -> Callable[[int, FrameType | None], None]:
        def told(number: int, frame: FrameType | None) -> None:
            if self.begun or not callable(before):
                return
            self.begun = True
            loop.call_soon_threadsafe(self._begin, inside, lambda: before(number, frame))

        return told

    def _begin(self, inside: Callable[[], int], leave: Callable[[], object]) -> None:
        self._leaving = asyncio.ensure_future(self._leave(inside, leave))

    async def _leave(self, inside: Callable[[], int], leave: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._grace
        while (self.open or inside()) and loop.time() < until:
            await asyncio.sleep(_LOOK_EVERY)
        leave()


class Admission:
    """Gives each request with a body a place before it is read; the page's own traffic, which queues in its own way, only the clock."""

    def __init__(self, app: ASGIApp, gate: Callable[[], Gate], stopping: Stopping, *, body_timeout: float) -> None:
        self._app = app
        self._gate = gate
        self._stopping = stopping
        self._body_timeout = body_timeout
        self._inside: dict[_Body, Ticket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["path"] in _HEALTH and not (self._stopping.begun and scope["path"] in _READY)):
            await self._app(scope, receive, send)
            return
        if self._stopping.begun:
            await refuse(_stopping(), scope=scope, receive=receive, send=send)
            return
        if scope["path"].startswith(_PAGE):  # its event streams are open as long as somebody looks at the page
            await answer_refusals(self._app, scope, self._body(scope, receive).receive, send=send)
            return
        self._stopping.open += 1
        try:
            await self._let_in(scope, receive, send)
        finally:
            self._stopping.open -= 1

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _has_body(scope):
            await self._app(scope, receive, send)
            return
        try:
            gate = self._gate()
            self._make_room(gate)
            async with gate.admitted() as ticket:
                body = self._body(scope, receive, on_end=gate.start_clock)
                self._inside[body] = ticket
                try:
                    await _as_long_as_wanted(self._app, scope, body, send=send)
                finally:
                    self._inside.pop(body, None)
        except Refusal as refusal:
            await refuse(refusal, scope=scope, receive=receive, send=send)

    def _make_room(self, gate: Gate) -> None:
        """Take back places of bodies that trickle, the slowest first, until who comes may come in: a few senders must not shut out all."""
        while gate.full and (slow := [body for body in self._inside if body.trickles()]):
            slowest = min(slow, key=_Body.pace)
            gate.take_back(self._inside.pop(slowest))
            slowest.give_up()

    def _body(self, scope: Scope, receive: Receive, *, on_end: Callable[[], object] = lambda: None) -> _Body:
        declared = Headers(scope=scope).get("content-length", "")
        large = int(declared) / _SLOWEST if declared.isdecimal() and len(declared) < 16 else 0
        return _Body(receive, self._body_timeout + large, on_end=on_end)


class _Body:
    """A request's messages: the body against a clock, and after it the news that the client has gone."""

    def __init__(self, receive: Receive, seconds: float, *, on_end: Callable[[], object] = lambda: None) -> None:
        self._receive = receive
        self._seconds = seconds
        self._began = asyncio.get_running_loop().time()
        self._until = self._began + seconds
        self._clock: asyncio.Timeout | None = None
        self._bytes = 0
        self._given_up = False
        self._on_end = on_end
        self._ended = asyncio.Event()
        self._gone = asyncio.Event()

    async def receive(self) -> Message:
        if self._ended.is_set():
            return await self._disconnect()
        message = await self._next()
        self._bytes += len(message.get("body", b""))
        if message["type"] == "http.disconnect":
            self._ended.set()
            self._gone.set()
        elif not message.get("more_body", False):
            self._on_end()
            self._ended.set()
        return message

    def pace(self) -> float:
        """Bytes a second so far."""
        return self._bytes / (asyncio.get_running_loop().time() - self._began)

    def trickles(self) -> bool:
        """Whether it is on its way, no longer young, and slow."""
        return not self._ended.is_set() and asyncio.get_running_loop().time() - self._began >= _YOUNG and self.pace() < _TRICKLE

    def give_up(self) -> None:
        """Have whoever reads it, now or next, hear that it was too slow."""
        self._given_up = True
        if self._clock is not None:
            self._clock.reschedule(0)

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

    async def gone(self) -> None:
        """Return when the client has gone, or was answered."""
        await self._ended.wait()
        while not self._gone.is_set():
            if (await self._receive())["type"] == "http.disconnect":
                self._gone.set()

    async def _disconnect(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}


async def _as_long_as_wanted(app: ASGIApp, scope: Scope, body: _Body, *, send: Send) -> None:
    """Run the app as long as its client is there: what nobody waits for any more is cancelled, and begun no further."""
    started = answered = False

    async def noted(message: Message) -> None:
        nonlocal started, answered
        started = True
        await send(message)
        answered = message["type"] == "http.response.body" and not message.get("more_body", False)

    work = asyncio.ensure_future(answer_refusals(app, scope, body.receive, send=noted))
    gone = asyncio.ensure_future(body.gone())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and not answered:
            work.cancel()
            await asyncio.wait({work})
            if not started:  # nobody hears it, but those who count what became of requests
                await send({"type": "http.response.start", "status": _GONE, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            return
        await work
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return scope["method"] in ("POST", "PUT", "PATCH") and (
        headers.get("content-length", "0").strip() != "0" or "transfer-encoding" in headers
    )


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


def _stopping() -> Refusal:
    return Refusal(
        503,
        "stopping",
        "the server is stopping: it finishes what it has taken and takes nothing new.",
        hint="Try again in a moment.",
        headers={"Retry-After": "5", "Connection": "close"},
    )
