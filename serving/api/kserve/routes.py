"""The open inference protocol (KServe v2) under /v2: the graphs as they are, for clients of KServe and Triton."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Path
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from serving.api import openapi
from serving.api.kserve import schemas, tensors
from serving.api.kserve.tensors import JSON_LENGTH, require
from serving.api.requests import MOST_JSON_VALUES, Ready, spooled, while_connected
from serving.errors import Refusal
from serving.imaging.decode import Bytes
from serving.imaging.labels import checked_ids
from serving.imaging.tiling import BATCH_PIXELS
from serving.inference.parameters import draw_seeds
from serving.inference.pipeline import Backend
from serving.inference.scheduler import Task
from serving.models.manifest import DirectionName, TensorSpec
from serving.models.model import CancelToken, ExportedModel, draw_noise
from serving.models.repository import Repository
from serving.settings import Settings
from serving.telemetry.metrics import current_trace

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
_NAME = "`NAME.to_label` or `NAME.to_photo`, with a name of `GET /v1/models`; `NAME` alone where it has one direction."
Name = Annotated[str, Path(description=_NAME, examples=["camvid-hybrid-compact.to_label"])]
_errors = partial(openapi.errors, model=schemas.KServeError)
_JSON_LENGTH = "The length of the JSON, where the bytes of tensors follow it."


@dataclass(frozen=True)
class Served:
    """One direction of a model, which is one model of the protocol."""

    model: ExportedModel
    direction: DirectionName
    inputs: list[schemas.TensorMetadata]  # the picture or label map, and the noise where there is one
    outputs: list[schemas.TensorMetadata]


@router.get("", responses=_errors(), summary="The server")
async def server(request: Request) -> dict[str, str | list[str]]:
    """Its name, its version, and the extensions of the protocol that it supports."""
    return {"name": "fewpair", "version": request.app.version, "extensions": ["binary_tensor_data"]}


@router.get("/health/live", responses=_errors(), summary="Whether the server is alive")
async def live() -> dict[str, bool]:
    """For liveness probes."""
    return {"live": True}


@router.get("/health/ready", responses=_errors(503), summary="Whether the server is ready")
async def is_ready(_: Ready) -> dict[str, bool]:
    """For readiness probes."""
    return {"ready": True, "live": True}


@router.get("/models/{name}", responses=_errors(404, 503), summary="A model's tensors")
async def metadata(name: Name, backend: Ready) -> schemas.ModelMetadata:
    """The inputs and outputs of the graph; -1 in a shape stands for any size."""
    served = find(backend.models, name)
    return schemas.ModelMetadata(name=name, platform="onnxruntime_onnx", inputs=served.inputs, outputs=served.outputs)


@router.get("/models/{name}/ready", responses=_errors(404, 503), summary="Whether a model is ready")
async def model_ready(name: Name, backend: Ready) -> dict[str, str | bool]:
    """200 for every model that is loaded."""
    find(backend.models, name)
    return {"name": name, "ready": True}


@router.post(
    "/models/{name}/infer",
    response_class=Response,
    responses={
        200: {
            "model": schemas.InferenceResponse,
            "content": {"application/octet-stream": openapi.BINARY},
            "headers": {JSON_LENGTH: {"description": _JSON_LENGTH, "schema": {"type": "string"}}},
        },
        **_errors(400, 404, 408, 413, 415, 503, 504, 507),
    },
    openapi_extra=openapi.body(schemas.InferenceRequest, kind="application/json", raw=("application/octet-stream",)),
    summary="Run a model on tensors",
)
async def infer(
    name: Name,
    request: Request,
    backend: Ready,
    inference_header_content_length: Annotated[int | None, Header(ge=0, description=_JSON_LENGTH)] = None,
) -> Response:
    """The graph as it is: nothing is resized or padded, so both sides are multiples of the model's `multiple_of`, at
    best its `size` (`GET /v1/models/{name}`). Tensors come as JSON, or as bytes after the JSON. Noise that is not sent
    is drawn from `parameters.seed`, one seed up for each picture, or from a random seed, which the answer's
    `parameters` name.
    """
    backend.scheduler.check_capacity()
    served = find(backend.models, name)
    current_trace().model = served.model.name
    async with spooled(request) as body, backend.scheduler.admit() as admission:
        work = partial(_infer, body, inference_header_content_length, served, name, backend)
        return await while_connected(request, admission.work(work))


def _infer(
    body: IO[bytes], json_length: int | None, served: Served, name: str, backend: Backend, task: Task
) -> Response:
    """Run in pieces of at most a megapixel, as tiles are run, so that other requests run in between.

    Raises Refusal where the tensors are not those of the graph, or the graph does not run on their size.
    """
    trace = current_trace()
    with trace.stage("decode"):
        request, after = tensors.parse(body.read(), json_length)
        shapes = tensors.check_inputs(request.inputs, {tensor.name: tensor for tensor in served.inputs})
        requested = tensors.requested_outputs(request, [output.name for output in served.outputs])
        count, height, width = _check_size(served, shapes, requested, backend.settings)
        feed = tensors.read_inputs(request.inputs, after)
        if served.direction == "to_photo" and served.inputs[0].shape[3:] == []:
            for ids in feed[served.inputs[0].name]:
                checked_ids(ids, served.model.manifest.label)
        seed = _draw_noise(feed, served, request.parameters.seed, count)
    most, found = max(1, BATCH_PIXELS // (height * width)), list[dict[str, Bytes]]()

    def run(feeds: Sequence[Any], cancel: CancelToken) -> list[dict[str, Bytes]]:
        return [served.model.infer(served.direction, feed, cancel=cancel) for feed in feeds]

    for first in range(0, count, most):
        piece = {name: values[first : first + most] for name, values in feed.items()}
        found.append(task.run(run, piece, images=min(most, count - first)))
    with trace.stage("encode"):
        outputs = {output: np.concatenate([piece[output] for piece in found]) for output in found[0]}
        head: dict[str, Any] = {"model_name": name}
        head |= {} if request.id is None else {"id": request.id}
        head |= {} if seed is None else {"parameters": {"seed": seed}}
        content, kind, headers = tensors.packed(head, outputs, requested)
        return Response(content, media_type=kind, headers={"X-Model": served.model.name, **headers})


def _check_size(
    served: Served, shapes: dict[str, list[int]], requested: dict[str, bool], settings: Settings
) -> tuple[int, int, int]:
    """Return the number, height and width of the pictures. Raises Refusal where they, or the answer, are too large."""
    main, manifest = served.inputs[0].name, served.model.manifest
    require(main in shapes, f"the input {main} is missing.")
    counts = sorted({shape[0] for shape in shapes.values()})
    require(len(counts) == 1, f"there are pictures and noise of different numbers: {counts}.")
    count, height, width = shapes[main][:3]
    _limit(count, settings.max_pictures, "pictures", "Send several requests.")
    _limit(count * height * width, settings.max_pixels, "pixels", "/v1/segment and /v1/synthesize scale and tile.")
    step = manifest.multiple_of
    padded = [side + (-side) % step for side in (height, width)]
    hint = f"Pad to {padded[0]} x {padded[1]}: photos by repeating the edge, label maps with {manifest.label.void}."
    message = f"{height} x {width} pixels: both sides have to be multiples of {step}."
    require(padded == [height, width], message, hint)
    values = {output.name: count * height * width * math.prod(output.shape[3:]) for output in served.outputs}
    as_json = sum(values[name] for name, binary in requested.items() if not binary)
    _limit(as_json, MOST_JSON_VALUES, "values as JSON", "Ask for binary_data.")
    return count, height, width


def _draw_noise(feed: dict[str, NDArray[Any]], served: Served, seed: int | None, count: int) -> int | None:
    """Add the noise that was not sent, one seed up for each picture; return the first seed."""
    if len(served.inputs) == 1:
        return None
    noise = served.inputs[1]
    if noise.name in feed:
        require(seed is None, "both a seed and noise are given.", "Leave one of them out.")
        return None
    seeds = draw_seeds(seed, count)
    feed[noise.name] = np.stack([draw_noise(one, tuple(noise.shape[1:])) for one in seeds])
    return seeds[0]


def find(models: Repository, name: str) -> Served:
    """Return the direction of a model that this name stands for. Raises Refusal where there is none."""
    for model in models.models.values():
        directions = model.manifest.directions
        for direction, spec in directions.items():
            if name == f"{model.name}.{direction}" or (name == model.name and len(directions) == 1):
                inputs = [_declared(spec.input)]
                if spec.noise is not None:
                    shape = [-1, *spec.noise.shape]
                    inputs.append(schemas.TensorMetadata(name=spec.noise.name, datatype="FP32", shape=shape))
                return Served(model, direction, inputs, list(map(_declared, spec.outputs)))
    for broken in {name, name.rpartition(".")[0]} & models.broken.keys() - models.models.keys():
        models.find(broken)  # refuses it, with the reason
    names = [f"{model.name}.{direction}" for model in models.models.values() for direction in model.manifest.directions]
    hint = f"Models here: {', '.join(names) or 'none'}."
    raise Refusal(404, "unknown_model", f"there is no model called {name[:80]!r}.", hint=hint)


def _declared(tensor: TensorSpec) -> schemas.TensorMetadata:
    shape = [-1, -1, -1, 3] if tensor.layout == "NHWC" else [-1, -1, -1]
    return schemas.TensorMetadata(name=tensor.name, datatype="UINT8", shape=shape)


def _limit(number: int, most: int, what: str, hint: str) -> None:
    if number > most:
        raise Refusal(413, "too_large", f"{number} {what} are over the limit of {most}.", hint=hint)
