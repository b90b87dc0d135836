"""What the OpenAPI document of /v1 says beside the schemas: texts, examples, how requests are sent and what comes back."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np
from fastapi import FastAPI, Path
from fastapi.security import HTTPBearer
from starlette.requests import Request

from serving.described import AnswerList, CocoDocument, Error, SegmentReport
from serving.doors import HEALTH
from serving.imaging import encode_grey
from serving.noroom import temporary_full

TAGS = [
    {"name": "translate", "description": "Send a picture, get its translation."},
    {"name": "jobs", "description": "Send many or very large pictures, fetch their translations later."},
    {"name": "models", "description": "What can be asked for."},
    {"name": "open inference protocol", "description": "The graphs as they are, for clients of KServe, Triton and Seldon."},
    {"name": "admin", "description": "For whoever runs this server."},
]
PHOTO = "A photo: PNG, JPEG, WebP, BMP, TIFF or GIF; turned upright by its EXIF. Or a ZIP of photos."
LABEL = (
    "A label map: class ids (grey or palette PNG; 255 is void) or class colours (RGB or palette PNG), told apart by what it holds. "
    "Or a ZIP of label maps."
)
NAME = Path(description="The model's name, which is its folder's.", examples=["camvid-hybrid-compact"])
PICTURE = base64.b64encode(encode_grey(np.zeros((2, 2), np.uint8))).decode()  # a black photo, and a label map of class 0

_ENTRY = {
    "name": "camvid-hybrid-compact",
    "description": "Street scenes of CamVid in twelve classes.",
    "directions": ["to_label", "to_photo"],
    "default_for": ["to_label", "to_photo"],
    "provider": "CPUExecutionProvider",
    "label_kind": "classes",
    "classes": [{"id": 0, "name": "sky", "color": [128, 128, 128], "ignore": False}],
    "size": [128, 192],
    "multiple_of": 4,
    "confidence": True,
    "seeded": False,
    "metrics": {"test": {"mean_iou": 0.4}},
}
LIST_EXAMPLE = {
    "models": [_ENTRY],
    "broken": [{"name": "half-written", "reason": "half-written has no manifest.json. Export the model with `fewpair export`."}],
    "defaults": {"to_label": "camvid-hybrid-compact", "to_photo": "camvid-hybrid-compact"},
}
CARD_EXAMPLE = {
    **_ENTRY,
    "training": {"method": "hybrid", "dataset": "camvid", "pairs": 20, "steps": 20000},
    "parity": {"to_label": [{"batch": 1, "height": 128, "width": 192, "values_over_one_level": 0.0}]},
    "tiling": "forbidden",
    "resize": {"rule": "exact", "height": 128, "width": 192, "filter": "bicubic"},
}
_REFUSALS: dict[int, tuple[str, dict[str, str]]] = {
    400: (
        "The request makes no sense: not an image, ids or colours of no class, a parameter outside its range.",
        {
            "code": "not_an_image",
            "message": "the uploaded file is not an image that can be read.",
            "hint": "Send a PNG, JPEG, WebP, BMP, TIFF or GIF.",
        },
    ),
    404: (
        "There is no such model; the hint names those that exist.",
        {"code": "unknown_model", "message": "there is no model called 'camvit'.", "hint": "Models here: camvid-hybrid-compact."},
    ),
    408: (
        "The body came too slowly.",
        {
            "code": "slow_body",
            "message": "the request's body did not arrive within 60 s.",
            "hint": "Send a smaller one, or have the operator raise FEWPAIR_BODY_TIMEOUT.",
        },
    ),
    413: (
        "The upload is over a limit, in bytes, in pixels or in pictures.",
        {"code": "too_many_bytes", "message": "the upload is over the limit of 32 MiB.", "hint": "Send a smaller file."},
    ),
    415: (
        "The body is of a type that is not read.",
        {
            "code": "unsupported_media_type",
            "message": "a body of the type 'text/html' is not read.",
            "hint": "Send a form (curl -F image=@street.jpg), the file itself with its Content-Type, or JSON with the file in base64.",
        },
    ),
    503: (
        "Too many requests wait already, or no model can be served. `Retry-After` says when to come back.",
        {
            "code": "overloaded",
            "message": "the server has as many requests waiting as it takes.",
            "hint": "Try again in a moment.",
        },
    ),
    504: (
        "The request was not done in time.",
        {
            "code": "timeout",
            "message": "the request was not done within 60 s.",
            "hint": "Send fewer or smaller pictures, or have the operator raise FEWPAIR_TIMEOUT.",
        },
    ),
    507: ("The server's disk is full.", temporary_full().body()["error"]),
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds after which it is worth another try.", "schema": {"type": "integer", "minimum": 1}}}
ADMIN_TOKEN = HTTPBearer(auto_error=False, scheme_name="adminToken", description="FEWPAIR_ADMIN_TOKEN. Without it, this is off.")
_TOKENS = {
    "token": {"type": "http", "scheme": "bearer", "description": "One of the server's tokens."},
    "password": {"type": "http", "scheme": "basic", "description": "For browsers: any user name, a token as the password."},
}
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
BINARY = {"schema": {"type": "string", "format": "binary"}}
_HEADERS = {
    "X-Model": {"description": "The model that answered.", "schema": {"type": "string"}},
    "X-Tiling": {
        "description": "How the picture was run: `none`, in one piece; or its tiles, across x down. Of several, each entry says it.",
        "schema": {"type": "string"},
    },
    "X-Failed": {"description": "Of several pictures, how many were refused.", "schema": {"type": "string"}},
}
_REPORT = {
    "model": "camvid-hybrid-compact",
    "width": 480,
    "height": 360,
    "mean_confidence": 0.91,
    "classes": [
        {"id": 0, "name": "sky", "color": [128, 128, 128], "ignore": False, "pixels": 172800, "share": 1.0, "mean_confidence": 0.91}
    ],
    "regions_found": 1,
    "regions": [{"id": 0, "name": "sky", "area": 172800, "box": [0, 0, 480, 360]}],
}
_COCO = {
    "info": {"description": "Regions found by the model camvid-hybrid-compact."},
    "images": [{"id": 1, "file_name": "street.jpg", "width": 480, "height": 360}],
    "categories": [{"id": 0, "name": "sky", "supercategory": "", "color": [128, 128, 128]}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 0,
            "segmentation": [[0, 0, 480, 0, 480, 100, 0, 100]],
            "area": 48000,
            "bbox": [0, 0, 480, 100],
            "iscrowd": 0,
        }
    ],
}
_REFUSED = {"name": "notes.txt", "error": _REFUSALS[400][1]}
SEGMENTED: dict[str, Any] = {
    "description": "The label map: PNG, JPEG for `output=overlay`, JSON for `output=json` and `output=polygons`; of several photos, "
    "a ZIP or a JSON list.",
    "model": SegmentReport | CocoDocument | AnswerList,
    "content": {
        "image/png": BINARY,
        "image/jpeg": BINARY,
        "application/zip": BINARY,
        "application/json": {
            "examples": {
                "json": {"summary": "output=json", "value": _REPORT},
                "polygons": {"summary": "output=polygons", "value": _COCO},
                "several": {
                    "summary": "several photos as JSON, one of them refused",
                    "value": {
                        "answers": [
                            {
                                "name": "street.jpg",
                                "model": "camvid-hybrid-compact",
                                "tiling": "none",
                                "file": "street.png",
                                "media_type": "image/png",
                                "data": PICTURE,
                            },
                            _REFUSED,
                        ]
                    },
                },
            }
        },
    },
    "headers": _HEADERS,
}
SYNTHESIZED: dict[str, Any] = {
    "description": "The photo in the format asked for; several photos as a ZIP or a JSON list.",
    "model": AnswerList,
    "content": {
        "image/jpeg": BINARY,
        "image/webp": BINARY,
        "image/png": BINARY,
        "application/zip": BINARY,
        "application/json": {
            "example": {
                "answers": [
                    {
                        "name": "label.png",
                        "model": "camvid-hybrid-compact",
                        "tiling": "none",
                        "seed": 7,
                        "spelling": "ids",
                        "file": "label.png",
                        "media_type": "image/png",
                        "data": PICTURE,
                    },
                    _REFUSED,
                ]
            }
        },
    },
    "headers": {
        **_HEADERS,
        "X-Seed": {
            "description": "The seeds used, comma-separated; left to the entries where they are too many for a header.",
            "schema": {"type": "string"},
        },
        "X-Label-Spelling": {
            "description": "How the upload was read; of several, each entry says it.",
            "schema": {"type": "string", "enum": ["ids", "colours", "snapped colours", "picture"]},
        },
    },
}


def introduction(here: str) -> str:
    """What the document opens with; `here` is the address that the server was asked by."""
    return f"""Image translators trained from a handful of labelled photos: **photo to label map** and **label map to photo**.

Try it:

    curl -F image=@street.jpg {here}/segment -o label.png
    curl -F image=@street.jpg -F output=json {here}/segment
    curl -F image=@label.png -F seed=7 {here}/synthesize -o made.jpg
    curl --data-binary @street.jpg -H 'Content-Type: image/jpeg' '{here}/v1/segment?output=polygons'
    curl -F image=@one.jpg -F image=@two.jpg {here}/v1/segment -o labels.zip

Where the server asks for a token, add `-H 'Authorization: Bearer TOKEN'`; on this page the password that the browser was given will do.

`/segment` and `/synthesize` are the short spelling of `/v1/segment` and `/v1/synthesize` for one file in a form (a picture, or a ZIP
of them). `/v1` also takes several files, the bare file with its options in the query, and JSON with files in base64.
Several pictures are translated one after the other; one that is refused has its error in the list, and the others their answers.
Very many, or very large ones, are sent as a job where the operator allows it: `POST /v1/jobs`.
Every error is `{{"error": {{"code", "message", "hint"}}}}`. Every answer carries `X-Request-ID`, and translations a `Server-Timing`
of their stages (wait, decode, batch, run, encode)."""


def document(api: FastAPI, request: Request, *, bodies: dict[str, Any], tokens: bool) -> dict[str, Any]:
    """The document for whoever asks: with the address that he asked by, the schemas `bodies`, and what a token is needed for."""
    told = api.openapi()
    components = {**told["components"], "schemas": {**told["components"]["schemas"], **bodies}}
    told = {**told, "info": {**told["info"], "description": introduction(_address(request))}, "components": components}
    if not tokens:
        return told
    open_to_all = {path: {"get": {**told["paths"][path]["get"], "security": []}} for path in HEALTH & told["paths"].keys()}
    components["securitySchemes"] = {**components["securitySchemes"], **_TOKENS}
    return {**told, "paths": {**told["paths"], **open_to_all}, "security": [{name: []} for name in _TOKENS]}


def _address(request: Request) -> str:
    # It is shown to whoever sent it, and to nobody else: any proxy that ends TLS is believed.
    forwarded = request.headers.get("x-forwarded-proto", "")
    scheme = forwarded if forwarded in ("http", "https") else request.url.scheme
    host = request.headers.get("host", "")
    return f"{scheme}://{host if _HOST.fullmatch(host) else '127.0.0.1:3000'}"


def image(description: str) -> dict[str, Any]:
    """A PNG among the responses."""
    return {"description": description, "content": {"image/png": BINARY}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses that refuse, each with its example; `default` keeps FastAPI from promising its own shape for 422."""
    told: dict[int | str, dict[str, Any]] = {"default": {"model": Error, "description": "Any other refusal."}}
    for status in statuses:
        description, example = _REFUSALS[status]
        told[status] = {"model": Error, "description": description, "content": {"application/json": {"example": {"error": example}}}}
        if status == 503:
            told[status]["headers"] = RETRY_AFTER
    return told
