"""What the API says of itself and of its models: texts, schemas and examples for its OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import Path
from pydantic import BaseModel, Field

from serving.manifest import ClassRow, Domain
from serving.shelf import Shelf
from serving.translator import ExportedModel

API = """Image translators trained from a handful of labelled photos: **photo to label map** and **label map to photo**.

Try it:

    curl -F image=@street.jpg http://127.0.0.1:3000/segment -o label.png
    curl -F image=@street.jpg -F output=json http://127.0.0.1:3000/segment
    curl -F image=@label.png -F seed=7 http://127.0.0.1:3000/synthesize -o photo.jpg

`/segment` and `/synthesize` are the short spelling of `/v1/segment` and `/v1/synthesize`: same fields, same answers.
Every error is `{"error": {"code", "message", "hint"}}`. Every answer carries `X-Request-ID`, and translations a `Server-Timing`
of their stages (decode, wait, run, encode)."""

TAGS = [
    {"name": "translate", "description": "Send a picture, get its translation."},
    {"name": "models", "description": "What can be asked for."},
]
MODEL = "A name of `GET /v1/models`; the default model of the direction if absent."
OUTPUT = (
    "`colours`: a palette PNG whose indices are the class ids and whose palette is the class colours; "
    "`ids`: the ids as a grey 8-bit PNG; "
    "`overlay`: the colours laid over the photo, JPEG; `confidence`: per pixel, 0 to 255, grey PNG; "
    "`json`: class shares and mean confidence."
)
LABEL = "A label map: class ids (grey or palette PNG; 255 is void) or class colours (RGB or palette PNG), told apart by what it holds."
NAME = Path(description="The model's name, which is its folder's.", examples=["camvid-hybrid-compact"])

_UNKNOWN = {
    "error": {"code": "unknown_model", "message": "there is no model called 'camvit'.", "hint": "Models here: camvid-hybrid-compact."}
}
_EXAMPLES: dict[int, tuple[str, dict[str, Any]]] = {
    400: (
        "The request makes no sense: not an image, ids or colours of no class, a parameter outside its range.",
        {
            "error": {
                "code": "not_an_image",
                "message": "the uploaded file is not an image that can be read.",
                "hint": "Send a PNG, JPEG, WebP, BMP, TIFF or GIF.",
            }
        },
    ),
    404: ("There is no such model; the hint names those that exist.", _UNKNOWN),
    413: (
        "The upload is over a limit, in bytes or in pixels.",
        {"error": {"code": "too_many_bytes", "message": "the upload is over the limit of 32 MiB.", "hint": "Send a smaller file."}},
    ),
    503: (
        "Too many requests wait already, or no model can be served. `Retry-After` says when to come back.",
        {
            "error": {
                "code": "overloaded",
                "message": "the server has as many requests waiting as it takes.",
                "hint": "Try again in a moment.",
            }
        },
    ),
}


class ErrorBody(BaseModel):
    """One error."""

    code: str = Field(description="For programs; does not change with the wording.")
    message: str = Field(description="For people: what is wrong, with the value.")
    hint: str = Field(description="For people: what to do about it. May be empty.")


class Error(BaseModel):
    """The one shape of every 4xx and 5xx."""

    error: ErrorBody


class ClassEntry(BaseModel):
    """One class of a label map."""

    id: int
    name: str
    color: list[int] = Field(min_length=3, max_length=3, description="Red, green, blue; 0 to 255.")
    ignore: bool = Field(description="Void: pixels that count neither in training nor in figures.")


class ModelEntry(BaseModel):
    """One model that answers."""

    name: str
    description: str
    directions: list[str] = Field(description="Of `to_label` and `to_photo`.", examples=[["to_label", "to_photo"]])
    default_for: list[str] = Field(description="The directions in which it answers when no model is named.")
    provider: str = Field(description="Where it really runs, as its onnxruntime session says.", examples=["CPUExecutionProvider"])
    label_kind: str = Field(description="`classes`, or `picture` for models between two kinds of pictures.")
    classes: list[ClassEntry]
    size: list[int] | None = Field(description="[height, width] it runs at; null where it runs at the upload's size.")
    multiple_of: int = Field(description="Sides are padded to multiples of this.")
    confidence: bool = Field(description="Whether `output=confidence` is there.")
    seeded: bool = Field(description="Whether different seeds give different photos.")
    metrics: dict[str, Any] = Field(description="Split name to figures.")


class BrokenEntry(BaseModel):
    """A folder of the models folder that cannot be served."""

    name: str
    reason: str


class ModelList(BaseModel):
    """The models folder."""

    models: list[ModelEntry]
    broken: list[BrokenEntry]


class ModelCard(ModelEntry):
    """One model with its card."""

    training: dict[str, Any] = Field(description="Method, dataset with its terms, pairs, steps, size, seed, versions.")
    parity: dict[str, Any] = Field(description="The exported graph against the trained network, measured at export.")
    tiling: str
    resize: dict[str, Any]


class ShareEntry(ClassEntry):
    """How much of a photo one class covers."""

    pixels: int
    share: float
    mean_confidence: float | None


class SegmentReport(BaseModel):
    """The answer to `output=json`."""

    model: str
    width: int
    height: int
    mean_confidence: float | None
    classes: list[ShareEntry]


_BINARY = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
_X_MODEL = {"X-Model": {"description": "The model that answered.", "schema": {"type": "string"}}}
SEGMENTED: dict[str, Any] = {
    "description": "The label map: PNG, JPEG for `output=overlay`, JSON for `output=json`.",
    "model": SegmentReport,
    "content": {"image/png": _BINARY, "image/jpeg": _BINARY},
    "headers": _X_MODEL,
}
SYNTHESIZED: dict[str, Any] = {
    "description": "The photo in the format asked for, or a ZIP of photos named by their seeds.",
    "content": {"image/jpeg": _BINARY, "image/webp": _BINARY, "image/png": _BINARY, "application/zip": _BINARY},
    "headers": {
        **_X_MODEL,
        "X-Seed": {"description": "The seeds used, comma-separated.", "schema": {"type": "string"}},
        "X-Label-Spelling": {
            "description": "How the upload was read.",
            "schema": {"type": "string", "enum": ["ids", "colours", "snapped colours", "picture"]},
        },
    },
}


def image(description: str) -> dict[str, Any]:
    """A PNG among the responses."""
    return {"description": description, "content": {"image/png": _BINARY}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses that refuse, each with its example; `default` keeps FastAPI from promising its own shape for 422."""
    told: dict[int | str, dict[str, Any]] = {"default": {"model": Error, "description": "Any other refusal."}}
    for status in statuses:
        description, example = _EXAMPLES[status]
        told[status] = {"model": Error, "description": description, "content": {"application/json": {"example": example}}}
    return told


def model_list(shelf: Shelf) -> dict[str, Any]:
    """The answer of `GET /v1/models`."""
    return {
        "models": [_entry(model, shelf) for model in shelf.models.values()],
        "broken": [{"name": name, "reason": reason} for name, reason in shelf.broken.items()],
    }


def model_card(model: ExportedModel, shelf: Shelf) -> dict[str, Any]:
    """The answer of `GET /v1/models/{name}`."""
    manifest = model.manifest
    rule = manifest.resize
    return {
        **_entry(model, shelf),
        "training": manifest.training,
        "parity": manifest.parity,
        "tiling": manifest.tiling,
        "resize": {"rule": rule.rule, "height": rule.height, "width": rule.width, "filter": rule.filter},
    }


def _entry(model: ExportedModel, shelf: Shelf) -> dict[str, Any]:
    manifest = model.manifest
    sized = manifest.resize.rule != "none"
    to_label, to_photo = manifest.directions.get("to_label"), manifest.directions.get("to_photo")
    return {
        "name": manifest.name,
        "description": manifest.description,
        "directions": list(manifest.directions),
        "default_for": [direction for direction, name in shelf.defaults.items() if name == manifest.name],
        "provider": model.provider,
        "label_kind": manifest.label.kind,
        "classes": _classes(manifest.label),
        "size": [manifest.resize.height, manifest.resize.width] if sized else None,
        "multiple_of": manifest.multiple_of,
        "confidence": to_label is not None and any(output.kind == "confidence" for output in to_label.outputs),
        "seeded": to_photo is not None and to_photo.noise is not None,
        "metrics": manifest.metrics,
    }


def _classes(domain: Domain) -> list[dict[str, Any]]:
    return [_class(row) for row in domain.classes]


def _class(row: ClassRow) -> dict[str, Any]:
    return {"id": row.id, "name": row.name, "color": list(row.color), "ignore": row.ignore}
