"""Graphs in onnxruntime, opened as the server opens them, beside OpenVINO and eager torch: fp32, one random picture."""

import contextlib
import hashlib
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import Figure, compared, in_turn, median
from benchmarks.steps import CLASSES
from serving.models.manifest import Direction, NoiseSpec, TensorSpec, read_manifest
from serving.models.session import has_vnni, open_session
from trainer.batch import Domain
from trainer.export.graphs import Direction as DirectionName
from trainer.export.graphs import ToLabel, ToPhoto, draw_graph
from trainer.networks.init import fuse_spectral_norm
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
            figures += [*beside(onnx_actions(direction, feed, threads), of, rounds), around(direction, feed, of)]
    best = best_rates()
    figures += best
    for recipe, name in FRESH[2:] if quick else FRESH:
        with fresh(recipe, name) as (direction, network):
            feed = random_feed(direction, RECIPES[recipe].size)
            of = {"graph": f"{recipe} {name}, initial weights", "size": _size(feed)}
            inputs = [torch.from_numpy(value) for value in feed.values()]
            actions = onnx_actions(direction, feed, threads)
            actions["torch eager"] = lambda network=network, inputs=inputs: network(*inputs)[0]  # type: ignore[misc]
            with torch.inference_mode():
                found = beside(actions, of, rounds)
                with FlopCounterMode(display=False) as counter:
                    network(*inputs)
            took = next(one.value for one in found if one.name == "one picture" and one.of["by"] == "onnxruntime")
            share = counter.get_total_flops() / (1e6 * (took or 0) * (best[1].value or 0))
            figures += [*found, Figure("share of the best convolution rate", share, "1", of | {"by": "onnxruntime"})]
    return figures


def best_rates() -> list[Figure]:
    """What this machine reaches in fp32 by torch, in 1e9 operations a second: a product of matrices, a convolution."""
    matrix, picture, weights = torch.randn(2048, 2048), torch.randn(1, 128, 128, 128), torch.randn(128, 128, 3, 3)
    picture = picture.to(memory_format=torch.channels_last)
    actions = {"matrix product": lambda: matrix @ matrix, "convolution": lambda: conv2d(picture, weights, padding=1)}
    operations = {"matrix product": 2 * 2048**3, "convolution": 2 * 9 * 128**4}
    with torch.inference_mode():
        took = in_turn(actions, rounds=11)
    return [
        median("best rate", [operations[name] / 1e9 / one for one in row], "GFLOP/s", {"of": name, "precision": "fp32"})
        for name, row in took.items()
    ]


def around(direction: Direction, feed: Feed, of: dict[str, Any]) -> Figure:
    """The share of a run's time in the nodes before the first convolution and after the last one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = 1, True
    with tempfile.TemporaryDirectory(prefix="fewpair-speed-") as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(str(direction.file), options, providers=["CPUExecutionProvider"])
        for _ in range(3):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event for event in events if event["name"].endswith("_kernel_time")]
    nodes = nodes[2 * len(nodes) // 3 :]  # the last run
    places = [place for place, event in enumerate(nodes) if event["args"]["op_name"] == "Conv"]
    outside = sum(event["dur"] for event in [*nodes[: places[0]], *nodes[places[-1] + 1 :]])
    return Figure("before and after the convolutions", outside / sum(event["dur"] for event in nodes), "1", of)


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
    """Onnxruntime first, in int8 where there is such a graph, and OpenVINO where it is installed: one shape, fp32."""
    output = direction.outputs[0].name
    actions: Actions = {}
    for who, graph in (("onnxruntime", replace(direction, int8=None)), ("onnxruntime int8", direction)):
        if who == "onnxruntime" or (direction.int8 and has_vnni()):
            session = open_session(graph, device="cpu", threads=threads, deterministic=False)
            actions[who] = lambda session=session: session.run([output], feed)[0]  # type: ignore[misc]
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
    method = fuse_spectral_norm(build_method(run, Domain("classes", CLASSES))).eval()  # as an export does
    graph = draw_graph(method, name, size=run.size)
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
