"""Who may come in before their body is read: a place first, a clock on the body, an eye on the client, and an orderly end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.connection import CUT
from serving.errors import Refusal
from serving.flows import SLOWEST, Body, Flow, Sending, Unread
from serving.gate import Gate, Ticket
from serving.middleware import answer_refusals, refuse

_GONE = 499  # what nginx writes down for a client that did not wait for its answer
_PAGE = "/ui"
_READY = ("/readyz", "/v2/health/ready")
_HEALTH = (*_READY, "/livez", "/healthz", "/v2/health/live", "/metrics")
_LOOK_EVERY = 0.05
_UNREAD = 2**26  # bytes of answers that are being sent without a place


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
        self._unread = Unread(_UNREAD)
        self._inside: dict[Flow, Ticket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["path"] in _HEALTH and not (self._stopping.begun and scope["path"] in _READY)):
            await self._app(scope, receive, send)
            return
        if self._stopping.begun:
            await refuse(_stopping(), scope=scope, receive=receive, send=send)
            return
        if scope["path"].startswith(_PAGE):  # its event streams are open as long as somebody looks at the page
            await answer_refusals(self._app, scope, self._body(scope, receive).receive, send=self._sending(scope, send).send)
            return
        self._stopping.open += 1
        try:
            await self._let_in(scope, receive, send)
        finally:
            self._stopping.open -= 1

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _has_body(scope):
            await self._app(scope, receive, self._sending(scope, send).send)
            return
        try:
            gate = self._gate()
            self._make_room(gate)
            async with gate.admitted() as ticket:
                body = self._body(scope, receive, on_end=gate.start_clock)
                sending = self._sending(scope, send, let_go=lambda: gate.take_back(ticket))
                self._inside |= {body: ticket, sending: ticket}
                try:
                    await _as_long_as_wanted(self._app, scope, body, send=sending.send)
                finally:
                    self._inside.pop(body, None)
                    self._inside.pop(sending, None)
        except Refusal as refusal:
            await refuse(refusal, scope=scope, receive=receive, send=send)

    def _make_room(self, gate: Gate) -> None:
        """Take back places of bodies and answers that trickle, the slowest first: a few senders or readers must not shut out all."""
        while gate.no_place and (slow := [flow for flow, ticket in self._inside.items() if ticket.valid and flow.trickles()]):
            slowest = min(slow, key=Flow.pace)
            gate.take_back(self._inside.pop(slowest))
            slowest.give_up()

    def _body(self, scope: Scope, receive: Receive, *, on_end: Callable[[], object] = lambda: None) -> Body:
        declared = Headers(scope=scope).get("content-length", "")
        large = int(declared) / SLOWEST if declared.isdecimal() and len(declared) < 16 else 0
        return Body(receive, self._body_timeout + large, on_end=on_end)

    def _sending(self, scope: Scope, send: Send, *, let_go: Callable[[], object] | None = None) -> Sending:
        cut = scope.get("state", {}).get(CUT, _close)
        return Sending(send, self._body_timeout, cut=cut, unread=self._unread, let_go=let_go)


async def _as_long_as_wanted(app: ASGIApp, scope: Scope, body: Body, *, send: Send) -> None:
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


def _close() -> NoReturn:
    raise ConnectionAbortedError(
        "an answer was not read in time, and the server of this application has no other way to close a connection."
    )


def _stopping() -> Refusal:
    return Refusal(
        503,
        "stopping",
        "the server is stopping: it finishes what it has taken and takes nothing new.",
        hint="Try again in a moment.",
        headers={"Retry-After": "5", "Connection": "close"},
    )
