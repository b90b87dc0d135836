"""The page at /ui as an ASGI app that answers while gradio, which takes seconds to import, is still being loaded."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import Refusal
from serving.inference.pipeline import Backend

logger = logging.getLogger("fewpair.serving")
_PREPARING = """<!doctype html><html lang="en"><meta charset="utf-8"><title>fewpair</title>
<body style="font:16px system-ui;margin:4rem auto;max-width:32rem"><h1>fewpair</h1><p>{sentence}</p></body></html>"""

# The header Refresh does not load an address with a # anew.
_AGAIN = "<script>setTimeout(() => location.reload(), 2000)</script>"


class PageMount:
    """Opens the page in the background."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._page: FastAPI | None = None
        self._error: str | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Import and build the page meanwhile."""
        opening = asyncio.create_task(self._open())
        try:
            yield
        finally:
            await opening

    async def _open(self) -> None:
        try:
            module = await asyncio.to_thread(importlib.import_module, "serving.ui.page")
            # Its lifespan is not entered: it would start Gradio's queue, which polls, and the page sends no events.
            self._page = await asyncio.to_thread(module.build_page, self._backend)
            logger.info("the page is open at /ui")
        except Exception:
            logger.exception("the page cannot be opened; the API goes on")
            self._error = "The page cannot be opened, the server's log says why. The API goes on."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._page is not None:
            await self._serve(self._page, scope, receive, send)
        elif not self._backend.settings.ui:
            hint = "GET /v1/docs shows the API; without --no-ui (FEWPAIR_UI=off) there is a page."
            raise Refusal(404, "not_found", "the page is switched off on this server (ui = off).", hint=hint)
        elif scope["type"] == "http":
            sentence = self._error or "The page is being prepared, it appears here in a moment."
            content = _PREPARING.format(sentence=sentence) + ("" if self._error else _AGAIN)
            response = HTMLResponse(content, status_code=503, headers={"Retry-After": "2"})
            await response(scope, receive, send)

    async def _serve(self, page: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope).mutablecopy()
        if host := headers.get("x-forwarded-host"):  # with which Gradio would leave the root path out of its URLs
            headers["host"] = host
            del headers["x-forwarded-host"]
        root_path = scope.get("root_path", "").removesuffix("/ui")  # the page is built for its full path
        await page({**scope, "root_path": root_path, "headers": headers.raw}, receive, send)
