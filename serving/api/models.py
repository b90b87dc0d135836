"""GET /v1/models, a model's card, its labelled photos, and POST /v1/admin/reload, for the operator."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from serving.api import openapi
from serving.api.auth import require_admin
from serving.api.requests import Ready
from serving.api.schemas import BrokenEntry, ModelCard, ModelEntry, ModelList
from serving.errors import Refusal, ServingError
from serving.models.manifest import DirectionName
from serving.models.model import ExportedModel
from serving.models.repository import Repository

router = APIRouter(prefix="/v1/models", tags=["models"])
admin = APIRouter(tags=["admin"])
Name = Annotated[str, Path(description="The model's name, which is its folder's.", examples=["camvid-hybrid-compact"])]


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


@router.get("", responses=openapi.errors(503), summary="The models, their classes and figures")
async def models(backend: Ready) -> ModelList:
    """Every folder of the models folder: those that answer, and those that cannot be served with the reason."""
    models = backend.models
    return ModelList(
        models=[ModelEntry.model_validate(_entry(model, models)) for model in models.models.values()],
        broken=[BrokenEntry(name=name, reason=reason) for name, reason in models.broken.items()],
        defaults=dict(models.defaults),
    )


@router.get("/{name}", responses=openapi.errors(404, 503), summary="One model with its card")
async def model(name: Name, backend: Ready) -> ModelCard:
    """The entry of `/v1/models`, with training record, parity of the export, tiling and resize rule."""
    return ModelCard.model_validate(_entry(backend.models.find(name), backend.models))


@router.get(
    "/{name}/pairs",
    response_class=Response,
    responses={200: openapi.JPEG, **openapi.errors(404, 503)},
    summary="The labelled photos that a model learned from",
)
async def pairs(name: Name, backend: Ready) -> Response:
    """Each photo above its label map; 404 where the photos may not be passed on, as those of datasets."""
    path = backend.models.find(name).manifest.folder / "pairs.jpg"
    if not path.is_file():
        raise Refusal(404, "no_pairs", f"the photos that model {name} learned from are not part of it.")
    return FileResponse(path)


@router.get(
    "/{name}/examples/{file}",
    response_class=Response,
    responses={200: openapi.PICTURE, **openapi.errors(404, 503)},
    summary="A picture to try a model with",
)
async def example(name: Name, file: str, backend: Ready) -> Response:
    """`EXAMPLE.jpg`, a photo, and for a model that makes photos `EXAMPLE.png`, the label map that it was made of."""
    manifest = backend.models.find(name).manifest
    path = manifest.folder / "examples" / file
    if path.stem not in manifest.examples or not path.is_file():
        raise Refusal(404, "no_example", f"model {name} has no example {file}.", hint="/v1/models lists them.")
    return FileResponse(path)


@admin.post(
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
    former = found.models
    failed = [FailedEntry(name=name, reason=why, former_answers=name in former) for name, why in found.broken.items()]
    return Reloaded(**found.changes, failed=failed, defaults=dict(found.defaults))


def _entry(model: ExportedModel, models: Repository) -> dict[str, Any]:
    """What the manifest says, and what the server knows of the model."""
    manifest, to_photo = model.manifest, model.manifest.directions.get("to_photo")
    return vars(manifest) | {
        "directions": list(manifest.directions),
        "default_for": [direction for direction, name in models.defaults.items() if name == manifest.name],
        "provider": model.provider,
        "int8": model.int8,
        "label_kind": manifest.label.kind,
        "classes": manifest.label.classes,
        "size": None if manifest.resize.rule == "none" else [manifest.resize.height, manifest.resize.width],
        "confidence": model.has_confidence,
        "seeded": to_photo is not None and to_photo.noise is not None,
        "style": manifest.style is not None,
        "previous": to_photo is not None and to_photo.previous is not None,
    }
