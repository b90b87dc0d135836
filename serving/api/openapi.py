"""The static texts of the OpenAPI document, and the request bodies that FastAPI does not describe by itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, create_model
from pydantic.json_schema import models_json_schema
from starlette.requests import Request

from serving.api import schemas

BINARY = {"schema": {"type": "string", "format": "binary"}}
JPEG: dict[str, Any] = {"description": "A JPEG.", "content": {"image/jpeg": BINARY}}
PICTURE: dict[str, Any] = {"description": "A JPEG or PNG.", "content": {"image/jpeg": BINARY, "image/png": BINARY}}
ZIP: dict[str, Any] = {"description": "The answers, and `index.json`.", "content": {"application/zip": BINARY}}
TAGS = [
    {"name": "translate", "description": "Send a picture, get its translation."},
    {"name": "jobs", "description": "Send many or very large pictures, fetch their translations later."},
    {"name": "models", "description": "The models with their classes and figures."},
    {"name": "open inference protocol", "description": "The graphs, for clients of KServe, Triton and Seldon."},
    {"name": "label studio", "description": "Predictions as an ML backend of Label Studio."},
    {"name": "admin", "description": "For the operator of the server."},
]
INTRODUCTION = """Image translators trained from few labelled photos: **photo to label map** and **label map to photo**.

    curl -F image=@street.jpg http://127.0.0.1:3000/segment -o label.png
    curl -F image=@street.jpg -F output=json http://127.0.0.1:3000/segment
    curl -F image=@label.png -F seed=7 http://127.0.0.1:3000/synthesize -o made.jpg
    curl --data-binary @street.jpg -H 'Content-Type: image/jpeg' 'http://127.0.0.1:3000/v1/segment?output=polygons'
    curl -F image=@one.jpg -F image=@two.jpg http://127.0.0.1:3000/v1/segment -o labels.zip

Where the server needs a token, add `-H 'Authorization: Bearer TOKEN'`; on this page the password is enough.

`/segment` and `/synthesize` are aliases of `/v1/segment` and `/v1/synthesize`. A request is a form with one or more
files in `image`, or the bare file with its parameters in the query. The answer to several pictures is a ZIP; one that
is refused has its error in its `index.json`. Many or very large pictures are sent as a job where the operator allows
it: `POST /v1/jobs`. Every error is `{"error": {"code", "message", "hint"}}`; after 429 and 503, `Retry-After` says when
to come back. Every answer carries `X-Request-ID`, and translations a `Server-Timing` of their stages (wait, decode,
run, encode)."""
_TEXT = {"schema": {"type": "string"}}
_HEADERS = {
    "X-Model": {"description": "The model that answered.", **_TEXT},
    "X-Tiling": {"description": "`none`, or the number of tiles, across x down.", **_TEXT},
    "X-Failed": {"description": "Of several pictures, how many were refused.", **_TEXT},
}
SEGMENTED: dict[str, Any] = {
    "description": "The label map: PNG, JPEG for `output=overlay`, JSON for `output=json` and `output=polygons`; of "
    "several photos, a ZIP.",
    "model": schemas.SegmentReport | schemas.CocoDocument,
    "content": {"image/png": BINARY, "image/jpeg": BINARY, "application/zip": BINARY},
    "headers": _HEADERS,
}
SYNTHESIZED: dict[str, Any] = {
    "description": "The photo in the requested format; several photos as a ZIP.",
    "content": {"image/jpeg": BINARY, "image/webp": BINARY, "image/png": BINARY, "application/zip": BINARY},
    "headers": {
        **_HEADERS,
        "X-Seed": {"description": "The seeds of the photos of one label map, comma-separated.", **_TEXT},
        "X-Label-Spelling": {
            "description": "How the upload was read.",
            "schema": {"type": "string", "enum": ["ids", "colours", "snapped colours", "picture"]},
        },
    },
}
STYLE: dict[str, Any] = {
    "description": "The numbers; of several photos, a ZIP.",
    "model": schemas.StyleReport,
    "content": {"application/zip": BINARY},
    "headers": _HEADERS,
}
_TOKENS = {
    "token": {"type": "http", "scheme": "bearer", "description": "One of the server's tokens."},
    "password": {"type": "http", "scheme": "basic", "description": "For browsers: any user name, a token as password."},
}
_REFERENCE = "#/components/schemas/{model}"
_bodies: list[type[BaseModel]] = []


def form(*parameters: type[BaseModel], raw: tuple[str, ...] = ()) -> dict[str, Any]:
    """The request body of an endpoint that reads it itself: pictures with parameters, or the bare file."""
    named = {one.__name__.replace("Parameters", "Form"): one for one in parameters}
    forms = [create_model(name, __base__=(schemas.PicturesForm, one)) for name, one in named.items()]
    return body(*forms, kind="multipart/form-data", raw=raw)


def body(*models: type[BaseModel], kind: str, raw: tuple[str, ...]) -> dict[str, Any]:
    """The request body of an endpoint that reads it itself: one of the models as `kind`, or the bare file."""
    _bodies.extend(models)
    references = [{"$ref": _REFERENCE.format(model=model.__name__)} for model in models]
    content = {kind: {"schema": references[0] if len(references) == 1 else {"oneOf": references}}}
    return {"requestBody": {"required": True, "content": content | dict.fromkeys(raw, BINARY)}}


def errors(*statuses: int, model: type[BaseModel] = schemas.Error) -> dict[int | str, dict[str, Any]]:
    """The refusals among the responses; `default` keeps FastAPI from promising its own shape for 422."""
    named: dict[int | str, dict[str, Any]] = {status: {"model": model} for status in statuses}
    return {"default": {"model": model, "description": "Any other refusal."}, **named}


def document(api: FastAPI, request: Request, *, tokens: bool, open_paths: frozenset[str]) -> dict[str, Any]:
    """The document, with the root path of the request; `tokens`: whether all but `open_paths` needs one."""
    document = get_openapi(
        title=api.title, version=api.version, description=INTRODUCTION, routes=api.routes, tags=TAGS,
        servers=[{"url": request.scope.get("root_path") or "/"}],
    )  # fmt: skip
    _, defined = models_json_schema([(model, "validation") for model in _bodies], ref_template=_REFERENCE)
    document["components"]["schemas"] |= defined["$defs"]
    if tokens:
        document["components"].setdefault("securitySchemes", {}).update(_TOKENS)
        document["security"] = [{name: []} for name in _TOKENS]
        for path in open_paths & document["paths"].keys():
            document["paths"][path]["get"]["security"] = []
    return document
