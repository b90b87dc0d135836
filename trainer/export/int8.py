"""Graphs for CPUs, their convolutions in 8 bits: onnxruntime's static quantisation, and what it changes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from trainer.batch import random
from trainer.data.dataset import Dataset, resized
from trainer.errors import UserError
from trainer.export.graphs import NOISE, PREVIOUS, Graph
from trainer.metrics.evaluate import labelled, spread
from trainer.metrics.segmentation import Confusion
from trainer.onnx_session import open_session

PICTURES = 24
"""How many of `train` calibrate, and of another split are compared."""
KEPT = 3
"""The first convolutions of a graph that reads photos stay in fp32: in 8 bits they cost the shipped segmenter 2 points
of mean IoU (docs/results/speed.md)."""
LARGEST_LOSS, LARGEST_DIFFERENCE = 0.01, 5.0
"""Of mean IoU, and of photos in levels on average."""


def quantized(graph: Graph, dataset: Dataset, *, size: tuple[int, int]) -> tuple[onnx.ModelProto, str]:
    """Return the graph in int8 and what that changes, in words, on pictures of `val` or, without one, `train`.

    Weights int8 by output channel, activations uint8 over the range that pictures of `train` show. Raises UserError
    where mean IoU falls by more than LARGEST_LOSS or photos differ by more than LARGEST_DIFFERENCE.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, plain, small = (Path(folder, f"{name}.onnx") for name in ("given", "plain", "int8"))
        onnx.save(graph.model, given)
        quant_pre_process(given, plain, skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(plain).graph.node if node.op_type == "Conv"]
        quantize_static(
            plain,
            small,
            _Feeds(feed for feed, _ in _pictures(graph, dataset, "train", size)),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=convolutions[:KEPT] if graph.direction == "to_label" else None,
        )
        model = onnx.load(small)
    split = "val" if dataset.splits.get("val") else "train"
    sessions = [open_session(each.SerializeToString()) for each in (graph.model, model)]
    answers, classes = [], dataset.label_domain.classes
    for feed, label in _pictures(graph, dataset, split, size):
        answers.append((label, *(session.run([graph.outputs[0].name], feed)[0][0] for session in sessions)))
    where = f"on {len(answers)} pictures of {split}"
    if graph.outputs[0].kind == "label" and classes is not None:
        counts, index = (Confusion(classes), Confusion(classes)), classes.id_to_index()
        for label, *found in answers:
            for count, ids in zip(counts, found, strict=True):
                count.add(label, index[ids])
        before, after = (count.mean_iou or 0.0 for count in counts)
        changed = np.mean([(ours != theirs).mean() for _, ours, theirs in answers])
        words = f"mean IoU {after:.3f} for {before:.3f} {where}, another class at {changed:.1%} of the pixels"
        too_much = before - after > LARGEST_LOSS
    else:
        difference = np.mean([np.abs(ours.astype(int) - theirs).mean() for _, ours, theirs in answers])
        words = f"photos that differ by {difference:.1f} of 255 levels on average {where}"
        too_much = difference > LARGEST_DIFFERENCE
    if too_much:
        raise UserError(f"{graph.direction} in int8 has {words}: export without --int8")
    return model, words


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterator[dict[str, np.ndarray]]) -> None:
        self.feeds = feeds

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def _pictures(
    graph: Graph, dataset: Dataset, split: str, size: tuple[int, int]
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """What the graph is fed for each of some samples, and the sample's label at that size."""
    classes = dataset.label_domain.classes
    for number, sample in enumerate(spread(labelled(dataset, split), PICTURES)):
        photo, label = (resized(read(sample), size) for read in (dataset.read_photo, dataset.read_label))
        given = photo if graph.direction == "to_label" else label if classes is None else classes.index_to_id()[label]
        feed = {graph.input.name: given[None]}
        if graph.noise_shape is not None:
            feed[NOISE] = random(0, number, "int8").standard_normal((1, *graph.noise_shape), dtype=np.float32)
        if graph.previous:
            feed[PREVIOUS] = photo[None]
        yield feed, label
