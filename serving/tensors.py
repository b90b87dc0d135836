"""Tensors of the open inference protocol (v2) on the wire: as JSON, or as bytes behind it (the binary data extension)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError, WithJsonSchema

from serving.errors import Refusal

JSON_LENGTH = "Inference-Header-Content-Length"
MOST_JSON_VALUES = 2_000_000  # read, they may take half a gigabyte
_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
_BINARY_HINT = "Send the tensor as binary data (binary_data_size), as tritonclient does by itself."
_Data = Annotated[
    Any, WithJsonSchema({"type": "array", "items": {}, "description": "Numbers in row-major order, flat or nested as the shape."})
]


class SentTensor(BaseModel):
    """A tensor of a request or of a response."""

    name: StrictStr
    shape: list[Annotated[StrictInt, Field(ge=1)]] = Field(max_length=8)
    datatype: StrictStr = Field(description="`UINT8`, or `FP32` for noise.")
    parameters: dict[str, Any] = Field(
        default={}, description="`binary_data_size`: its bytes stand behind the JSON, and `data` is left out."
    )
    data: _Data = None


class WantedOutput(BaseModel):
    """An output that is asked for."""

    name: StrictStr
    parameters: dict[str, Any] = Field(default={}, description="`binary_data`: whether it comes as bytes behind the JSON.")


class InferenceRequest(BaseModel):
    """The JSON of a request."""

    id: StrictStr | None = Field(default=None, max_length=200, description="Comes back in the answer.")
    parameters: dict[str, Any] = Field(
        default={}, description="`binary_data_output`: all outputs as bytes. `seed`: noise is drawn from it where it is not sent."
    )
    inputs: list[SentTensor] = Field(min_length=1, max_length=8)
    outputs: list[WantedOutput] = Field(default=[], max_length=8, description="All of them if absent.")


class InferenceResponse(BaseModel):
    """The JSON of a response."""

    model_name: str
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[SentTensor]


@dataclass(frozen=True)
class Declared:
    """A tensor of a graph; -1 stands for a side that varies."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def check(self, sent: SentTensor) -> tuple[int, ...]:
        """The shape that was sent; Refusal where it, or the datatype, is another than declared."""
        if sent.datatype != self.datatype:
            raise _bad(f"the input {self.name} is {self.datatype}, not {sent.datatype[:20]!r}.")
        if len(sent.shape) != len(self.shape) or any(-1 != side != given for side, given in zip(self.shape, sent.shape, strict=True)):
            raise _bad(f"the input {self.name} has the shape {list(self.shape)}, which {sent.shape} is not.", "-1 stands for any size.")
        return tuple(sent.shape)


class Body:
    """A request's body: the JSON, and the bytes behind it."""

    def __init__(self, body: bytes, *, json_length: int | None) -> None:
        if json_length is not None and json_length > len(body):
            raise _bad(f"{JSON_LENGTH} says {json_length} bytes, the body has {len(body)}.")
        text = body if json_length is None else body[:json_length]
        self._bytes = memoryview(body)[len(text) :]
        self.request = _read(text)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every input by its name; Refusal where one is of another size than its shape, or holds what its datatype does not."""
        arrays: dict[str, NDArray[Any]] = {}
        start = 0
        for sent in self.request.inputs:
            size = sent.parameters.get("binary_data_size")
            if size is None:
                arrays[sent.name] = _from_json(sent)
                continue
            if sent.data is not None:
                raise _bad(f"the input {_short(sent.name)} comes both as data and as binary_data_size.")
            arrays[sent.name] = _from_bytes(sent, self._bytes[start:], size)
            start += size
        if start != len(self._bytes):
            raise _bad(
                f"{len(self._bytes)} bytes stand behind the JSON, its inputs' binary_data_size make {start}.", f"Send {JSON_LENGTH}."
            )
        return arrays

    def wanted(self, outputs: Sequence[str]) -> dict[str, bool]:
        """Every output that is to be sent, in the order asked for, and whether as bytes."""
        by_default = _switch(self.request.parameters, "binary_data_output", default=False)
        if not self.request.outputs:
            return dict.fromkeys(outputs, by_default)
        wanted: dict[str, bool] = {}
        for output in self.request.outputs:
            if output.name not in outputs:
                raise _bad(f"there is no output {_short(output.name)}.", f"Outputs: {', '.join(outputs)}.")
            if output.name in wanted:
                raise _bad(f"the output {output.name} is asked for twice.")
            if "classification" in output.parameters:
                raise _bad("the classification extension is not spoken here.", "GET /v2 names the extensions that are.")
            wanted[output.name] = _switch(output.parameters, "binary_data", default=by_default)
        return wanted


def packed(head: Mapping[str, Any], found: Mapping[str, NDArray[Any]], wanted: Mapping[str, bool]) -> tuple[bytes, str, dict[str, str]]:
    """A response as body, media type and headers: `head` (model_name, id, parameters) and the wanted outputs."""
    outputs, behind = [], []
    for name, binary in wanted.items():
        tensor = {"name": name, "shape": list(found[name].shape), "datatype": "UINT8"}
        if binary:
            behind.append(np.ascontiguousarray(found[name]).tobytes())
            outputs.append({**tensor, "parameters": {"binary_data_size": len(behind[-1])}})
        else:
            outputs.append({**tensor, "data": found[name].ravel().tolist()})
    text = json.dumps({**head, "outputs": outputs}, separators=(",", ":")).encode()
    if not behind:
        return text, "application/json", {}
    return b"".join([text, *behind]), "application/octet-stream", {JSON_LENGTH: str(len(text))}


def _read(text: bytes) -> InferenceRequest:
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > MOST_JSON_VALUES:
        raise Refusal(413, "too_many_values", f"the JSON holds more than {MOST_JSON_VALUES} values.", hint=_BINARY_HINT)
    try:
        sent = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _bad("the body is no JSON that can be read.", f"Where bytes stand behind it, {JSON_LENGTH} says how long it is.") from None
    try:
        return InferenceRequest.model_validate(sent)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the JSON"
        raise _bad(f"{where[:80]}: {problem['msg']}.") from None


def _from_json(sent: SentTensor) -> NDArray[Any]:
    if sent.data is None:
        raise _bad(f"the input {_short(sent.name)} holds neither data nor binary_data_size.")
    try:
        values = np.array(sent.data)
    except ValueError:  # lists of unequal lengths, or nested too deep
        raise _bad(f"the data of {_short(sent.name)} is neither flat nor nested as its shape.") from None
    if values.size != math.prod(sent.shape) or (values.ndim != 1 and values.shape != tuple(sent.shape)):
        raise _bad(f"the data of {_short(sent.name)} has the shape {list(values.shape)}, which is neither flat nor {sent.shape}.")
    if sent.datatype == "UINT8":
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
            raise _bad(f"the data of {_short(sent.name)} holds what is no whole number from 0 to 255.")
    elif values.dtype.kind not in "iuf":
        raise _bad(f"the data of {_short(sent.name)} holds what is no number.")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        return _finite(sent, values.astype(_DTYPES[sent.datatype]).reshape(sent.shape))


def _from_bytes(sent: SentTensor, behind: memoryview, size: Any) -> NDArray[Any]:
    dtype = _DTYPES[sent.datatype]
    due = math.prod(sent.shape) * dtype.itemsize
    if type(size) is not int or size != due:
        raise _bad(f"binary_data_size of {_short(sent.name)} is {str(size)[:20]}; {sent.datatype} of the shape {sent.shape} takes {due}.")
    if size > len(behind):
        raise _bad(
            f"{_short(sent.name)} is to have {size} bytes behind the JSON, where {len(behind)} are left.", f"Send all, and {JSON_LENGTH}."
        )
    return _finite(sent, np.frombuffer(behind[:size], dtype).reshape(sent.shape))


def _finite(sent: SentTensor, values: NDArray[Any]) -> NDArray[Any]:
    if not np.isfinite(values).all():
        raise _bad(f"{_short(sent.name)} holds values that are not finite.")
    return values


def _switch(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _bad(f"{name} is {str(value)[:20]!r}, neither true nor false.")
    return value


def _no_constant(spelled: str) -> float:
    raise ValueError(f"{spelled} is no number of JSON")


def _short(name: str) -> str:
    return repr(name[:80])


def _bad(message: str, hint: str = "") -> Refusal:
    return Refusal(400, "bad_tensor", message, hint=hint or "GET /v2/models/{name} describes the tensors of a model.")
