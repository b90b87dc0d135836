"""Label Studio's protocol of ML backends, under /label-studio: predictions in the tags of its interface."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from functools import partial
from typing import IO, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from fastapi import APIRouter
from pydantic import AliasChoices, BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from serving.api import openapi
from serving.api.requests import Ready, parse_json, spooled, while_connected
from serving.errors import Refusal
from serving.imaging.annotations import brush_value, outlines, studio_results
from serving.imaging.decode import PixelBudget
from serving.inference.archive import Picture
from serving.inference.outputs import Segmentation, shares
from serving.inference.pipeline import Execution, segmented
from serving.inference.scheduler import Admission
from serving.inference.scheduler import Task as Worker
from serving.models.model import ExportedModel
from serving.settings import Settings

router = APIRouter(prefix="/label-studio", tags=["label studio"])
_ADDRESS = 8192  # most characters of a photo's address
_PARTS = 2000  # polygons of less than this part of a photo are left out


class Task(BaseModel):
    """A task of Label Studio; one of its data is the photo: a data URI, or a path in the operator's folder."""

    data: dict[str, Any]


class Sent(BaseModel):
    """A request of Label Studio: its labelling interface, as XML, and tasks."""

    label_config: str = Field(validation_alias=AliasChoices("label_config", "schema"), max_length=2**16)
    tasks: list[Task] = Field(default=[], max_length=1000)


@router.get("/health", responses=openapi.errors(404, 503), summary="Whether there is a model")
async def health(backend: Ready) -> dict[str, str]:
    """Label Studio asks this before it connects."""
    return {"status": "UP", "model_class": backend.models.choose(None, "to_label").name}


_BODY = openapi.body(Sent, kind="application/json", raw=())


@router.post(
    "/setup", responses=openapi.errors(400, 404, 503), openapi_extra=_BODY, summary="Check a labelling interface"
)
async def setup(request: Request, backend: Ready) -> dict[str, str]:
    """The model; 400 where the interface has none of its classes as a label."""
    backend.scheduler.check_capacity()
    model = backend.models.choose(None, "to_label")
    async with spooled(request) as body, backend.scheduler.admit() as admission:
        sent = await admission.work(lambda _: _parsed(body))
    _tags(sent.label_config, model)
    return {"model_version": model.name}


@router.post(
    "/predict", responses=openapi.errors(400, 404, 413, 503, 504), openapi_extra=_BODY, summary="Predict tasks"
)
async def predict(request: Request, backend: Ready) -> Response:
    """Regions of the default model for each task, with the mean confidence as score."""
    backend.scheduler.check_capacity()
    model = backend.models.choose(None, "to_label")
    limits = backend.limits(PixelBudget(backend.settings.max_pixels_in_all).spend)

    def work(address: str, tag: ElementTree.Element, worker: Worker) -> dict[str, Any]:
        picture = Picture("photo", partial(_photo, address, backend.settings))
        found = segmented(model, "auto", picture, Execution(limits, worker, backend.scheduler.batch))
        return {"result": _results(found, tag), "score": found.mean_confidence}

    async def predicted(admission: Admission, body: IO[bytes]) -> bytes:
        sent = await admission.work(lambda _: _parsed(body))
        tag, field = _tags(sent.label_config, model)
        found = [await admission.work(partial(work, str(task.data.get(field)), tag)) for task in sent.tasks]
        return await admission.work(lambda _: json.dumps({"results": found, "model_version": model.name}).encode())

    async with spooled(request) as body, backend.scheduler.admit() as admission:
        answer = await while_connected(request, predicted(admission, body))
    return Response(answer, media_type="application/json")


def _parsed(body: IO[bytes]) -> Sent:
    return parse_json(Sent, body.read(), "bad_request", "Send JSON with label_config and tasks, as Label Studio does.")


def _results(found: Segmentation, tag: ElementTree.Element) -> list[dict[str, Any]]:
    """Return a brush region of each class, or its polygons, with the mean confidence of the class."""
    shape, kind = found.answer.shape, tag.tag.lower()
    parts = shares(found.answer, found.confidence, domain=found.domain)
    scores = {part.id: part.mean_confidence for part in parts if part.name in _labels(tag)}
    if kind == "brushlabels":
        values = [(row, brush_value(found.answer == row.id)) for row in found.domain.classes if row.id in scores]
    else:
        drawn = outlines(found.answer, found.domain, min_area=max(1, found.answer.size // _PARTS))
        percent = [(one.row, (one.outline * 100 / shape[::-1]).round(4).tolist()) for one in drawn]
        values = [(row, {"points": points, "closed": True}) for row, points in percent if row.id in scores]
    results = studio_results(values, shape, kind=kind, tag=tag.get("name", ""), image=tag.get("toName", ""))
    return [{**result, "score": scores[row.id]} for result, (row, _) in zip(results, values, strict=True)]


def _photo(address: str, settings: Settings) -> bytes:
    """Return a photo sent as data URI, or from the operator's folder. Raises Refusal; nothing is fetched."""
    folder = settings.label_studio_files
    with suppress(ValueError, OSError):  # neither an address nor a name that a file can have
        if address.startswith("data:"):
            return base64.b64decode(address.partition(";base64,")[2], validate=True)
        parts = urlsplit(address[:_ADDRESS])  # which caches what it splits
        path = parse_qs(parts.query).get("d", [unquote(parts.path.partition("/data/")[2])])[0]
        if folder is not None and path:
            file = (folder / path).resolve()
            if file.is_relative_to(folder.resolve()) and file.is_file():
                with file.open("rb") as photo:
                    return photo.read(settings.max_bytes + 1)  # which is refused where it is used up
    hint = "Use data URIs, or name the folder that Label Studio serves: FEWPAIR_LABEL_STUDIO_FILES."
    message = f"the photo {address[:200]!r} is not a file of this server, which fetches no addresses."
    raise Refusal(400, "photo_not_here", message, hint=hint)


def _tags(text: str, model: ExportedModel) -> tuple[ElementTree.Element, str]:
    """Return the first brush or polygon tag with a class as label, and the field of its photo. Raises Refusal."""
    names = {row.name for row in model.manifest.label.classes if not row.ignore}
    hint = f"The interface needs an Image, and BrushLabels or PolygonLabels with some of: {', '.join(sorted(names))}."
    try:
        tags = list(ElementTree.fromstring("" if "<!DOCTYPE" in text else text).iter())  # without entities
    except ElementTree.ParseError:
        raise Refusal(400, "bad_interface", "the labelling interface is not XML.", hint=hint) from None
    fields = {tag.get("name"): tag.get("value", "").removeprefix("$") for tag in tags if tag.tag == "Image"}
    for tag in tags:
        if tag.tag in ("BrushLabels", "PolygonLabels") and tag.get("toName") in fields and _labels(tag) & names:
            return tag, fields[tag.get("toName")]
    message = f"the labelling interface has no label of model {model.name}."
    raise Refusal(400, "no_common_label", message, hint=hint)


def _labels(tag: ElementTree.Element) -> set[str | None]:
    return {label.get("value") for label in tag.iter("Label")}
