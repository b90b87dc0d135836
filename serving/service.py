"""The BentoML service: loads the shelf, answers /segment and /synthesize, and carries the /v1 API and the page."""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType
from pydantic import BeforeValidator, Field
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from serving import asked, connection, lastresort, logs, memory, noroom, temporary, traces
from serving.admission import Admission, Stopping
from serving.answers import Answer
from serving.api import build_api, respond, respond_refusal
from serving.asked import SegmentOptions, SegmentOutput, SynthesizeOptions
from serving.batch import Picture, clean_name
from serving.doors import AllowedHosts, BearerTokens
from serving.errors import Refusal, ServingError
from serving.filefields import FileFields
from serving.imaging import PhotoFormat
from serving.inside import Inside
from serving.jobs import Jobs
from serving.linger import Linger
from serving.metrics import Metrics
from serving.middleware import BodyLimit, OneErrorShape, QuietRefusals, Record
from serving.operations import Operations
from serving.page import LatePage
from serving.reload import Reloader
from serving.settings import Settings
from serving.shelf import Shelf, fill, restock
from serving.tiles import Tiles
from serving.warmup import prove
from serving.workers import BOARD, Board

logging.getLogger("bentoml._internal.server.http_app").addFilter(QuietRefusals())
memory.share_one_arena()
temporary.move_in()
settings = Settings.from_environment()
logs.set_up(settings)
stopping = Stopping(grace=settings.longest())
_DRAWN = re.compile(r"^tmp[a-z0-9_]{8}")  # what Python's tempfile, and so BentoML, puts before the name of an upload
_fields = {
    "/segment": frozenset(SegmentOptions.model_fields) - {"answers"},
    "/synthesize": frozenset(SynthesizeOptions.model_fields) - {"answers"},
}


def _as_text(value: Any) -> Any:
    """BentoML reads every text field as JSON first, so that models called 123 and null arrive as 123 and None; this takes it back.

    A field that is absent does not come by here.
    """
    if value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value)


ModelName = Annotated[str | None, BeforeValidator(_as_text), Field(description="A name of GET /v1/models; the default model if absent.")]
AnyImage = Annotated[Path, ContentType("image/*")]


inside = Inside(admin_token=settings.admin_token)
page = LatePage(lambda: inside.operations) if settings.ui else None
api = build_api(inside, page=page, tokens=bool(settings.tokens))


def _picture(path: Path) -> Picture:
    name = clean_name(_DRAWN.sub("", path.name))
    with path.open("rb") as file:
        return Picture(name, path.read_bytes, head=file.read(4))


async def _answer(call: Callable[[Operations], Awaitable[Answer]]) -> Response:
    try:
        return respond(await call(inside.need()))
    except Refusal as refusal:
        return respond_refusal(refusal)


lastresort.install()
noroom.install()
connection.install()


@bentoml.service(
    name="fewpair",
    workers=settings.workers,
    traffic={"timeout": settings.longest() + 60},  # ours ends the waiting earlier, with a sentence; this is the last resort
    logging={"access": {"enabled": False}},  # serving/logs.py writes the requests down
    metrics={"enabled": False, "namespace": "fewpair"},  # labels every path ever asked for; GET /metrics of serving/api.py does not
)
@bentoml.asgi_app(api, path="/", name="api")
class Translator:
    """Photo to label map, label map to photo."""

    def __init__(self) -> None:
        if settings.admin_token is not None:
            inside.reloader = Reloader(
                lambda: Shelf({}, {}, {}) if inside.operations is None else inside.operations.shelf,
                lambda former: restock(former, settings, prove=prove),
                lambda shelf: inside.stock(shelf, settings),
                board=Board(Path(os.environ[BOARD])) if settings.workers > 1 and BOARD in os.environ else None,
            )
        try:
            inside.metrics = Metrics(devices=settings.device != "cpu")
            if settings.jobs is not None:
                inside.jobs = Jobs(settings.jobs, settings, lambda: inside.operations)
            inside.stock(fill(settings), settings)
        except ServingError as error:  # a failing constructor would restart for ever: say why and stay not ready instead
            inside.trouble = str(error)

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def meet() -> None:
        """Before the workers start: where they write, and where they tell one another of reloads."""
        temporary.share()
        if settings.admin_token is not None and settings.workers > 1:
            board = Board.make()
            os.environ[BOARD] = str(board)
            atexit.register(shutil.rmtree, board, ignore_errors=True)

    def __is_ready__(self) -> bool:
        return inside.operations is not None and inside.trouble is None

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def hold_signals(self) -> None:
        """From here on a signal to stop lets what was taken be finished first."""
        stopping.hold_signals(lambda: inside.operations.gate.inside if inside.operations else 0)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def send_the_last_traces(self) -> None:
        """What was traced in the last seconds is sent before the process ends."""
        await traces.send_the_last()

    @bentoml.api(route="/segment")  # type: ignore[untyped-decorator]
    async def segment(
        self,
        image: Annotated[Path, Field(description="A photo: PNG, JPEG, WebP, BMP, TIFF or GIF.")],
        model: ModelName = None,
        output: SegmentOutput = "colours",
        opacity: Annotated[float, Field(ge=0, le=1, description=asked.OPACITY)] = 0.5,
        min_area: Annotated[int, Field(ge=1, le=asked.MOST_AREA, description=asked.MIN_AREA)] = 1,
        tiles: Annotated[Tiles, Field(description=asked.TILES)] = "auto",
    ) -> AnyImage:
        """Photo to label map: a palette PNG (its indices are the class ids), ids, overlay, confidence, polygons, or JSON with figures."""
        options = SegmentOptions(model=model, output=output, opacity=opacity, min_area=min_area, tiles=tiles)
        return await _answer(lambda here: here.segment([_picture(image)], options))  # type: ignore[return-value]

    @bentoml.api(route="/synthesize")  # type: ignore[untyped-decorator]
    async def synthesize(
        self,
        image: Annotated[Path, Field(description="A label map as ids or class colours.")],
        model: ModelName = None,
        seed: Annotated[int | None, Field(ge=0, lt=asked.SEEDS, description=asked.SEED)] = None,
        count: Annotated[int, Field(ge=1, le=asked.MOST_PHOTOS, description="Photos from as many seeds, as a ZIP.")] = 1,
        format: PhotoFormat = "jpeg",
        snap: Annotated[bool, Field(description=asked.SNAP)] = False,
        tiles: Annotated[Tiles, Field(description=asked.TILES)] = "auto",
    ) -> AnyImage:
        """Label map to photo. The same seed gives the same photo."""
        options = SynthesizeOptions(model=model, seed=seed, count=count, format=format, snap=snap, tiles=tiles)
        return await _answer(lambda here: here.synthesize([_picture(image)], options))  # type: ignore[return-value]


service: Any = Translator  # the decorators made a bentoml.Service of the class
# The first added is the outermost. CORS stands outside of all that answers, so that browsers may read errors too.
service.add_asgi_middleware(Linger)
if settings.cors_origins:
    service.add_asgi_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=[
            "X-Seed",
            "X-Model",
            "X-Label-Spelling",
            "X-Tiling",
            "X-Failed",
            "X-Request-ID",
            "Server-Timing",
            "Retry-After",
            "Location",
        ],
    )
service.add_asgi_middleware(Record, metrics=lambda: inside.metrics)
service.add_asgi_middleware(OneErrorShape, why_not_ready=lambda: inside.trouble, page=settings.ui)
if settings.allowed_hosts:
    service.add_asgi_middleware(AllowedHosts, hosts=settings.allowed_hosts)
if settings.tokens:
    service.add_asgi_middleware(BearerTokens, tokens=settings.all_tokens)
service.add_asgi_middleware(Admission, gate=lambda: inside.need().gate, stopping=stopping, body_timeout=settings.body_timeout)
service.add_asgi_middleware(BodyLimit, max_bytes=settings.max_bytes, larger={"/v1/jobs": settings.jobs_max_bytes} if settings.jobs else {})
service.add_asgi_middleware(FileFields, fields=_fields)
