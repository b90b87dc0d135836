"""A disk without room for what is sent: whoever sends it is told so with a 507, and no traceback fills the log."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount

from serving.errors import Refusal

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether this says that the disk, or what of it somebody may use, is full."""
    return error.errno in _FULL


def temporary_full() -> Refusal:
    """The refusal of an upload that the temporary files have no room for."""
    return Refusal(
        507,
        "disk_full",
        "the disk that uploads pass through is full.",
        hint="Try again in a moment, or send a smaller file; the operator makes room in TMPDIR.",
    )


async def refused(_: Request, error: Exception) -> Response:
    """How Starlette answers an OSError: where the disk is full, with the refusal; anything else is a fault."""
    if not isinstance(error, OSError) or not is_full(error):
        raise error
    refusal = temporary_full()
    return JSONResponse(refusal.body(), status_code=refusal.status)


def install() -> None:
    """Have BentoML's own endpoints answer so too: they write each upload to the disk before anybody of ours sees it."""
    from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]  # slow, and no business of the launcher's

    answer = ServiceAppFactory.api_endpoint

    async def api_endpoint(self: Any, name: str, request: Request) -> Response:
        try:
            response: Response = await answer(self, name, request)
        except OSError as error:
            return await refused(request, error)
        return response

    ServiceAppFactory.api_endpoint = api_endpoint


def install_in_page(page: FastAPI) -> None:
    """Have the page's own uploads answer so too, and leave nothing of those that do not arrive whole."""
    from gradio.route_utils import GradioMultiPartParser  # gradio takes seconds to import

    for mount in page.routes:
        if isinstance(mount, Mount) and isinstance(mount.app, FastAPI):
            mount.app.add_exception_handler(OSError, refused)
    parse = GradioMultiPartParser.parse

    async def parse_or_remove(self: Any) -> FormData:
        try:
            form: FormData = await parse(self)
        except BaseException:  # Gradio itself removes them where a form is wrong, not where its sender goes or the disk is full
            for file in self._files_to_close_on_error:
                with contextlib.suppress(OSError):  # what was not yet written still does not fit
                    file.close()
                Path(file.name).unlink(missing_ok=True)
            raise
        return form

    if parse.__name__ != parse_or_remove.__name__:
        GradioMultiPartParser.parse = parse_or_remove  # type: ignore[method-assign]
