"""Tiny honest models for the tests: ONNX graphs built by hand, with complete manifests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

CLASSES = [
    {"id": 0, "name": "dark", "color": [64, 0, 128], "ignore": False},
    {"id": 1, "name": "middle", "color": [0, 128, 64], "ignore": False},
    {"id": 2, "name": "bright", "color": [250, 250, 60], "ignore": False},
    {"id": 3, "name": "void", "color": [0, 0, 0], "ignore": True},
]

RADIUS = 5  # pixels that the blurring models see in every direction; their receptive field is 11


def segmenting_graph() -> onnx.ModelProto:
    """photo u8[N,H,W,3] -> label: mean brightness under 85 is 0, under 170 is 1, else 2; confidence: the brightness."""
    constants = {"low": np.float32(85), "high": np.float32(170)}
    nodes = [
        helper.make_node("Cast", ["photo"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["grey"], keepdims=0),
        helper.make_node("GreaterOrEqual", ["grey", "low"], ["over_low"]),
        helper.make_node("GreaterOrEqual", ["grey", "high"], ["over_high"]),
        helper.make_node("Cast", ["over_low"], ["first"], to=TensorProto.INT32),
        helper.make_node("Cast", ["over_high"], ["second"], to=TensorProto.INT32),
        helper.make_node("Add", ["first", "second"], ["id"]),
        helper.make_node("Cast", ["id"], ["label"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["grey"], ["confidence"], to=TensorProto.UINT8),
    ]
    initializers = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    initializers.append(numpy_helper.from_array(np.array([3], np.int64), "axes"))
    return _model(
        nodes, initializers, inputs=[("photo", _photo())], outputs=[("label", _map()), ("confidence", _map())]
    )


def synthesizing_graph(*, noise: bool = True) -> onnx.ModelProto:
    """label u8[N,H,W] -> photo: each class's colour, shifted by 30 times the noise (one value for all channels)."""
    palette = np.zeros((256, 3), np.float32)
    for row in CLASSES:
        palette[row["id"]] = row["color"]
    nodes = [
        helper.make_node("Cast", ["label"], ["index"], to=TensorProto.INT32),
        helper.make_node("Gather", ["palette", "index"], ["colour"], axis=0),
    ]
    initializers = [
        numpy_helper.from_array(palette, "palette"),
        numpy_helper.from_array(np.float32(0), "black"),
        numpy_helper.from_array(np.float32(255), "white"),
    ]
    inputs = [("label", _map())]
    if noise:
        nodes += [
            helper.make_node("Mul", ["noise", "strength"], ["shift"]),
            helper.make_node("Reshape", ["shift", "shape"], ["shift4"]),
            helper.make_node("Add", ["colour", "shift4"], ["shifted"]),
        ]
        initializers += [
            numpy_helper.from_array(np.float32(30), "strength"),
            numpy_helper.from_array(np.array([-1, 1, 1, 3], np.int64), "shape"),
        ]
        inputs.append(("noise", helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", 3])))
    nodes += [
        helper.make_node("Clip", ["shifted" if noise else "colour", "black", "white"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["photo"], to=TensorProto.UINT8),
    ]
    return _model(nodes, initializers, inputs=inputs, outputs=[("photo", _photo())])


def style_graph() -> onnx.ModelProto:
    """photo u8[N,2,3,3] -> noise: the mean of each channel, from 0 to 1."""
    nodes = [
        helper.make_node("Cast", ["photo"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "sides"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["noise"]),
    ]
    initializers = [
        numpy_helper.from_array(np.array([1, 2], np.int64), "sides"),
        numpy_helper.from_array(np.float32(255), "white"),
    ]
    photo = helper.make_tensor_type_proto(TensorProto.UINT8, ["batch", 2, 3, 3])
    noise = helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", 3])
    return _model(nodes, initializers, inputs=[("photo", photo)], outputs=[("noise", noise)])


def negative_graph(given: str, answered: str) -> onnx.ModelProto:
    """u8[N,H,W,3] -> 255 minus it: between two kinds of pictures."""
    nodes = [helper.make_node("Sub", ["white", given], [answered])]
    white = numpy_helper.from_array(np.array(255, np.uint8), "white")
    return _model(nodes, [white], inputs=[(given, _photo())], outputs=[(answered, _photo())])


def blurring_graph(*, answer: str) -> onnx.ModelProto:
    """u8[N,H,W,3] through five zero-padded 3x3 convolutions: each pixel sees RADIUS pixels in every direction.

    Answers as a photo of the same size, or as a label by brightness with the brightness as confidence.
    """
    kernel = np.random.default_rng(1).uniform(0.2, 1.0, (3, 3, 3, 3)).astype(np.float32)
    kernel /= kernel.sum(axis=(1, 2, 3), keepdims=True)
    given = "photo" if answer == "label" else "picture"
    nodes = [
        helper.make_node("Cast", [given], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["0"], perm=[0, 3, 1, 2]),
        *(
            helper.make_node("Conv", [str(step), "kernel"], [str(step + 1)], pads=[1, 1, 1, 1])
            for step in range(RADIUS)
        ),
        helper.make_node("Transpose", [str(RADIUS)], ["blurred"], perm=[0, 2, 3, 1]),
        helper.make_node("Round", ["blurred"], ["rounded"]),
    ]
    initializers = [numpy_helper.from_array(kernel, "kernel")]
    if answer == "photo":
        nodes.append(helper.make_node("Cast", ["rounded"], ["photo"], to=TensorProto.UINT8))
        return _model(nodes, initializers, inputs=[("picture", _photo())], outputs=[("photo", _photo())])
    brightness = segmenting_graph().graph
    nodes += [node for node in brightness.node if node.output[0] != "float"]
    for node in nodes:
        node.input[:] = ["rounded" if name == "float" and node.op_type == "ReduceMean" else name for name in node.input]
    return _model(
        nodes,
        [*initializers, *brightness.initializer],
        inputs=[("photo", _photo())],
        outputs=[("label", _map()), ("confidence", _map())],
    )


def write_blurring_model(folder: Path, *, side: int, **changes: Any) -> Path:
    """An exported folder that allows tiles of `side`: photo -> label and label ids -> photo by five convolutions."""
    folder.mkdir(parents=True)
    described = {
        "to_label": _direction(folder, blurring_graph(answer="label"), "photo", "confidence", "label"),
        "to_photo": _direction(folder, synthesizing_graph(), "label", "photo", noise=True),
    }
    resize = {"rule": "none", "height": side, "width": side, "filter": "bicubic"}
    return _write_manifest(folder, described, **{"tiling": "allowed", "resize": resize, **changes})


def write_model(
    folder: Path,
    *,
    directions: tuple[str, ...] = ("to_label", "to_photo"),
    noise: bool = True,
    confidence: bool = True,
    style: bool = False,
    examples: bool = False,
    **changes: Any,
) -> Path:
    """An exported folder; `changes` replace entries of its manifest."""
    folder.mkdir(parents=True)
    described: dict[str, Any] = {}
    if "to_label" in directions:
        outputs = ("label", "confidence") if confidence else ("label",)
        described["to_label"] = _direction(folder, segmenting_graph(), "photo", *outputs)
    if "to_photo" in directions:
        described["to_photo"] = _direction(folder, synthesizing_graph(noise=noise), "label", "photo", noise=noise)
    if style:
        changes["style"] = {**_stored(folder / "style.onnx", style_graph()), "size": [2, 3]}
    if examples:
        changes["examples"] = ["two-halves"]
        (folder / "examples").mkdir()
        ids = np.zeros((32, 48), np.uint8)
        ids[16:] = 2
        Image.fromarray(ids).save(folder / "examples/two-halves.png")
        colours = np.array([row["color"] for row in CLASSES], np.uint8)
        Image.fromarray(colours[ids]).save(folder / "examples/two-halves.jpg")
    return _write_manifest(folder, described, **changes)


def rewired(folder: Path, *nodes: onnx.NodeProto, **constants: list[int]) -> Path:
    """Have these nodes of the to_label graph of a model make `float` of `plain`, the photo as floats."""
    path = folder / "to_label.onnx"
    model = onnx.load(path)
    model.graph.node[0].output[0] = "plain"
    for index, node in enumerate(nodes, 1):
        model.graph.node.insert(index, node)
    model.graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in constants.items())
    onnx.save(model, path)
    return signed(folder)


def signed(folder: Path) -> Path:
    """Write the sum of the to_label graph as it is now into the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["directions"]["to_label"]["sha256"] = hashlib.sha256((folder / "to_label.onnx").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_picture_model(folder: Path) -> Path:
    """An exported folder whose label side is a picture: each direction answers with the negative."""
    folder.mkdir(parents=True)
    described = {
        direction: _direction(folder, negative_graph(given, answered), given, answered, name=direction)
        for direction, given, answered in (("to_label", "photo", "picture"), ("to_photo", "picture", "photo"))
    }
    picture = {"kind": "picture", "classes": None}
    return _write_manifest(folder, described, domains={"photo": picture, "label": picture})


def _write_manifest(folder: Path, described: dict[str, Any], **changes: Any) -> Path:
    manifest = {
        "format": 1,
        "name": folder.name,
        "description": "Three classes by brightness: a model for tests.",
        "directions": described,
        "domains": {"photo": {"kind": "picture", "classes": None}, "label": {"kind": "classes", "classes": CLASSES}},
        "resize": {"rule": "none", "height": None, "width": None, "filter": "bicubic"},
        "multiple_of": 1,
        "tiling": "forbidden",
        "training": {
            "method": "by hand",
            "recipe": None,
            "dataset": "none",
            "terms": "public domain",
            "pairs": 0,
            "unpaired": 0,
            "steps": 0,
            "size": [32, 48],
            "seed": 0,
            "weights": "raw",
            "commit": "none",
            "versions": {"onnx": onnx.__version__},
        },
        "metrics": {"val": {"mean_iou": 0.5}},
        "parity": {},
        **changes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _stored(path: Path, model: onnx.ModelProto) -> dict[str, str]:
    graph = model.SerializeToString()
    path.write_bytes(graph)
    return {"file": path.name, "sha256": hashlib.sha256(graph).hexdigest()}


def _direction(
    folder: Path, model: onnx.ModelProto, given: str, *answers: str, noise: bool = False, name: str = ""
) -> dict[str, Any]:
    """Write a graph; return the manifest's entry of its direction."""
    direction = name or ("to_label" if "label" in answers else "to_photo")
    return {
        **_stored(folder / f"{direction}.onnx", model),
        "input": _tensor(given),
        "outputs": [_tensor(answer) for answer in answers],
        "noise": {"name": "noise", "shape": [3]} if noise else None,
    }


def _tensor(kind: str) -> dict[str, str]:
    layout = "NHWC" if kind in ("photo", "picture") else "NHW"
    return {"name": kind, "kind": kind, "dtype": "uint8", "layout": layout}


def _photo() -> onnx.TypeProto:
    return helper.make_tensor_type_proto(TensorProto.UINT8, ["batch", "height", "width", 3])


def _map() -> onnx.TypeProto:
    return helper.make_tensor_type_proto(TensorProto.UINT8, ["batch", "height", "width"])


def _model(nodes: list[Any], initializers: list[Any], *, inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_value_info(name, kind) for name, kind in inputs],
        [helper.make_value_info(name, kind) for name, kind in outputs],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
