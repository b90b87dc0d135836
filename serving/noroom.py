"""A disk without room for what is sent: whoever sends it is told so with a 507, and no traceback fills the log."""

from __future__ import annotations

import errno
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

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
