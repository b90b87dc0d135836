"""Graphs in onnxruntime, opened as the server opens them, beside OpenVINO and eager torch: fp32, one random picture."""

import contextlib
import hashlib
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figures import Figure, compared, in_turn
from benchmarks.steps import CLASSES
from serving.models.manifest import Direction, NoiseSpec, TensorSpec, read_manifest
from serving.models.session import open_session
from trainer.batch import Domain
from trainer.export.graphs import Direction as DirectionName
from trainer.export.graphs import ToLabel, ToPhoto, draw_graph
from trainer.recipes import RECIPES
from trainer.training.checkpointing import build_method

EXPORTED = Path(__file__).parents[2] / "exported"
FRESH: tuple[tuple[str, DirectionName], ...] = (
    ("mean-teacher-compact", "to_label"),
    ("painter-compact", "to_photo"),
    ("hybrid-compact", "to_label"),
)
"""Recipes whose networks are compared with torch too, by their initial weights, as no run's weights are shipped."""

Feed = dict[str, np.ndarray]
Actions = dict[str, Callable[[], Any]]


def measure(*, threads: int, quick: bool) -> list[Figure]:
    """Every exported graph, and the networks of FRESH."""
    torch.set_num_threads(threads)
    rounds, figures = 3 if quick else 11, []
    if importlib.util.find_spec("openvino") is None:
        print("\nOpenVINO is not installed (benchmarks/requirements.txt): it is not compared with.")
    manifests = [read_manifest(path.parent) for path in sorted(EXPORTED.glob("*/manifest.json"))]
    for manifest in manifests[:1] if quick else manifests:
        for name, direction in manifest.directions.items():
            feed = random_feed(direction, (manifest.resize.height or 128, manifest.resize.width or 192))
            of = {"graph": f"{manifest.name} {name}", "size": _size(feed)}
            figures += beside(onnx_actions(direction, feed, threads), of, rounds)
    for recipe, name in FRESH[2:] if quick else FRESH:
        with fresh(recipe, name) as (direction, network):
            feed = random_feed(direction, RECIPES[recipe].size)
            of = {"graph": f"{recipe} {name}, initial weights", "size": _size(feed)}
            inputs = [torch.from_numpy(value) for value in feed.values()]
            actions = onnx_actions(direction, feed, threads)
            actions["torch eager"] = lambda network=network, inputs=inputs: network(*inputs)[0]  # type: ignore[misc]
            with torch.inference_mode():
                figures += beside(actions, of, rounds)
    return figures


def beside(actions: Actions, of: dict[str, Any], rounds: int) -> list[Figure]:
    """How long each takes, how long the first call takes, and how far the answers are from onnxruntime's."""
    figures, answers = [], {}
    for who, action in actions.items():
        began = time.perf_counter()
        answers[who] = np.asarray(action())
        figures.append(Figure("first call", 1000 * (time.perf_counter() - began), "ms", of | {"by": who}))
    for who, answer in answers.items():
        apart = np.abs(answer.astype(int) - answers["onnxruntime"].astype(int)) > 1
        if who != "onnxruntime":
            figures.append(Figure("values over one apart", float(apart.mean()), "1", of | {"by": who}))
    return [*compared("one picture", in_turn(actions, rounds=rounds), of), *figures]


def onnx_actions(direction: Direction, feed: Feed, threads: int) -> Actions:
    """Onnxruntime first, and OpenVINO where it is installed: for this one shape, in fp32 too."""
    session = open_session(direction, device="cpu", threads=threads, deterministic=False)
    output = direction.outputs[0].name
    actions: Actions = {"onnxruntime": lambda: session.run([output], feed)[0]}
    if importlib.util.find_spec("openvino") is not None:
        import openvino

        model = openvino.Core().read_model(direction.file)
        model.reshape({name: list(value.shape) for name, value in feed.items()})
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        request = openvino.compile_model(model, "CPU", settings).create_infer_request()
        actions["openvino"] = lambda: request.infer(feed)[output]
    return actions


@contextlib.contextmanager
def fresh(recipe: str, name: DirectionName) -> Iterator[tuple[Direction, torch.nn.Module]]:
    """A direction of a recipe's network with its initial weights: exported into a temporary folder, and in torch."""
    run = RECIPES[recipe]
    method = build_method(run, Domain("classes", CLASSES)).eval()
    graph = draw_graph(method, name, size=run.size, half=False)
    with tempfile.TemporaryDirectory(prefix="fewpair-speed-") as folder:
        file = Path(folder, f"{name}.onnx")
        file.write_bytes(content := graph.model.SerializeToString())
        spots = [TensorSpec(spot.name, spot.kind, spot.layout) for spot in (graph.input, *graph.outputs)]
        noise = None if graph.noise_shape is None else NoiseSpec("noise", graph.noise_shape)
        direction = Direction(file, hashlib.sha256(content).hexdigest(), spots[0], tuple(spots[1:]), noise)
        ids, indices = CLASSES.index_to_id(), CLASSES.id_to_index().astype(np.int64)
        yield direction, (ToLabel(method, ids) if name == "to_label" else ToPhoto(method, indices)).eval()


def random_feed(direction: Direction, size: tuple[int, int]) -> Feed:
    """A random photo u8[1,H,W,3] or label map u8[1,H,W] and, where the graph takes it, noise."""
    draws, spot = np.random.default_rng(0), direction.input
    shape, most = ((1, *size, 3), 256) if spot.layout == "NHWC" else ((1, *size), 11)
    feed: Feed = {spot.name: draws.integers(0, most, shape, dtype=np.uint8)}
    if direction.noise is not None:
        feed[direction.noise.name] = draws.standard_normal((1, *direction.noise.shape), dtype=np.float32)
    return feed


def _size(feed: Feed) -> str:
    return "x".join(map(str, next(iter(feed.values())).shape[1:3]))
