"""The open inference protocol (KServe v2) under /v2, so that clients of KServe, Triton and Seldon can use the models as they are."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping
from functools import partial
from tempfile import SpooledTemporaryFile
from time import perf_counter
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from serving import kserve_openapi as told
from serving.asked import SEEDS
from serving.errors import Refusal
from serving.imaging import Bytes
from serving.inside import Inside
from serving.manifest import DIRECTIONS, DirectionName, TensorSpec
from serving.metrics import current_trace
from serving.operations import Operations
from serving.palette import checked_ids
from serving.shelf import Shelf
from serving.tensors import MOST_JSON_VALUES, Body, Declared, packed
from serving.tiles import BATCH_PIXELS
from serving.translator import RUN_FAILURES, Brake, ExportedModel, draw_noise

logger = logging.getLogger("fewpair.serving")
_IN_MEMORY = 2**20  # what is larger waits for its turn on the disk
_JSON_BYTES = 4  # a number up to 255 with its comma, at most


class Served:
    """One direction of a model, which is one model of the protocol."""

    def __init__(self, model: ExportedModel, direction: DirectionName) -> None:
        self.model = model
        self.direction = direction
        spec = model.manifest.directions[direction]
        self.main = _declared(spec.input)
        self.noise = None if spec.noise is None else Declared(spec.noise.name, "FP32", (-1, *spec.noise.shape))
        self.outputs = {output.name: _declared(output) for output in spec.outputs}

    def metadata(self, name: str) -> dict[str, Any]:
        """What the protocol says of a model."""
        inputs = [self.main] if self.noise is None else [self.main, self.noise]
        return {
            "name": name,
            "platform": "onnxruntime_onnx",
            "inputs": [_described(tensor) for tensor in inputs],
            "outputs": [_described(tensor) for tensor in self.outputs.values()],
        }


class Inference:
    """A request that was read: what is fed to the graph, and what is wanted of it."""

    def __init__(self, body: Body, served: Served, operations: Operations) -> None:
        self.request, self._served = body.request, served
        sent = {tensor.name: tensor for tensor in self.request.inputs}
        strange = next((name for name in sent if name not in (served.main.name, served.noise and served.noise.name)), None)
        if strange is not None or len(sent) < len(self.request.inputs):
            raise _bad(f"there is no input {strange[:80]!r}." if strange is not None else "an input is given more than once.")
        if served.main.name not in sent:
            raise _bad(f"the input {served.main.name} is missing.")
        self.size = served.main.check(sent[served.main.name])[:3]
        noisy = None if served.noise is None else sent.get(served.noise.name)
        if served.noise is not None and noisy is not None and served.noise.check(noisy)[0] != self.size[0]:
            raise _bad(f"there are {self.size[0]} pictures and noise for {noisy.shape[0]}.")
        self.wanted = body.wanted(list(served.outputs))
        self._check_size(operations)
        self.feed = body.arrays()
        self._check_ids()
        self.seed = self._draw() if served.noise is not None else None

    def _check_size(self, operations: Operations) -> None:
        batch, height, width = self.size
        settings, limits, manifest = operations.settings, operations.limits, self._served.model.manifest
        if batch > settings.max_pictures:
            raise _too_large(f"a batch of {batch} pictures is over the limit of {settings.max_pictures}.", "Send several requests.")
        most = limits.max_whole or limits.max_pixels
        if batch * height * width > most:
            told = f"{batch} x {height} x {width} pixels are over the limit of {most / 1e6:.4g} megapixels."
            raise _too_large(told, "Send fewer or smaller pictures; /v1/segment and /v1/synthesize scale and tile large ones.")
        step = manifest.multiple_of
        if height % step or width % step:
            padded = [-(-side // step) * step for side in (height, width)]
            raise _bad(
                f"{height} x {width} pixels: both sides have to be multiples of {step}.",
                f"Pad to {padded[0]} x {padded[1]}: photos by repeating the edge, label maps with {manifest.label.void}.",
            )
        values = {name: math.prod(self.size) * (3 if len(self._served.outputs[name].shape) == 4 else 1) for name in self.wanted}
        if sum(count for name, count in values.items() if not self.wanted[name]) > MOST_JSON_VALUES:
            raise _too_large(f"the outputs hold more than the {MOST_JSON_VALUES} values that are sent as JSON.", "Ask for binary_data.")
        if sum(count * (1 if self.wanted[name] else _JSON_BYTES) for name, count in values.items()) > settings.max_answer_bytes:
            raise _too_large(f"the answer is over the limit of {settings.max_answer_bytes / 2**20:.4g} MiB.", "Ask for fewer outputs.")

    def _check_ids(self) -> None:
        """A graph would make nothing of an id that it does not know, and say nothing."""
        if self._served.direction == "to_photo" and len(self._served.main.shape) == 3:
            for ids in self.feed[self._served.main.name]:
                checked_ids(ids, self._served.model.manifest.label)

    def _draw(self) -> int | None:
        """Draw the noise that was not sent; from which seed, where it was drawn."""
        noise, seed = self._served.noise, self.request.parameters.get("seed")
        assert noise is not None
        if noise.name in self.feed:
            if seed is not None:
                raise _bad("both a seed and noise are given.", "Leave one of them out.")
            return None
        if seed is None:
            seed = secrets.randbelow(SEEDS)
        if type(seed) is not int or not 0 <= seed < SEEDS:
            raise _bad(f"the seed {str(seed)[:20]} is no whole number from 0 to {SEEDS - 1}.")
        self.feed[noise.name] = np.stack([draw_noise((seed + offset) % SEEDS, noise.shape[1:]) for offset in range(self.size[0])])
        return seed

    def answer(self, name: str, found: Mapping[str, NDArray[Any]]) -> Response:
        """The outputs as HTTP."""
        head: dict[str, Any] = {"model_name": name}
        if self.request.id is not None:
            head["id"] = self.request.id
        if self.seed is not None:
            head["parameters"] = {"seed": self.seed}
        body, kind, headers = packed(head, found, self.wanted)
        return Response(body, media_type=kind, headers={"X-Model": self._served.model.name, **headers})


def build_kserve(inside: Inside, *, version: str) -> APIRouter:
    """The routes of the protocol; their errors become {"error": "..."} in the middleware, as the protocol has it."""
    router = APIRouter(prefix="/v2", tags=["open inference protocol"])

    @router.get("", **told.SERVER)
    async def server() -> Response:
        return JSONResponse({"name": "fewpair", "version": version, "extensions": ["binary_tensor_data"]})

    @router.get("/health/live", **told.LIVE)
    async def live() -> Response:
        return JSONResponse({"live": True})

    @router.get("/health/ready", **told.READY)
    async def ready() -> Response:
        if inside.operations is None or inside.trouble is not None:
            raise Refusal(503, "not_ready", inside.trouble or "the models are being loaded.", headers={"Retry-After": "5"})
        return JSONResponse({"ready": True, "live": True})

    @router.get("/models/{name}", **told.METADATA)
    async def metadata(name: Annotated[str, told.NAME]) -> Response:
        return JSONResponse(find(inside.need().shelf, name).metadata(name))

    @router.get("/models/{name}/ready", **told.MODEL_READY)
    async def model_ready(name: Annotated[str, told.NAME]) -> Response:
        find(inside.need().shelf, name)
        return JSONResponse({"name": name, "ready": True})

    @router.post("/models/{name}/infer", **told.INFER)
    async def infer(
        name: Annotated[str, told.NAME],
        request: Request,
        inference_header_content_length: Annotated[int | None, Header(ge=0, description=told.JSON_LENGTH)] = None,
    ) -> Response:
        operations = inside.need()
        served = find(operations.shelf, name)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "compressed", "the body is compressed.", hint="Send it as it is.")
        with SpooledTemporaryFile(_IN_MEMORY) as body:
            try:
                async for chunk in request.stream():
                    body.write(chunk)
            except ClientDisconnect:
                raise Refusal(400, "cut_short", "the request ended before its body did.", hint="Send it again.") from None
            return await _infer(operations, served, name, body, json_length=inference_header_content_length)

    return router


async def _infer(operations: Operations, served: Served, name: str, body: Any, *, json_length: int | None) -> Response:
    trace, asked = current_trace(), perf_counter()
    trace.model = served.model.name

    def read() -> Inference:
        body.seek(0)
        return Inference(Body(body.read(), json_length=json_length), served, operations)

    async def run(inference: Inference) -> dict[str, Bytes]:
        """In pieces of at most a megapixel, as tiles are run, so that others get to the device in between."""
        count, height, width = inference.size
        most, found = max(1, BATCH_PIXELS // (height * width)), list[dict[str, Bytes]]()
        for first in range(0, count, most):
            feed = {name: values[first : first + most] for name, values in inference.feed.items()}
            found.append(await operations.run(partial(_piece, served, feed), images=len(feed[served.main.name])))
        return {output: np.concatenate([piece[output] for piece in found]) for output in found[0]}

    async with operations.gate.place():
        trace.stages["wait"] = perf_counter() - asked
        with trace.stage("decode"):
            inference = await operations.gate.off_loop(read)
        try:
            found = await run(inference)
        except RUN_FAILURES as error:  # pictures too large for the machine, for one
            logger.error("%s could not be run: %s: %s", name, type(error).__name__, error)
            raise Refusal(500, "internal", "the model could not be run on it.", hint="Send fewer or smaller pictures.") from error
        with trace.stage("encode"):
            return await operations.gate.off_loop(lambda: inference.answer(name, found))


def _piece(served: Served, feed: dict[str, NDArray[Any]], brake: Brake) -> dict[str, Bytes]:
    return served.model.infer(served.direction, feed, brake=brake)


def find(shelf: Shelf, name: str) -> Served:
    """The direction of a model that this name stands for: NAME.to_label, NAME.to_photo, or NAME alone where it has but one."""
    former, _, last = name.rpartition(".")
    for direction in DIRECTIONS:
        if direction == last and former in shelf.models and shelf.models[former].offers(direction):
            return Served(shelf.models[former], direction)
    if name in shelf.models:
        directions = list(shelf.models[name].manifest.directions)
        if len(directions) == 1:
            return Served(shelf.models[name], directions[0])
    for broken in (name, former):
        if broken in shelf.broken and broken not in shelf.models:
            shelf.find(broken)  # refuses it, with the reason
    names = ", ".join(f"{one}.{direction}" for one, model in shelf.models.items() for direction in model.manifest.directions)
    raise Refusal(404, "unknown_model", f"there is no model called {name[:80]!r}.", hint=f"Models here: {names or 'none'}.")


def _declared(tensor: TensorSpec) -> Declared:
    return Declared(tensor.name, "UINT8", (-1, -1, -1, 3) if tensor.layout == "NHWC" else (-1, -1, -1))


def _described(tensor: Declared) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _bad(message: str, hint: str = "GET /v2/models/{name} describes the tensors of a model.") -> Refusal:
    return Refusal(400, "bad_tensor", message, hint=hint)


def _too_large(message: str, hint: str) -> Refusal:
    return Refusal(413, "too_large", message, hint=hint)
