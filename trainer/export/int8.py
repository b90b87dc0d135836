"""Graphs for CPUs, their convolutions in 8 bits: onnxruntime's static quantisation, and what it changes."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from trainer.batch import random
from trainer.data.dataset import Dataset, Sample, resized
from trainer.data.selection.selection import Selection
from trainer.errors import UserError
from trainer.export.graphs import NOISE, Graph
from trainer.metrics.evaluate import labelled, spread
from trainer.metrics.segmentation import Confusion

PICTURES = 24
"""How many samples of the training calibrate, and of another split are compared."""
KEPT = 3
"""The first convolutions of a graph that reads photos stay in fp32: in 8 bits they cost the shipped segmenter 2 points
of mean IoU (docs/results/speed.md)."""
LARGEST_LOSS, LARGEST_DIFFERENCE = 0.01, 5.0
"""Of mean IoU, and of pictures in levels on average."""
Size = tuple[int, int]
Feed = dict[str, np.ndarray]


def quantized(graph: Graph, dataset: Dataset, selection: Selection, *, size: Size) -> tuple[onnx.ModelProto, str]:
    """Return the graph in int8 and what that changes, in words, on labelled samples of `val` or, without any, `train`.

    Weights int8 by output channel, activations uint8 over the range that the run's photos, or the label maps of its
    pairs, show. Raises UserError where mean IoU falls by more than LARGEST_LOSS, or pictures differ by more than
    LARGEST_DIFFERENCE, and for graphs that take the frame before, whose differences would add up.
    """
    if graph.previous:
        raise UserError("int8 is not for models that take the frame before: export without --int8")
    reads_photos = graph.direction == "to_label"
    known: Sequence[Sample] = (*selection.pairs, *selection.unpaired_photos) if reads_photos else selection.pairs
    source = dataset if known else selection.labels_from
    known = spread(known or selection.unpaired_labels, PICTURES)
    with tempfile.TemporaryDirectory() as folder:
        given, plain, small = (Path(folder, f"{name}.onnx") for name in ("given", "plain", "int8"))
        onnx.save(graph.model, given)
        quant_pre_process(given, plain, skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(plain).graph.node if node.op_type == "Conv"]
        quantize_static(
            plain,
            small,
            _Feeds(_feed(graph, source, sample, number, size) for number, sample in enumerate(known)),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=convolutions[:KEPT] if reads_photos else None,
        )
        model = onnx.load(small)
    split = "val" if any(sample.complete for sample in dataset.splits.get("val", ())) else "train"
    samples = spread(labelled(dataset, split), PICTURES)
    sessions = [_exact_session(each) for each in (graph.model, model)]
    output, classes = graph.outputs[0], dataset.label_domain.classes
    answers = []
    for number, sample in enumerate(samples):
        feed = _feed(graph, dataset, sample, number, size)
        answers.append([session.run([output.name], feed)[0][0] for session in sessions])
    where = f"on {len(answers)} samples of {split}"
    if output.kind == "label" and classes is not None:
        counts, index = (Confusion(classes), Confusion(classes)), classes.id_to_index()
        for sample, found in zip(samples, answers, strict=True):
            for count, ids in zip(counts, found, strict=True):
                count.add(resized(dataset.read_label(sample), size), index[ids])
        before, after = (count.mean_iou or 0.0 for count in counts)
        changed = np.mean([(ours != theirs).mean() for ours, theirs in answers])
        words = f"mean IoU {after:.3f} for {before:.3f} {where}, another class at {changed:.1%} of the pixels"
        too_much = before - after > LARGEST_LOSS
    else:
        difference = np.mean([np.abs(ours.astype(int) - theirs).mean() for ours, theirs in answers])
        words = f"{output.name}s that differ by {difference:.1f} of 255 levels on average {where}"
        too_much = difference > LARGEST_DIFFERENCE
    if too_much:
        raise UserError(f"{graph.direction} in int8 has {words}: export without --int8")
    return model, words


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterator[Feed]) -> None:
        self.feeds = feeds

    def get_next(self) -> Feed | None:
        return next(self.feeds, None)


def _exact_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session that computes 8-bit values in fp32, as exactly as a CPU with VNNI does: older CPUs saturate."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _feed(graph: Graph, dataset: Dataset, sample: Sample, number: int, size: Size) -> Feed:
    classes = dataset.label_domain.classes
    if graph.direction == "to_label":
        given = resized(dataset.read_photo(sample), size)
    else:
        label = resized(dataset.read_label(sample), size)
        given = label if classes is None else classes.index_to_id()[label]
    feed = {graph.input.name: given[None]}
    if graph.noise_shape is not None:
        feed[NOISE] = random(0, number, "int8").standard_normal((1, *graph.noise_shape), dtype=np.float32)
    return feed
