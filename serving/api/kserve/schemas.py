"""The JSON of the open inference protocol (v2), as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, WithJsonSchema

from serving.inference.parameters import SEEDS

_NUMBERS = {"type": "array", "items": {}, "description": "Numbers in row-major order, flat or nested as the shape."}


class TensorParameters(BaseModel):
    """Extensions of a tensor."""

    binary_data_size: StrictInt | None = Field(default=None, description="Its bytes follow the JSON; no `data`.")


class Tensor(BaseModel):
    """A tensor of a request or of a response."""

    name: StrictStr
    shape: list[Annotated[StrictInt, Field(ge=1, le=2**31)]] = Field(max_length=8)
    datatype: StrictStr = Field(description="`UINT8`, or `FP32` for noise.")
    parameters: TensorParameters = TensorParameters()
    data: Annotated[Any, WithJsonSchema(_NUMBERS)] = None


class OutputParameters(BaseModel):
    """Extensions of a requested output."""

    binary_data: StrictBool | None = Field(default=None, description="Whether it comes as bytes after the JSON.")
    classification: Annotated[None, Field(description="Not supported.")] = None


class RequestedOutput(BaseModel):
    """An output to be sent."""

    name: StrictStr
    parameters: OutputParameters = OutputParameters()


class RequestParameters(BaseModel):
    """Extensions of a request."""

    binary_data_output: StrictBool = Field(default=False, description="All outputs as bytes.")
    seed: StrictInt | None = Field(default=None, ge=0, lt=SEEDS, description="Noise that is not sent is drawn from it.")


class InferenceRequest(BaseModel):
    """The JSON of a request."""

    id: StrictStr | None = Field(default=None, max_length=200, description="Comes back in the answer.")
    parameters: RequestParameters = RequestParameters()
    inputs: list[Tensor] = Field(min_length=1, max_length=8)
    outputs: list[RequestedOutput] = Field(default=[], max_length=8, description="All of them if absent.")


class InferenceResponse(BaseModel):
    """The JSON of a response."""

    model_name: str
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[Tensor]


class KServeError(BaseModel):
    """The protocol's error: one sentence."""

    error: str


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
