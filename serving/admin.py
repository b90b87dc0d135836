"""What the operator asks of a running server, with the admin token: POST /v1/admin/reload."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving import openapi
from serving.described import Error
from serving.errors import Refusal
from serving.inside import Inside
from serving.tokens import token_matches

_EXAMPLE = {
    "added": ["facades-usis"],
    "changed": ["camvid-hybrid-compact"],
    "removed": [],
    "kept": ["maps-pix2pix"],
    "failed": [{"name": "half-copied", "reason": "half-copied has no manifest.json. Export the model.", "former_answers": False}],
    "defaults": {"to_label": "camvid-hybrid-compact", "to_photo": "camvid-hybrid-compact"},
    "workers": {"reloaded": 2, "behind": []},
}
_REFUSALS = {
    401: ("no_admin_token", "the request does not carry the admin token.", "Send it: curl -H 'Authorization: Bearer TOKEN'."),
    404: (
        "no_admin",
        "this server was started without an admin token, so that nothing changes it.",
        "Start it with FEWPAIR_ADMIN_TOKEN, or start it again for new models.",
    ),
    409: ("cannot_reload", "the models folder exported cannot be read: Permission denied.", "The former models go on answering."),
}


class FailedEntry(BaseModel):
    """A folder of the models folder that cannot be served as it is now."""

    name: str
    reason: str
    former_answers: bool = Field(description="Whether the model that was served from it before goes on answering.")


class BehindEntry(BaseModel):
    """A worker that does not answer from the same models."""

    worker: int = Field(description="Its process id.")
    reason: str


class Workers(BaseModel):
    """How far the reload went."""

    reloaded: int = Field(description="Processes that answer from the new models.")
    behind: list[BehindEntry]


class Reloaded(BaseModel):
    """What a reload found in the models folder."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    kept: list[str] = Field(description="Unchanged, by their manifests and by the sums of their graphs: not loaded again.")
    failed: list[FailedEntry]
    defaults: dict[str, str] = Field(description="Direction to the model that answers when none is named.")
    workers: Workers


def build_admin(inside: Inside) -> APIRouter:
    """The routes of the operator."""
    router = APIRouter(tags=["admin"])

    async def operator(request: Request) -> None:
        if inside.admin_token is None:
            raise _refusal(404)
        if not token_matches(request.headers.get("authorization"), [inside.admin_token]):
            raise _refusal(401, headers={"WWW-Authenticate": 'Bearer realm="fewpair admin"'})

    @router.post(
        "/v1/admin/reload",
        response_model=Reloaded,
        dependencies=[Depends(operator), Depends(openapi.ADMIN_TOKEN)],
        responses={
            200: {"content": {"application/json": {"example": _EXAMPLE}}},
            **{status: _told(status, words) for status, words in _WORDS.items()},
            **openapi.errors(503),
        },
        summary="Load new and changed models without a restart",
    )
    async def reload() -> Response:
        """Looks into the models folder again, in every worker: new and changed models are loaded, warmed and asked before they answer,
        removed ones stop, unchanged ones are left alone. A changed folder that cannot be served leaves its former model answering.
        Requests in flight finish on the model they began with."""
        if inside.reloader is None:
            raise Refusal(503, "not_ready", inside.trouble or "the models are being loaded", headers={"Retry-After": "5"})
        return JSONResponse(await inside.reloader.reload())

    return router


_WORDS = {
    401: "The request does not carry the admin token.",
    404: "The server was started without an admin token.",
    409: "The models folder as it is now leaves nothing to answer from. The former models go on answering.",
}


def _refusal(status: int, headers: dict[str, str] | None = None) -> Refusal:
    code, message, hint = _REFUSALS[status]
    return Refusal(status, code, message, hint=hint, headers=headers)


def _told(status: int, words: str) -> dict[str, Any]:
    return {"model": Error, "description": words, "content": {"application/json": {"example": _refusal(status).body()}}}
