"""A judge as a small ONNX file."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def thresholding(path: Path, *, ids: tuple[int, ...] = (4, 7), confidence: bool = False) -> Path:
    """A judge that knows bright from dark by the red channel, which also is its confidence."""
    nodes = [
        helper.make_node("Slice", ["photo", "zero", "one", "last"], ["red"]),
        helper.make_node("Squeeze", ["red", "last"], ["level"]),
        helper.make_node("Cast", ["level"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Greater", ["number", "middle"], ["bright"]),
        helper.make_node("Where", ["bright", "high", "low"], ["label"]),
    ]
    graph = helper.make_graph(
        nodes,
        "threshold",
        [helper.make_tensor_value_info("photo", TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", "H", "W"])
            for name in ("label", *(["level"] if confidence else []))
        ],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("last", TensorProto.INT64, [1], [3]),
            helper.make_tensor("middle", TensorProto.FLOAT, [], [127.5]),
            helper.make_tensor("low", TensorProto.UINT8, [], [ids[0]]),
            helper.make_tensor("high", TensorProto.UINT8, [], [ids[1]]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path
