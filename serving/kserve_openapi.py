"""What the OpenAPI document says of the open inference protocol: how requests are sent, what comes back, with examples."""

from __future__ import annotations

from typing import Any

from fastapi import Path
from pydantic import BaseModel, Field

from serving.noroom import temporary_full
from serving.openapi import RETRY_AFTER
from serving.tensors import InferenceRequest, InferenceResponse

PLACE = "camvid-hybrid-compact.to_label"
NAME = Path(
    description="`NAME.to_label` or `NAME.to_photo`, with a name of `GET /v1/models`; `NAME` alone where that model has one direction.",
    examples=[PLACE],
)
JSON_LENGTH = "How long the JSON is, where the bytes of tensors stand behind it."
_SIDE = 8
_REQUEST = {
    "id": "42",
    "inputs": [{"name": "photo", "shape": [1, _SIDE, _SIDE, 3], "datatype": "UINT8", "data": [0] * (_SIDE * _SIDE * 3)}],
}
_LABEL = {
    "parameters": {"seed": 7},
    "inputs": [{"name": "label", "shape": [1, _SIDE, _SIDE], "datatype": "UINT8", "data": [0] * (_SIDE * _SIDE)}],
}
_RESPONSE = {
    "model_name": PLACE,
    "id": "42",
    "outputs": [{"name": "label", "shape": [1, _SIDE, _SIDE], "datatype": "UINT8", "data": [0] * (_SIDE * _SIDE)}],
}
_METADATA = {
    "name": PLACE,
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "photo", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
    "outputs": [
        {"name": "label", "datatype": "UINT8", "shape": [-1, -1, -1]},
        {"name": "confidence", "datatype": "UINT8", "shape": [-1, -1, -1]},
    ],
}
_REFUSALS = {
    400: ("The tensors are not those of the model.", "the input photo is UINT8, not 'FP32'. GET /v2/models/{name} describes the tensors."),
    404: ("There is no such model.", "there is no model called 'camvit'. Models here: camvid-hybrid-compact.to_label."),
    408: (
        "The body came too slowly.",
        "the request's body did not arrive within 60 s. Send a smaller one, or have the operator raise FEWPAIR_BODY_TIMEOUT.",
    ),
    413: ("The request or its answer is over a limit.", "a batch of 65 pictures is over the limit of 64. Send several requests."),
    415: ("The body is compressed.", "the body is compressed. Send it as it is."),
    503: (
        "Too many requests wait, or nothing can be served.",
        "the server has as many requests waiting as it takes. Try again in a moment.",
    ),
    504: ("The request was not done in time.", "the request was not done within 60 s. Send fewer or smaller pictures."),
    507: ("The server's disk is full.", str(temporary_full())),
}


class KServeError(BaseModel):
    """The protocol's error: one sentence."""

    error: str


class ServerMetadata(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """That the server answers."""

    live: bool


class Ready(BaseModel):
    """That every default model answers."""

    ready: bool
    live: bool


class ModelReady(BaseModel):
    """That a model answers."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """An input or an output."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 where any size goes.")


class ModelMetadata(BaseModel):
    """A direction of a model."""

    name: str
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


def _route(summary: str, description: str, model: type[BaseModel], example: dict[str, Any], *statuses: int) -> dict[str, Any]:
    """What FastAPI is told of a route."""
    refusals: dict[int | str, dict[str, Any]] = {"default": {"model": KServeError, "description": "Any other refusal."}}
    for status in statuses:
        words, sentence = _REFUSALS[status]
        refusals[status] = {"model": KServeError, "description": words, "content": {"application/json": {"example": {"error": sentence}}}}
        if status == 503:
            refusals[status]["headers"] = RETRY_AFTER
    return {
        "summary": summary,
        "description": description,
        "response_model": model,
        "responses": {200: {"content": {"application/json": {"example": example}}}, **refusals},
    }


SERVER = _route(
    "The server",
    "Its name, its version, and the extensions of the protocol that it speaks.",
    ServerMetadata,
    {"name": "fewpair", "version": "0.1.0", "extensions": ["binary_tensor_data"]},
)
LIVE = _route("Whether the server is alive", "For liveness probes.", Live, {"live": True})
READY = _route(
    "Whether the server is ready",
    "For readiness probes: after every default model has answered a warm-up request.",
    Ready,
    {"ready": True, "live": True},
    503,
)
METADATA = _route("A model's tensors", "Those of the graph, whose batch and sides vary.", ModelMetadata, _METADATA, 404, 503)
MODEL_READY = _route("Whether a model is ready", "A model that is listed is.", ModelReady, {"name": PLACE, "ready": True}, 404, 503)
INFER = _route(
    "Run a model on tensors",
    "The graph as it is: nothing is resized or padded, so both sides are multiples of the model's `multiple_of`, at best its `size` "
    "(`GET /v1/models/{name}`). Tensors come as JSON, or as bytes behind the JSON. Noise that is not sent is drawn from "
    "`parameters.seed`, one seed up for each picture, or from a random seed; `parameters.seed` of the answer tells which.",
    InferenceResponse,
    _RESPONSE,
    *_REFUSALS,
)
INFER["responses"][200]["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
INFER["responses"][200]["headers"] = {
    "Inference-Header-Content-Length": {"description": JSON_LENGTH, "schema": {"type": "string"}},
    "X-Model": {"description": "The model that answered.", "schema": {"type": "string"}},
}


def _inlined(schema: Any, defined: dict[str, Any]) -> Any:
    """A schema without references, which would lead astray in another document."""
    if isinstance(schema, list):
        return [_inlined(part, defined) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(defined[schema["$ref"].removeprefix("#/$defs/")], defined)
    return {name: _inlined(part, defined) for name, part in schema.items() if name != "$defs"}


_SCHEMA = InferenceRequest.model_json_schema()
INFER["openapi_extra"] = {
    "requestBody": {
        "required": True,
        "description": "JSON; or JSON, and behind it the bytes of the tensors in their order: row-major, little-endian.",
        "content": {
            "application/json": {
                "schema": _inlined(_SCHEMA, _SCHEMA["$defs"]),
                "examples": {
                    "photo": {"summary": "to NAME.to_label", "value": _REQUEST},
                    "label": {"summary": "to NAME.to_photo, from a seed", "value": _LABEL},
                },
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
