"""How the cost grows: with pixels and pictures of a run, with models of a server, with photos to select from."""

import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, in_turn, median
from benchmarks.speed.inference import EXPORTED, random_feed
from serving.models.manifest import read_manifest
from serving.models.model import CancelToken
from serving.models.session import has_vnni, open_session
from trainer.data.selection.rules import BY_FEATURES
from trainer.networks.encoders import DEFAULT, Encoder

RUNS = ((1, 128), (1, 256), (1, 512), (1, 1024), (8, 128), (8, 256))
"""Pictures in a run and their side."""
MODELS = (1, 5, 20)
PHOTOS = (1_000, 10_000, 100_000)
K = 20
LOAD = """
import sys, time
from pathlib import Path
import psutil
from serving.models.repository import EMPTY, reload_repository
from serving.settings import Settings
began = time.perf_counter()
reload_repository(EMPTY, Settings(models=Path(sys.argv[1]), device="cpu", threads=int(sys.argv[2])))
print(time.perf_counter() - began, psutil.Process().memory_info().rss / 2**20)
"""


def measure(*, threads: int, quick: bool) -> list[Figure]:
    """Each curve, with fewer points where it has to be quick."""
    return [*pixels(threads, quick), *models(threads, quick), *selection(quick)]


def pixels(threads: int, quick: bool) -> list[Figure]:
    """Milliseconds of a megapixel by the size of a run, as the server runs the graphs."""
    figures = []
    for model, name in (("camvid-segmenter", "to_label"), ("camvid-painter", "to_photo")):
        direction = read_manifest(EXPORTED / model).directions[name]  # type: ignore[index]
        session = open_session(direction, device="cpu", threads=threads, deterministic=False)
        actions: dict[str, Callable[[], object]] = {}
        for batch, side in RUNS[:2] if quick else RUNS:
            feed = random_feed(direction, (side, side))
            feed = {name: np.repeat(value, batch, axis=0) for name, value in feed.items()}
            actions[f"{batch} x {side}x{side}"] = functools.partial(session.run, None, feed, CancelToken().options)
        took = in_turn(actions, rounds=3 if quick else 5)
        for (batch, side), (size, row) in zip(RUNS, took.items(), strict=False):
            of = {"graph": f"{model} {name}", "size": size, "precision": "int8" if has_vnni() else "fp32"}
            figures.append(median("a megapixel", [1e9 * one / (batch * side**2) for one in row], "ms", of))
    return figures


def models(threads: int, quick: bool) -> list[Figure]:
    """Seconds to load so many models of one size, and the memory of the process that holds them."""
    figures = []
    for count in MODELS[:2] if quick else MODELS:
        with tempfile.TemporaryDirectory(prefix="fewpair-speed-") as folder:
            for number in range(count):
                one = shutil.copytree(EXPORTED / "camvid-segmenter", Path(folder, f"model-{number}"))
                manifest = json.loads((one / "manifest.json").read_text()) | {"name": one.name}
                (one / "manifest.json").write_text(json.dumps(manifest))
            command = [sys.executable, "-c", LOAD, folder, str(threads)]
            found = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(3)]
        seconds, memory = zip(*(map(float, line.split()) for line in found), strict=True)
        figures.append(median("models loaded", seconds, "s", {"models": count}))
        figures.append(median("memory with models", memory, "MiB", {"models": count}))
    return figures


def selection(quick: bool) -> list[Figure]:
    """Seconds to select K photos by their features, which are drawn at random, without the seconds to compute these."""
    figures, width = [], Encoder(DEFAULT).channels[-1]
    for count in PHOTOS[:1] if quick else PHOTOS:
        features = np.random.default_rng(0).standard_normal((count, width), dtype=np.float32)
        for rule, select in BY_FEATURES.items():
            began = time.perf_counter()
            select(features, K, 0)
            figures.append(
                Figure(f"{K} photos selected", time.perf_counter() - began, "s", {"rule": rule, "of": count})
            )
    return figures
