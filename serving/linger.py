"""Closing in order: who is refused while his body is still on its way hears why before the connection goes."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = 2.0


class Linger:
    """Takes in, and throws away, what a client goes on sending after it was answered, where the connection is to be closed.

    A connection that is closed with bytes unread is reset, and a reset takes along an answer that the client has not read yet: a proxy
    makes a 502 of that. The answer itself is out before; only the end is held back, for two seconds at most.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH") or "expect" in headers:
            await self._app(scope, receive, send)  # who expects to be told to continue has sent nothing yet
            return
        whole = held_back = False
        closes = scope["http_version"] == "1.0" or _says_close(headers)

        async def watched() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def held(message: Message) -> None:
            nonlocal closes, held_back
            if message["type"] == "http.response.start":
                closes = closes or _says_close(Headers(raw=message.get("headers", [])))
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            held_back = last and closes and not whole
            await send({**message, "more_body": True} if held_back else message)

        await self._app(scope, watched, held)
        if held_back:  # and the request's place is given back
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    while not whole:
                        await watched()
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _says_close(headers: Headers) -> bool:
    return "close" in headers.get("connection", "").lower()
