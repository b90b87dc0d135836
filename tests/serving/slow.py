"""A model whose run takes as long as its picture is large, for tests of overload, timeouts and shutdown."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from tests.serving import factory

SIDE = 31


def write_slow_model(folder, monkeypatch, *, times=1):
    """The tiny model behind one or several 31x31 convolutions (about 50 GFLOP a megapixel) that change nothing."""
    plain = factory.segmenting_graph

    def slow():
        model = plain()
        graph = model.graph
        mean = next(node for node in graph.node if node.op_type == "ReduceMean")
        mean.output[0] = "quick"
        position = list(graph.node).index(mean) + 1
        for offset, node in enumerate(
            [
                helper.make_node("Transpose", ["float"], ["channels"], perm=[0, 3, 1, 2]),
                helper.make_node("Conv", ["channels", "kernel"], ["spread 0"], pads=[SIDE // 2] * 4),
                *(
                    helper.make_node("Conv", [f"spread {turn - 1}", "again"], [f"spread {turn}"], pads=[SIDE // 2] * 4)
                    for turn in range(1, times)
                ),
                helper.make_node("ReduceMean", [f"spread {times - 1}", "channel"], ["mean"], keepdims=0),
                helper.make_node("Mul", ["mean", "nothing"], ["none"]),
                helper.make_node("Add", ["quick", "none"], ["grey"]),
            ]
        ):
            graph.node.insert(position + offset, node)
        graph.initializer.extend(
            [
                numpy_helper.from_array(np.full((8, 3, SIDE, SIDE), 1e-6, np.float32), "kernel"),
                *(
                    [numpy_helper.from_array(np.full((8, 8, SIDE, SIDE), 1e-6, np.float32), "again")]
                    if times > 1
                    else []
                ),
                numpy_helper.from_array(np.array([1], np.int64), "channel"),
                numpy_helper.from_array(np.float32(0), "nothing"),
            ]
        )
        return model

    with monkeypatch.context() as patch:
        patch.setattr(factory, "segmenting_graph", slow)
        return factory.write_model(folder, directions=("to_label",))
