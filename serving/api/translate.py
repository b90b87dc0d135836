"""POST /v1/segment, /v1/synthesize, /v1/style and /v1/rank."""

from __future__ import annotations

from functools import partial
from typing import IO, Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from serving.api import openapi, schemas
from serving.api.requests import RAW_KINDS, Ready, answer, spooled, while_connected
from serving.errors import Refusal
from serving.imaging.decode import encode_grey
from serving.imaging.labels import read_label
from serving.inference.parameters import RankParameters, SegmentParameters, StyleParameters, SynthesizeParameters
from serving.inference.scheduler import Task

router = APIRouter(prefix="/v1", tags=["translate"], default_response_class=Response)
_REFUSALS = openapi.errors(400, 404, 408, 413, 415, 503, 504, 507)


@router.post(
    "/segment",
    responses={200: openapi.SEGMENTED, **_REFUSALS},
    openapi_extra=openapi.form(SegmentParameters, raw=RAW_KINDS),
    summary="Photo to label map",
)
async def segment(request: Request, query: Annotated[SegmentParameters, Query()], backend: Ready) -> Response:
    """The label map of a photo, at the photo's size; of several photos, a ZIP of their label maps."""
    return await answer(request, query, backend)


@router.post(
    "/synthesize",
    responses={200: openapi.SYNTHESIZED, **_REFUSALS},
    openapi_extra=openapi.form(SynthesizeParameters, raw=RAW_KINDS),
    summary="Label map to photo",
)
async def synthesize(request: Request, query: Annotated[SynthesizeParameters, Query()], backend: Ready) -> Response:
    """A photo that could have this label map, at the label map's size. The same seed gives the same bytes."""
    return await answer(request, query, backend)


@router.post(
    "/style",
    responses={200: openapi.STYLE, **_REFUSALS},
    openapi_extra=openapi.form(StyleParameters, raw=RAW_KINDS),
    summary="Photo to style",
)
async def style(request: Request, query: Annotated[StyleParameters, Query()], backend: Ready) -> Response:
    """The numbers that give photos the look of this one, as the field `style` of `/v1/synthesize`."""
    return await answer(request, query, backend)


@router.post(
    "/rank",
    responses={200: {"model": schemas.RankReport, "description": "The order, with reasons."}, **_REFUSALS},
    openapi_extra=openapi.form(RankParameters, raw=RAW_KINDS),
    summary="Which photos to label next",
)
async def rank(request: Request, query: Annotated[RankParameters, Query()], backend: Ready) -> Response:
    """The photos in the order in which to label them: those first that stand for many of which the model is not sure
    and that differ from the ones before. Near-duplicates of an earlier photo come last. The model must give a
    confidence."""
    return await answer(request, query, backend)


page = APIRouter(include_in_schema=False)


@page.post("/ui/map")
async def read_map(request: Request, backend: Ready, model: str | None = None) -> Response:
    """Read a label map for the page, as the API does with snap, and return its ids as a grey PNG."""
    backend.scheduler.check_capacity()
    domain = backend.models.choose(model, "to_photo").manifest.label
    if domain.kind == "picture":
        raise Refusal(400, "no_classes", "the model's label maps are pictures without classes.", hint="Send it to /v1.")

    def work(file: IO[bytes], _: Task) -> tuple[bytes, str]:
        label = read_label(file.read(), domain, backend.limits(), snap=True)
        return encode_grey(label.ids), label.spelling

    async with spooled(request) as body, backend.scheduler.admit() as admission:
        ids, spelling = await while_connected(request, admission.work(partial(work, body)))
    return Response(ids, media_type="image/png", headers={"X-Label-Spelling": spelling})
