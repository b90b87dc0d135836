"""Holds the address of the page while gradio is still being imported, so that the API answers seconds earlier."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.operations import Operations

logger = logging.getLogger("fewpair.serving")
_EACH = 1.0  # seconds between two looks at whether there is something to show by now
_SOON = """<!doctype html><html lang="en"><meta charset="utf-8"><title>fewpair</title>
<body style="font:16px system-ui;margin:4rem auto;max-width:32rem"><h1>fewpair</h1><p>{sentence}</p></body></html>"""


class LatePage:
    """An ASGI app that says "in a moment" until the page is there, and is the page from then on."""

    def __init__(self, operations: Callable[[], Operations | None]) -> None:
        self._operations = operations
        self._app: ASGIApp | None = None
        self._trouble: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is not None:
            # The page was built for its full path, so the mount that led here is taken back.
            await self._app({**scope, "root_path": scope.get("root_path", "").removesuffix("/ui")}, receive, send)
        elif scope["type"] == "http":
            sentence = self._trouble or "The page is being prepared, it appears here in a moment."
            headers = {"Retry-After": "2"} if self._trouble else {"Retry-After": "2", "Refresh": "2"}
            await HTMLResponse(_SOON.format(sentence=sentence), status_code=503, headers=headers)(scope, receive, send)

    @contextlib.asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Open the page in the background; close it on the way out."""
        leaving = asyncio.Event()
        opened = asyncio.create_task(self._open(leaving))
        try:
            yield
        finally:
            leaving.set()
            await opened

    async def _open(self, leaving: asyncio.Event) -> None:
        while (operations := self._operations()) is None:  # until a reload finds a model
            self._trouble = "No model can be served, so there is nothing to show. /readyz says why."
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(leaving.wait(), _EACH)
                return
        self._trouble = None
        try:
            app = await asyncio.get_running_loop().run_in_executor(None, _build, operations)
            async with app.router.lifespan_context(app):
                self._app = app
                logger.info("the page is open at /ui")
                await leaving.wait()
        except Exception:
            logger.exception("the page cannot be opened; the API goes on")
            self._trouble = "The page cannot be opened, the server's log says why. The API goes on."
        finally:
            self._app = None


def _build(operations: Operations) -> FastAPI:
    from serving.demo import build_page  # gradio takes seconds to import

    return build_page(operations)
