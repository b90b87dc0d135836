"""The last resort against a request that nobody answers: BentoML's own, but one that leaves nothing behind."""

from __future__ import annotations

import asyncio

from bentoml._internal.server.http import traffic
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import Refusal
from serving.middleware import refuse


class LastResort:
    """Answers 504 where no answer has begun within `timeout` seconds.

    BentoML's middleware of the same purpose sets a timer for every request and never takes it back: each answered request stays in memory,
    with its context, until its time is over. At some hundred requests a second and minutes for an upload these are hundreds of megabytes.
    """

    def __init__(self, app: ASGIApp, timeout: float) -> None:
        self._app = app
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        clock = asyncio.timeout(self._timeout)

        async def begun(message: Message) -> None:
            clock.reschedule(None)
            await send(message)

        try:
            async with clock:
                await self._app(scope, receive, begun)
        except TimeoutError:
            if not clock.expired():
                raise
            refusal = Refusal(504, "timeout", f"the request was not answered within {self._timeout:g} s.", hint="Try again.")
            await refuse(refusal, scope=scope, receive=receive, send=send)


def install() -> None:
    """Have BentoML put this in the place of its own; it has no setting that leaves its own out."""
    traffic.TimeoutMiddleware = LastResort  # type: ignore[misc, assignment]
