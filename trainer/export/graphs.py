"""A method's directions as ONNX graphs, uint8 in and out: normalisation, class lookups and decoding are inside."""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from trainer.batch import Domain
from trainer.errors import UserError
from trainer.methods.base import Method

Direction = Literal["to_label", "to_photo"]

OPSET = 20
RAW = "raw"
"""The float output that a graph under test has beside its uint8 ones; a shipped file does not have it."""
NOISE = "noise"
PREVIOUS = "previous"
LARGE = 256
"""Weights with at least this many elements are worth storing in half the bytes."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph, as the manifest describes it."""

    name: str
    kind: Literal["photo", "picture", "label", "confidence"]

    @property
    def layout(self) -> Literal["NHWC", "NHW"]:
        """photo and picture have three channels, label and confidence none."""
        return "NHWC" if self.kind in ("photo", "picture") else "NHW"

    def described(self) -> dict[str, str]:
        """The entry of the manifest."""
        return {"name": self.name, "kind": self.kind, "dtype": "uint8", "layout": self.layout}


@dataclass(frozen=True)
class Graph:
    """One direction, exported."""

    direction: Direction
    model: onnx.ModelProto
    """What is shipped."""
    under_test: onnx.ModelProto | None
    """The same nodes with the float output RAW beside; None where a method decodes its labels itself."""
    input: Port
    outputs: tuple[Port, ...]
    noise_shape: tuple[int, ...] | None
    previous: bool = False
    """Whether the photo before it is a second input, PREVIOUS u8[N,H,W,3]."""


class Translation(nn.Module):
    """A direction of a method; `table` converts class ids, and is None where labels are pictures."""

    table: Tensor | None

    def __init__(self, method: Method, table: np.ndarray | None = None) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("table", None if table is None else torch.from_numpy(table))


class ToLabel(Translation):
    """`photo` u8[N,H,W,3] -> `label` u8[N,H,W] in raw ids, `confidence` u8[N,H,W], Float probabilities [N,C,H,W].

    Without class scores only `label`; where labels are pictures, `picture` u8[N,H,W,3] and the Float picture.
    """

    def forward(self, photo: Tensor) -> tuple[Tensor, ...]:
        photo = to_float(photo)
        if self.table is None:
            picture = self.method.to_label(photo)
            return to_levels(picture), picture
        scores = self.method.label_scores(photo)
        if scores is None:
            return (looked_up(self.table, self.method.to_label(photo)),)
        probabilities = torch.softmax(scores.float(), 1)
        confidence = torch.round(probabilities.amax(1) * 255).to(torch.uint8)
        return looked_up(self.table, scores.argmax(1)), confidence, probabilities


class ToPhoto(Translation):
    """`label` u8[N,H,W] in raw ids (unknown ones are void) or `picture` u8[N,H,W,3] -> `photo` u8 and Float.

    `extra` is the noise Float, or the photo before u8[N,H,W,3], where the method takes one.
    """

    def forward(self, label: Tensor, extra: Tensor | None = None) -> tuple[Tensor, ...]:
        known = to_float(label) if self.table is None else looked_up(self.table, label.long())
        if self.method.takes_previous and extra is not None:
            photo = self.method.next_photo(known, to_float(extra))
        else:
            photo = self.method.to_photo(known, extra)
        return to_levels(photo), photo


class Style(Translation):
    """`photo` u8[N,H,W,3] -> `noise` Float[N,*noise_shape]."""

    def forward(self, photo: Tensor) -> Tensor:
        return self.method.style_of(to_float(photo))


def to_float(photo: Tensor) -> Tensor:
    """u8[N,H,W,3] -> Float[N,3,H,W] in [-1,1]."""
    return photo.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_levels(photo: Tensor) -> Tensor:
    """Float[N,3,H,W] in [-1,1] -> u8[N,H,W,3], rounded and clamped (methods E.4)."""
    return torch.round((photo.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def looked_up(table: Tensor, index: Tensor) -> Tensor:
    """table[index] as one Gather over all pixels, which every execution provider has for every type."""
    return torch.index_select(table, 0, index.reshape(-1)).reshape(index.shape)


def draw_graph(method: Method, direction: Direction, *, size: tuple[int, int]) -> Graph:
    """Export one direction with dynamic batch, height and width (multiples of the method's); `size` is an example."""
    domain = method.label_domain
    unit = method.multiple_of
    if size[0] % unit or size[1] % unit:
        raise UserError(f"the run's size {size[0]}x{size[1]} is not a multiple of {unit}, which its method needs")
    wrapper, port, outputs = _described(method, direction, domain)
    height, width = (unit * torch.export.Dim(f"{word}_over_{unit}", min=2) for word in ("height", "width"))
    # A dimension of one unit would not be taken for a dynamic one.
    example = tuple(max(side, 2 * unit) for side in size)
    shape = (2, *example, 3) if port.layout == "NHWC" else (2, *example)
    arguments = [torch.zeros(shape, dtype=torch.uint8)]
    dynamic: list[dict[int, Any]] = [{0: "batch", 1: height, 2: width}]
    inputs = [port.name]
    noise_shape = method.noise_shape if direction == "to_photo" else None
    previous = method.takes_previous and direction == "to_photo"
    if noise_shape is not None:
        inputs.append(NOISE)
        arguments.append(torch.zeros(2, *noise_shape))
        dynamic.append({0: torch.export.Dim.AUTO})  # found equal to the batch; naming it again would be warned of
    if previous:
        inputs.append(PREVIOUS)
        arguments.append(torch.zeros((2, *example, 3), dtype=torch.uint8))
        dynamic.append(dict.fromkeys(range(3), torch.export.Dim.AUTO))
    has_raw = direction == "to_photo" or domain.kind == "picture" or len(outputs) == 2
    names = [*(output.name for output in outputs), *([RAW] if has_raw else [])]
    model = _exported(wrapper, arguments, inputs=inputs, outputs=names, dynamic=dynamic)
    under_test = None
    if has_raw:
        under_test = copy.deepcopy(model)
        model.graph.output.pop()
    return Graph(direction, model, under_test, port, outputs, noise_shape, previous)


def draw_style(method: Method) -> onnx.ModelProto:
    """Export `style_of` for photos of the method's `style_size`, with a dynamic batch."""
    assert method.style_size is not None
    photo = torch.zeros((2, *method.style_size, 3), dtype=torch.uint8)
    return _exported(Style(method), [photo], inputs=["photo"], outputs=[NOISE], dynamic=[{0: "batch"}])


def _exported(
    wrapper: nn.Module, arguments: list[Tensor], *, inputs: list[str], outputs: list[str], dynamic: list[dict[int, Any]]
) -> onnx.ModelProto:
    program = torch.onnx.export(
        wrapper.eval(),
        tuple(arguments),
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=tuple(dynamic),
        opset_version=OPSET,
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def stored_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with every large fp32 initializer in fp16 and a Cast. Raises UserError where a weight is beyond fp16."""
    model, casts = copy.deepcopy(model), []
    for position, weights in enumerate(model.graph.initializer):
        values = numpy_helper.to_array(weights)
        if weights.data_type != onnx.TensorProto.FLOAT or values.size < LARGE:
            continue
        with np.errstate(over="ignore"):
            short = values.astype(np.float16)
        if not np.isfinite(short).all():
            raise UserError("the weights do not fit into fp16 (some are beyond 65504): export without half")
        name = weights.name
        model.graph.initializer[position].CopyFrom(numpy_helper.from_array(short, f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], name=f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *copy.deepcopy(list(model.graph.node))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _described(method: Method, direction: Direction, domain: Domain) -> tuple[nn.Module, Port, tuple[Port, ...]]:
    label_side = Port("label", "label") if domain.kind == "classes" else Port("picture", "picture")
    if direction == "to_photo":
        indices = None if domain.classes is None else domain.classes.id_to_index().astype(np.int64)
        return ToPhoto(method, indices), label_side, (Port("photo", "photo"),)
    with torch.inference_mode():
        probe = torch.zeros(1, 3, 4 * method.multiple_of, 4 * method.multiple_of)
        has_scores = domain.kind == "classes" and method.label_scores(probe) is not None
    outputs = (label_side, Port("confidence", "confidence")) if has_scores else (label_side,)
    ids = None if domain.classes is None else domain.classes.index_to_id()
    return ToLabel(method, ids), Port("photo", "photo"), outputs


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter records of the machine: stack traces, module names, shapes of inner values."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
