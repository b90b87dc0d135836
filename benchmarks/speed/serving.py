"""`fewpair serve --no-ui` beside plain FastAPI and LitServe on one graph, and beside the graph without a server.

A drawn scene as a JPEG file is sent, and its class ids come back as a PNG file of its size. All servers run side by
side, one of them is asked at a time, and the clients share their cores.
"""

import asyncio
import contextlib
import importlib.util
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figures import Figure, median
from benchmarks.soak.exchange import Request, send
from benchmarks.soak.load import closed_loop
from benchmarks.soak.record import percentile
from benchmarks.soak.requests import form
from benchmarks.soak.server import free_port
from benchmarks.speed.inference import EXPORTED
from benchmarks.speed.plain_servers import Segmenter
from serving.models.manifest import read_manifest
from serving.models.session import has_vnni
from trainer.data.synthetic import scenes

MODEL = "camvid-segmenter"
CLIENTS = (1, 8, 32)
START_WITHIN = 120.0  # seconds


def measure(*, threads: int, quick: bool) -> list[Figure]:
    """Start each server several times, then ask them in turn, in several rounds."""
    manifest = read_manifest(EXPORTED / MODEL)
    height, width = manifest.resize.height, manifest.resize.width
    graph = manifest.directions["to_label"]
    file = graph.int8.file if graph.int8 and has_vnni() else graph.file  # what fewpair's server runs
    model = [str(value) for value in (file, height, width, threads)]
    ours = ["trainer", "serve", "--no-ui", "--models", EXPORTED, "--threads", threads, "--queue-wait", 0, "--port"]
    commands = {
        "fewpair": [str(word) for word in ours],
        "FastAPI": ["benchmarks.speed.plain_servers", "FastAPI", *model],
        "LitServe": ["benchmarks.speed.plain_servers", "LitServe", *model],
    }
    if importlib.util.find_spec("litserve") is None:
        print("\nLitServe is not installed (benchmarks/requirements.txt): it is not compared with.")
        del commands["LitServe"]
    upload = io.BytesIO()
    Image.fromarray(scenes.draw(0, height=360, width=480)[0]).save(upload, "JPEG", quality=90)
    request = form("scene", "/v1/segment", [("scene.jpg", upload.getvalue())], model=MODEL, output="ids")
    rounds, seconds = (2, 0.5) if quick else (3, 3.0)

    starts: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            with started(command, request) as (_, took):
                starts[name].append(took)
    figures = [median("first answer after the start", took, "s", {"by": name}) for name, took in starts.items()]

    segmenter = Segmenter(*model)
    pixels = segmenter.decoded(Image.open(upload))
    asked: dict[tuple[str, int], Callable[[], list[float]]] = {
        ("bare session", 1): lambda: looped(lambda: segmenter.run(pixels), seconds),
        ("decode, run, encode", 1): lambda: looped(lambda: segmenter(upload.getvalue()), seconds),
    }
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            url, _ = stack.enter_context(started(command, request))
            for clients in CLIENTS:
                asked[name, clients] = lambda url=url, clients=clients: answered(url, request, clients, seconds)  # type: ignore[misc]
        return figures + throughput(asked, rounds)


def throughput(asked: dict[tuple[str, int], Callable[[], list[float]]], rounds: int) -> list[Figure]:
    """Answers a second with their share of those in process, and percentiles of an answer's time over all rounds."""
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in asked}
    times: dict[tuple[str, int], list[float]] = {key: [] for key in asked}
    for turn in range(rounds + 1):
        for key in random.sample(list(asked), len(asked)):
            began = time.perf_counter()
            seen = asked[key]()
            if turn:
                rates[key].append(len(seen) / (time.perf_counter() - began))
                times[key] += seen
    figures, whole = [], rates["decode, run, encode", 1]
    for (who, clients), row in rates.items():
        of = {"by": who, "clients": clients}
        figures.append(median("answers a second", row, "1/s", of))
        shares = [rate / alone for rate, alone in zip(row, whole, strict=True)]
        figures.append(median("answers a second, relative to decode, run, encode", shares, "x", of))
        for share in (0.5, 0.95, 0.99):
            value = 1000 * percentile(times[who, clients], share)
            figures.append(Figure(f"p{100 * share:.0f}", value, "ms", of | {"answers": len(times[who, clients])}))
    return figures


def looped(action: Callable[[], object], seconds: float) -> list[float]:
    """The seconds of each call, for so long."""
    marks = [time.perf_counter()]
    while marks[-1] < marks[0] + seconds:
        action()
        marks.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(marks)]


def answered(url: str, request: Request, clients: int, seconds: float) -> list[float]:
    """The seconds of each answer of a closed loop of clients."""
    seen = asyncio.run(closed_loop(url, [request], clients, seconds=seconds))
    if wrong := [one for one in seen if one.status != 200]:
        raise SystemExit(f"{len(wrong)} of {len(seen)} requests to {url} failed: {wrong[0].status} {wrong[0].error}")
    return [one.seconds for one in seen]


@contextlib.contextmanager
def started(command: Sequence[str], request: Request) -> Iterator[tuple[str, float]]:
    """A server, once it has answered with a label map, and the seconds from its start until then."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEWPAIR_")}
    with tempfile.NamedTemporaryFile("w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", *command, str(port)],
            cwd=Path(__file__).parents[2],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            while (answer := asyncio.run(send(url, request))).status != 200:
                if process.poll() is not None or time.perf_counter() > began + START_WITHIN:
                    raise SystemExit(f"{command[0]} does not answer ({answer}):\n{Path(log.name).read_text()}")
                time.sleep(0.02)
            took = time.perf_counter() - began
            if np.asarray(Image.open(io.BytesIO(answer.body))).shape != (360, 480):
                raise SystemExit(f"{command[0]} answers with something else than a label map")
            yield url, took
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers that it has left
