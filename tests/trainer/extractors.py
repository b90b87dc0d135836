"""Small feature extractors as real files, and a source that counts its calls."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from trainer.data.selection.features import FeatureExtractor


def write_extractor(
    path: Path,
    *,
    image: tuple[object, ...] = ("B", 3, 224, 224),
    names: tuple[str, str] = ("image", "features"),
    flat: bool = True,
    nan: bool = False,
) -> Path:
    """An ONNX file whose features are the means of 56x56 patches (48 values); the options break its contract."""
    nodes = [helper.make_node("AveragePool", [names[0]], ["means"], kernel_shape=[56, 56], strides=[56, 56])]
    last = "means"
    if nan:
        nodes.append(helper.make_node("Log", [last], ["log"]))
        last = "log"
    nodes.append(helper.make_node("Flatten" if flat else "Identity", [last], [names[1]]))
    shape: list[object] = ["B", 48] if flat else ["B", 3, 4, 4]
    graph = helper.make_graph(
        nodes,
        "patches",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, list(image))],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, shape)],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


class Counting(FeatureExtractor):
    """Patch means in numpy; counts the photos it was asked for, and can be interrupted as by Ctrl-C."""

    def __init__(self, *, name: str = "counting-00000000", stop_after: int | None = None) -> None:
        self.calls = 0
        self._stop_after = stop_after
        super().__init__(_patch_means, name=name)

    def _forward(self, photos: np.ndarray) -> np.ndarray:
        if self._stop_after is not None and self.calls + len(photos) > self._stop_after:
            raise KeyboardInterrupt
        self.calls += len(photos)
        return super()._forward(photos)


def _patch_means(photos: np.ndarray) -> np.ndarray:
    return photos.reshape(len(photos), 4, 56, 4, 56, 3).mean(axis=(2, 4)).reshape(len(photos), -1).astype(np.float32)
