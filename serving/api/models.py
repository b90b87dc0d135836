"""GET /v1/models, a model's card, and its labelled photos."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import FileResponse, Response

from serving.api import openapi
from serving.api.requests import Ready
from serving.api.schemas import ModelCard, ModelList, model_card, model_list
from serving.errors import Refusal

router = APIRouter(prefix="/v1/models", tags=["models"])
Name = Annotated[str, Path(description="The model's name, which is its folder's.", examples=["camvid-hybrid-compact"])]


@router.get("", responses=openapi.errors(503), summary="The models, their classes and figures")
async def models(backend: Ready) -> ModelList:
    """Every folder of the models folder: those that answer, and those that cannot be served with the reason."""
    return model_list(backend.models)


@router.get("/{name}", responses=openapi.errors(404, 503), summary="One model with its card")
async def model(name: Name, backend: Ready) -> ModelCard:
    """The entry of `/v1/models`, with training record, parity of the export, tiling and resize rule."""
    return model_card(backend.models.find(name), backend.models)


@router.get(
    "/{name}/pairs",
    response_class=Response,
    responses={200: openapi.JPEG, **openapi.errors(404, 503)},
    summary="The labelled photos that a model learned from",
)
async def pairs(name: Name, backend: Ready) -> Response:
    """Each photo above its label map; 404 where the photos may not be passed on, as those of datasets."""
    path = backend.settings.models / backend.models.find(name).name / "pairs.jpg"
    if not path.is_file():
        raise Refusal(404, "no_pairs", f"the photos that model {name} learned from are not part of it.")
    return FileResponse(path, media_type="image/jpeg")
