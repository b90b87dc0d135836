"""A real server for the programs: `python -m serving` in a folder, its processes, memory, settings and metrics."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
_READY_WITHIN = 300.0  # seconds
_BESIDE_RUNS = 2  # requests that are decoded or encoded beside those that run
_SETTINGS = (
    "import sys; from serving.settings import load_settings; print(load_settings(sys.argv[1:]).model_dump_json())"
)
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """A running server: its address, launcher, folder (`server.log`, temporary files in `tmp`) and settings."""

    url: str
    process: subprocess.Popen[str]
    home: Path
    settings: dict[str, Any]

    def log(self) -> str:
        return (self.home / "server.log").read_text(errors="replace")

    def capacity(self) -> int:
        """Return how many requests are admitted at a time."""
        settings = self.settings
        return int(settings["runs_at_once"] * (settings["batch"] or 1) + _BESIDE_RUNS + settings["queue"])

    def processes(self) -> dict[int, str]:
        """Return the role of each process: launcher, worker (the one that answers), or other."""
        roles = {self.process.pid: "launcher"}
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    roles[child.pid] = "worker" if "_bentoml_impl.worker.service" in child.cmdline() else "other"
        return roles

    def worker(self) -> int | None:
        """Return the process that answers; None where it has just died."""
        return next((pid for pid, role in self.processes().items() if role == "worker"), None)

    def memory(self) -> float:
        """Return the resident memory of all processes in MB (10^6 bytes)."""
        total = 0.0
        for pid in self.processes():
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss / 1e6
        return total

    def cpu_seconds(self) -> float:
        """Return the processor time of all processes."""
        spent = 0.0
        for pid in self.processes():
            with contextlib.suppress(psutil.Error):
                times = psutil.Process(pid).cpu_times()
                spent += times.user + times.system
        return spent

    def metrics(self) -> Metrics:
        return Metrics(_direct.open(f"{self.url}/metrics", timeout=60).read().decode())

    def stop(self) -> int:
        """Stop it; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(240)


class Metrics:
    """The values of GET /metrics at one moment."""

    def __init__(self, text: str) -> None:
        self._values = {
            (sample.name, frozenset(sample.labels.items())): float(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def by(self, name: str, label: str = "") -> dict[str, float]:
        """Return the sums of a metric by the values of a label."""
        found: dict[str, float] = {}
        for (one, labels), value in self._values.items():
            if one == name:
                key = dict(labels).get(label, "")
                found[key] = found.get(key, 0.0) + value
        return found

    def total(self, name: str) -> float:
        return sum(self.by(name).values())


def stage_means(before: Metrics, after: Metrics) -> dict[str, float]:
    """Return the mean milliseconds of each stage of the requests answered in between."""
    counts, sums = (
        {stage: value - before.by(name, "stage").get(stage, 0.0) for stage, value in after.by(name, "stage").items()}
        for name in ("fewpair_stage_seconds_count", "fewpair_stage_seconds_sum")
    )
    return {stage: round(1000 * sums[stage] / count, 2) for stage, count in counts.items() if count}


def mean_batch(before: Metrics, after: Metrics) -> float | None:
    """Return the mean number of pictures in a run in between."""
    pictures, runs = (
        after.total(f"fewpair_batch_size_{what}") - before.total(f"fewpair_batch_size_{what}")
        for what in ("sum", "count")
    )
    return round(pictures / runs, 3) if runs else None


@contextlib.contextmanager
def running(models: Path, home: Path, options: Sequence[str] = (), **variables: str) -> Iterator[Server]:
    """Start a server over these models, wait until it is ready, and stop it on the way out."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEWPAIR_")}
    environment |= {"TMPDIR": str(home / "tmp"), **variables}
    arguments = ["--models", str(models), "--port", str(free_port()), *options]
    read = subprocess.run(
        [sys.executable, "-c", _SETTINGS, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
    )
    settings = json.loads(read.stdout)
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
    server = Server(f"http://127.0.0.1:{settings['port']}", process, home, settings)
    try:
        until = time.monotonic() + _READY_WITHIN
        while not re.search(r"^Ready\.", server.log(), re.MULTILINE):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the server did not become ready:\n{server.log()}")
            time.sleep(0.1)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(240)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """Return a free port below the range from which the system gives ports to clients."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
