"""The FastAPI app around the models: its lifespan, routers, exception handlers, middleware and page."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from serving.api import jobs, label_studio, models, openapi, translate
from serving.api.auth import LOOPBACK, AllowedHosts, BearerTokens, RateLimit
from serving.api.kserve import routes as kserve
from serving.api.middleware import ErrorShape, RequestBody, RequestRecord, RootPath, error_response
from serving.errors import Refusal, ServingError
from serving.inference.parameters import invalid_fields
from serving.inference.pipeline import Backend, refusal_of
from serving.jobs.runner import Jobs
from serving.models.model import RUN_FAILURES
from serving.models.repository import Repository, reload_repository
from serving.settings import Settings
from serving.studio.project import Project
from serving.studio.routes import studio_router
from serving.studio.work import Work
from serving.telemetry.logging import HEALTH
from serving.telemetry.metrics import Metrics
from serving.ui.mount import PageMount


def create_app(settings: Settings) -> FastAPI:
    """The app. `app.state` has `backend`, `metrics`, `jobs` (or None) and `reload`; the lifespan loads the models."""
    app = FastAPI(title="fewpair", version=_version(), openapi_url=None, lifespan=_lifespan)
    app.state.settings = settings
    app.state.metrics = Metrics()
    app.state.backend = Backend(settings)
    app.state.backend.not_ready_reason = "the models are being loaded"
    app.state.jobs = None
    app.state.page = PageMount(app.state.backend)
    app.state.work = Work()
    if settings.studio is not None:
        app.include_router(studio_router(Project(settings.studio), app.state.work))
    for part in (translate, models, jobs, kserve, label_studio):
        app.include_router(part.router)
    app.include_router(translate.page)
    app.include_router(models.admin)
    _add_pages(app)
    for kind in (Refusal, HTTPException, RequestValidationError, ClientDisconnect, OSError, *RUN_FAILURES):
        app.add_exception_handler(kind, respond_to_error)
    return app


def middleware(app: FastAPI) -> list[tuple[type, dict[str, Any]]]:
    """Return the middleware around the app and BentoML's endpoints with its options, outermost first.

    CORS is outermost, so that browsers may read errors too and preflights need no token.
    """
    settings: Settings = app.state.settings
    larger = {"/v1/jobs": settings.jobs_max_bytes} if settings.jobs else {}
    hosts = LOOPBACK if settings.studio else settings.allowed_hosts
    cors = {"allow_methods": ["GET", "POST", "DELETE"], "allow_headers": ["*"], "expose_headers": ["*"]}
    return [
        (RootPath, {"root_path": settings.root_path}),
        *([(CORSMiddleware, {"allow_origins": settings.cors_origins, **cors})] if settings.cors_origins else []),
        (RequestRecord, {"metrics": app.state.metrics, "log": settings.access_log or settings.log == "json"}),
        (ErrorShape, {"why_not_ready": lambda: app.state.backend.not_ready_reason}),
        *([(AllowedHosts, {"allowed_hosts": hosts})] if hosts else []),
        *([(BearerTokens, {"tokens": settings.all_tokens})] if settings.tokens else []),
        *([(RateLimit, {})] if settings.public else []),
        (RequestBody, {"timeout": settings.body_timeout, "max_bytes": settings.max_bytes, "larger": larger}),
    ]


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings, backend, metrics = app.state.settings, app.state.backend, app.state.metrics
    scheduler = backend.scheduler
    scheduler.on_run = metrics.count_run
    metrics.watch(admitted=lambda: scheduler.admitted, waiting=lambda: scheduler.waiting)

    reloading = asyncio.Lock()

    async def reload() -> Repository:
        """Read the models folder again. Reloads run one after another, each to its end even if its caller leaves."""
        async with reloading:
            backend.models = found = await asyncio.to_thread(reload_repository, backend.models, settings)
            await asyncio.to_thread(gc.collect)  # replaced models may be in reference cycles
            backend.not_ready_reason = None if settings.studio else found.not_ready_reason  # it starts without a model
            return found

    app.state.reload = reload
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(scheduler.close)
        stack.push_async_callback(app.state.work.stop, interrupt=False)  # BentoML's supervisor has signalled it too
        try:
            await reload()
            if settings.jobs is not None:
                app.state.jobs = Jobs(settings.jobs, settings, backend)
                await stack.enter_async_context(app.state.jobs.working())
        except ServingError as error:  # BentoML would restart a worker that fails: report why, and stay not ready
            backend.not_ready_reason = str(error)
        if settings.ui:
            await stack.enter_async_context(app.state.page.opened())
        yield


def _add_pages(app: FastAPI) -> None:
    """Add what lies beside the API: its OpenAPI document and page, the metrics, and the page at /ui."""
    settings: Settings = app.state.settings

    @app.get("/v1/openapi.json", include_in_schema=False)
    async def document(request: Request) -> JSONResponse:
        return JSONResponse(openapi.document(app, request, tokens=bool(settings.tokens), open_paths=HEALTH))

    @app.get("/v1/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return get_swagger_ui_html(  # with the files that BentoML serves, so that it works without the internet
            openapi_url=f"{root}/v1/openapi.json",
            title="fewpair API",
            swagger_js_url=f"{root}/static_content/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/static_content/swagger-ui.css",
            swagger_favicon_url=f"{root}/static_content/favicon-light-32x32.png",
        )

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:  # not async: FastAPI runs it in a thread
        return Response(app.state.metrics.render(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def front(request: Request) -> RedirectResponse:
        return RedirectResponse(request.scope.get("root_path", "") + ("/ui/" if settings.ui else "/v1/docs"))

    app.mount("/ui", app.state.page)


async def respond_to_error(request: Request, error: Exception) -> Response:
    """The response to an error: a refusal as it is, 507 for a full disk, else 500 with a traceback in the log."""
    if isinstance(error, HTTPException):  # plain, for ErrorShape, as those of BentoML
        return PlainTextResponse(status_code=error.status_code, headers=error.headers)
    if isinstance(error, RequestValidationError):
        error = invalid_fields(error.errors())
    elif isinstance(error, ClientDisconnect):  # 499 is nginx's status for it
        error = Refusal(499, "client_closed", "the client closed its connection.")
    return error_response(refusal_of(error), request.scope)


def _version() -> str:
    try:
        return version("fewpair")
    except PackageNotFoundError:  # a bento holds the code without its package metadata
        return "unpackaged"
