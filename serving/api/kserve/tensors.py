"""Tensors of the open inference protocol (v2): as JSON, or as bytes after it (the binary data extension)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.api.kserve.schemas import InferenceRequest, Tensor, TensorMetadata
from serving.api.requests import parse_json
from serving.errors import Refusal

JSON_LENGTH = "Inference-Header-Content-Length"
_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
_HINT = "GET /v2/models/{name} describes the tensors of a model."


def require(holds: object, message: str, hint: str = _HINT) -> None:
    """Raise Refusal (400) where something about the tensors does not hold."""
    if not holds:
        raise Refusal(400, "bad_tensor", message, hint=hint)


def parse(body: bytes, json_length: int | None) -> tuple[InferenceRequest, memoryview]:
    """Split a body into its JSON, all of it without a length, and the bytes after the JSON."""
    length = len(body) if json_length is None else json_length
    require(length <= len(body), f"{JSON_LENGTH} says {length} bytes, the body has {len(body)}.")
    hint = f"{_HINT} Where bytes follow the JSON, {JSON_LENGTH} says how long it is."
    return parse_json(InferenceRequest, body[:length], "bad_tensor", hint), memoryview(body)[length:]


def check_inputs(sent: Sequence[Tensor], declared: Mapping[str, TensorMetadata]) -> dict[str, list[int]]:
    """Return the shape of each input. Raises Refusal where a name, datatype or shape (-1: any size) is not declared."""
    for tensor in sent:
        require(tensor.name in declared, f"there is no input {tensor.name[:80]!r}.")
        name, datatype, shape = tensor.name, declared[tensor.name].datatype, declared[tensor.name].shape
        require(tensor.datatype == datatype, f"the input {name} is {datatype}, not {tensor.datatype[:20]!r}.")
        fits = len(tensor.shape) == len(shape) and all(
            side in (-1, given) for side, given in zip(shape, tensor.shape, strict=True)
        )
        message = f"the input {name} has the shape {shape}, which {tensor.shape} is not."
        require(fits, message, "-1 stands for any size.")
    shapes = {tensor.name: tensor.shape for tensor in sent}
    require(len(shapes) == len(sent), "an input is given more than once.")
    return shapes


def read_inputs(sent: Sequence[Tensor], after: memoryview) -> dict[str, NDArray[Any]]:
    """Return the inputs by name. Raises Refusal where one does not hold what its shape and datatype say."""
    arrays: dict[str, NDArray[Any]] = {}
    start = 0
    for tensor in sent:
        size = tensor.parameters.binary_data_size
        if size is None:
            arrays[tensor.name] = _from_json(tensor)
        else:
            arrays[tensor.name] = _from_bytes(tensor, after[start:], size)
            start += size
        finite = np.isfinite(arrays[tensor.name]).all()
        require(finite, f"the input {tensor.name} holds values that are not finite.")
    message = f"{len(after)} bytes follow the JSON, its inputs' binary_data_size make {start}."
    require(start == len(after), message, f"Send {JSON_LENGTH}.")
    return arrays


def requested_outputs(request: InferenceRequest, outputs: Sequence[str]) -> dict[str, bool]:
    """Return each output to be sent, in the order of the request, and whether as bytes."""
    as_bytes = request.parameters.binary_data_output
    requested: dict[str, bool] = {} if request.outputs else dict.fromkeys(outputs, as_bytes)
    for output in request.outputs:
        known = output.name in outputs
        require(known, f"there is no output {output.name[:80]!r}.", f"Outputs: {', '.join(outputs)}.")
        require(output.name not in requested, f"the output {output.name} is requested twice.")
        binary = output.parameters.binary_data
        requested[output.name] = as_bytes if binary is None else binary
    return requested


def packed(
    head: Mapping[str, Any], found: Mapping[str, NDArray[Any]], requested: Mapping[str, bool]
) -> tuple[bytes, str, dict[str, str]]:
    """Return a response as body, media type and headers: `head` (model_name, id, parameters) and the outputs."""
    outputs, after = [], []
    for name, binary in requested.items():
        tensor: dict[str, Any] = {"name": name, "shape": list(found[name].shape), "datatype": "UINT8"}
        if binary:
            after.append(np.ascontiguousarray(found[name]).tobytes())
            tensor["parameters"] = {"binary_data_size": len(after[-1])}
        else:
            tensor["data"] = found[name].ravel().tolist()
        outputs.append(tensor)
    text = json.dumps({**head, "outputs": outputs}, separators=(",", ":")).encode()
    if not after:
        return text, "application/json", {}
    return b"".join([text, *after]), "application/octet-stream", {JSON_LENGTH: str(len(text))}


def _from_json(sent: Tensor) -> NDArray[Any]:
    name = sent.name
    require(sent.data is not None, f"the input {name} holds neither data nor binary_data_size.")
    try:
        held = np.array(sent.data, object)
    except ValueError:  # lists of unequal lengths, or nested too deep
        held = np.empty(0, object)
    fits = held.size == math.prod(sent.shape) and (held.ndim == 1 or held.shape == tuple(sent.shape))
    require(fits, f"the data of {name} is neither flat nor nested as its shape {sent.shape}.")
    numbers = {*map(type, held.flat)} <= {int, float}  # an array of strings takes the longest one's bytes for each
    require(numbers, f"the data of {name} holds values that are not numbers.")
    values = np.array(held.tolist())
    if sent.datatype == "UINT8":
        whole = values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 255
        require(whole, f"the data of {name} holds values that are not whole numbers from 0 to 255.")
    require(values.dtype.kind in "iuf", f"the data of {name} holds values that are not numbers.")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        return values.astype(_DTYPES[sent.datatype]).reshape(sent.shape)


def _from_bytes(sent: Tensor, after: memoryview, size: int) -> NDArray[Any]:
    name, dtype = sent.name, _DTYPES[sent.datatype]
    require(sent.data is None, f"the input {name} comes both as data and as binary_data_size.")
    due = math.prod(sent.shape) * dtype.itemsize
    require(size == due, f"binary_data_size of {name} is {size}; {sent.datatype} of shape {sent.shape} takes {due}.")
    require(due <= len(after), f"{name} has {due} bytes after the JSON, where {len(after)} are left.", "Send them all.")
    return np.frombuffer(after[:due], dtype).reshape(sent.shape)
