"""The BentoML service: POST /segment and /synthesize, readiness, and the FastAPI app mounted beside them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer  # there is no public flush of traces
from bentoml.validators import ContentType
from starlette.requests import Request
from starlette.responses import Response

from serving.api.requests import answer, ready
from serving.app import create_app, middleware, respond_to_error
from serving.inference.parameters import SegmentParameters, SynthesizeParameters, validated
from serving.settings import load_settings
from serving.telemetry import logging as request_log

_FLUSH_SECONDS = 3.0
settings = load_settings()
request_log.set_up(settings)
app = create_app(settings)
AnyImage = Annotated[Path, ContentType("image/*")]


class _Unread(bentoml.IODescriptor):  # type: ignore[misc]
    """Leaves the form to the endpoint. BentoML would parse its texts as JSON, and fetch a text in `image` by URL."""

    image: Path | None = None

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> Any:
        """Read nothing."""
        return cls.model_construct()


class SegmentInput(SegmentParameters, _Unread):
    """A photo and the parameters."""


class SynthesizeInput(SynthesizeParameters, _Unread):
    """A label map and the parameters."""


@bentoml.service(
    name="fewpair",
    workers=1,
    traffic={"timeout": settings.longest() + 60},  # a last resort: the scheduler's own deadline is earlier
    tracing={"excluded_urls": ".*"},  # until an operator sets it: BentoML's timer holds each span until the timeout
    logging={"access": {"enabled": False}},  # telemetry/logging.py logs requests
    metrics={"enabled": False, "namespace": "fewpair"},  # labelled with every path ever requested
)
@bentoml.asgi_app(app, path="/", name="api")
class Translator:
    """Photo to label map, label map to photo."""

    def __is_ready__(self) -> bool:
        return app.state.backend.not_ready_reason is None

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def flush_traces(self) -> None:
        """Export the spans that are still buffered: the worker is ended by a signal, which skips exit handlers."""
        exporting = threading.Thread(target=BentoMLContainer.tracer_provider.get().shutdown, daemon=True)
        exporting.start()
        await asyncio.to_thread(exporting.join, _FLUSH_SECONDS)

    @bentoml.api(route="/segment", input_spec=SegmentInput)  # type: ignore[untyped-decorator]
    async def segment(self, ctx: bentoml.Context, **_: Any) -> AnyImage:
        """Photo to label map: a palette PNG (indices are class ids), ids, overlay, confidence, polygons or JSON."""
        return await _answer(ctx, SegmentParameters)  # type: ignore[return-value]

    @bentoml.api(route="/synthesize", input_spec=SynthesizeInput)  # type: ignore[untyped-decorator]
    async def synthesize(self, ctx: bentoml.Context, **_: Any) -> AnyImage:
        """Label map to photo. The same seed gives the same photo."""
        return await _answer(ctx, SynthesizeParameters)  # type: ignore[return-value]


async def _answer(ctx: bentoml.Context, kind: type[SegmentParameters] | type[SynthesizeParameters]) -> Response:
    """Answer as /v1 does. BentoML gives the response the status that the context names."""
    request = Request({**ctx.request.scope, "app": app}, ctx.request.receive)
    try:
        query = validated(kind, request.query_params)
        response = await answer(request, query, ready(request))
    except Exception as error:
        response = await respond_to_error(request, error)
    ctx.response.status_code = response.status_code
    return response


service: Any = Translator  # the decorators made a bentoml.Service of the class
for kind, options in middleware(app):
    service.add_asgi_middleware(kind, **options)
