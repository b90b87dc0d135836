"""POST /v1/admin/reload, for the operator."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.requests import Request

from serving.api import openapi
from serving.api.auth import require_admin
from serving.api.schemas import BrokenEntry
from serving.errors import Refusal, ServingError
from serving.models.manifest import DirectionName

router = APIRouter(tags=["admin"])


class FailedEntry(BrokenEntry):
    """A folder of the models folder that cannot be served as it is now."""

    former_answers: bool = Field(description="Whether the model that was served from it before goes on answering.")


class Reloaded(BaseModel):
    """What a reload found in the models folder."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    kept: list[str] = Field(description="Unchanged, by their manifests and by the sums of their graphs.")
    failed: list[FailedEntry]
    defaults: dict[DirectionName, str] = Field(description="Direction to the model that answers when none is named.")


@router.post(
    "/v1/admin/reload",
    dependencies=[Depends(require_admin)],
    responses=openapi.errors(401, 404, 409, 503),
    summary="Load new and changed models without a restart",
)
async def reload(request: Request) -> Reloaded:
    """Reads the models folder again: new and changed models are loaded and warmed up before they answer, removed ones
    stop, unchanged ones are kept. A changed folder that cannot be served leaves its former model answering.
    Requests under way finish on the model they began with."""
    try:
        found = await asyncio.shield(request.app.state.reload())
    except ServingError as error:
        raise Refusal(409, "cannot_reload", error.message, hint=error.hint) from error
    former = found.repository.models
    failed = [
        FailedEntry(name=name, reason=reason, former_answers=name in former)
        for name, reason in found.repository.broken.items()
    ]
    return Reloaded(**found.changes, failed=failed, defaults=dict(found.repository.defaults))
