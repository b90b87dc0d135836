"""The full API under /v1, as a FastAPI app that the service mounts: models, segment, synthesize, its OpenAPI page; and GET /metrics."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.responses import JSONResponse as Json

from serving import described, noroom, openapi, openapi_bodies
from serving.admin import build_admin
from serving.answers import Answer
from serving.asked import SegmentOptions, SynthesizeOptions
from serving.errors import Refusal
from serving.inside import Inside
from serving.intake import read_request
from serving.jobroutes import build_jobs
from serving.kserve import build_kserve
from serving.memory import given_back
from serving.page import LatePage
from serving.palette import legend


def respond(made: Answer) -> Response:
    """An answer as HTTP."""
    return Response(made.body, media_type=made.media_type, headers=made.headers)


def respond_refusal(refusal: Refusal) -> Response:
    """A refusal as HTTP."""
    return Json(refusal.body(), status_code=refusal.status, headers=refusal.headers)


def build_api(inside: Inside, *, page: LatePage | None, tokens: bool = False) -> FastAPI:
    """The app: answers as soon as `inside` has operations, follows reloads, opens the page in its own time, and ends with the server.

    `tokens` says whether the server around it asks for them.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await inside.warm_up()
            following = contextlib.nullcontext() if inside.reloader is None else inside.reloader.following()
            jobs = contextlib.nullcontext() if inside.jobs is None else inside.jobs.working()
            gauges = contextlib.nullcontext() if inside.metrics is None else inside.metrics.kept_true()
            async with given_back(), gauges, following, jobs, contextlib.nullcontext() if page is None else page.opening():
                yield
        finally:
            if inside.operations is not None:
                inside.operations.gate.close()

    api = FastAPI(
        title="fewpair",
        version=_version(),
        openapi_url=None,  # openapi.document differs with the address that is asked
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        openapi_tags=openapi.TAGS,
    )

    @api.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return respond_refusal(refusal)

    api.add_exception_handler(OSError, noroom.refused)

    @api.get(
        "/v1/models",
        tags=["models"],
        response_model=described.ModelList,
        responses={200: {"content": {"application/json": {"example": openapi.LIST_EXAMPLE}}}, **openapi.errors(503)},
        summary="The models, their classes and figures",
    )
    async def models() -> Response:
        """Every folder of the models folder: those that answer, and those that cannot be served with the reason."""
        return Json(described.model_list(inside.need().shelf))

    @api.get(
        "/v1/models/{name}",
        tags=["models"],
        response_model=described.ModelCard,
        responses={200: {"content": {"application/json": {"example": openapi.CARD_EXAMPLE}}}, **openapi.errors(404, 503)},
        summary="One model with its card",
    )
    async def model(name: Annotated[str, openapi.NAME]) -> Response:
        """What `/v1/models` says of one model, with how it was trained and what it was measured at."""
        shelf = inside.need().shelf
        return Json(described.model_card(shelf.find(name), shelf))

    @api.get(
        "/v1/models/{name}/legend",
        tags=["models"],
        response_class=Response,
        responses={200: openapi.image("A PNG."), **openapi.errors(404, 503)},
        summary="A model's classes and colours as a picture",
    )
    async def legend_png(name: Annotated[str, openapi.NAME]) -> Response:
        """A legend to print beside label maps; 404 too for models whose label side is a picture."""
        domain = inside.need().shelf.find(name).manifest.label
        if domain.kind == "picture":
            raise Refusal(404, "no_classes", f"the label side of model {name} is a picture, it has no classes.")
        return Response(legend(domain), media_type="image/png")

    @api.post(
        "/v1/segment",
        tags=["translate"],
        response_class=Response,
        responses={200: openapi.SEGMENTED, **openapi.errors(400, 404, 408, 413, 415, 503, 504, 507)},
        openapi_extra=openapi_bodies.segment_request(),
        summary="Photo to label map",
    )
    async def segment(request: Request) -> Response:
        """The label map of a photo, at the photo's size; of several photos, a ZIP or a JSON list of their answers."""
        operations = inside.need()
        async with read_request(request, SegmentOptions, settings=operations.settings, gate=operations.gate) as asked:
            return respond(await operations.segment(asked.pictures, asked.options, listed=asked.listed))

    @api.post(
        "/v1/synthesize",
        tags=["translate"],
        response_class=Response,
        responses={200: openapi.SYNTHESIZED, **openapi.errors(400, 404, 408, 413, 415, 503, 504, 507)},
        openapi_extra=openapi_bodies.synthesize_request(),
        summary="Label map to photo",
    )
    async def synthesize(request: Request) -> Response:
        """A photo that could have this label map, at the label map's size. The same seed gives the same bytes."""
        operations = inside.need()
        async with read_request(request, SynthesizeOptions, settings=operations.settings, gate=operations.gate) as asked:
            return respond(await operations.synthesize(asked.pictures, asked.options, listed=asked.listed))

    @api.get("/v1/openapi.json", include_in_schema=False)
    async def document(request: Request) -> Json:
        return Json(openapi.document(api, request, bodies=openapi_bodies.schemas(), tokens=tokens))

    @api.get("/v1/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(  # with the assets that BentoML itself serves, so that the page works without the internet
            openapi_url="/v1/openapi.json",
            title="fewpair API",
            swagger_js_url="/static_content/swagger-ui-bundle.js",
            swagger_css_url="/static_content/swagger-ui.css",
            swagger_favicon_url="/static_content/favicon-light-32x32.png",
        )

    @api.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(inside.metrics.render() if inside.metrics else b"", media_type="text/plain; version=0.0.4")

    @api.get("/", include_in_schema=False)
    async def front() -> RedirectResponse:
        return RedirectResponse("/v1/docs" if page is None else "/ui/")

    @api.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)

    api.include_router(build_jobs(inside))
    api.include_router(build_admin(inside))
    api.include_router(build_kserve(inside, version=api.version))
    if page is not None:
        api.mount("/ui", page)
    else:
        api.add_api_route("/ui", _no_page, include_in_schema=False)
        api.add_api_route("/ui/{rest:path}", _no_page, include_in_schema=False)
    return api


async def _no_page() -> None:
    raise Refusal(
        404,
        "not_found",
        "the page was switched off on this server (ui = off).",
        hint="GET /v1/docs shows the API; without --no-ui (FEWPAIR_UI=off) there is a page.",
    )


def _version() -> str:
    try:
        return version("fewpair")
    except PackageNotFoundError:  # a bento holds the code without its package metadata
        return "unpackaged"
