"""A real server for the long proofs: `python -m serving` in a folder of its own, its processes, its settings and its metrics."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # one of BentoML's own dependencies
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
AHEAD = 2  # requests that a worker works on beside those that run: docs/operations.md, "A crowd"
_READY_WITHIN = 300.0
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """A running server: where it answers, its launcher, its own folder with `server.log` and the temporary files `tmp`."""

    url: str
    process: subprocess.Popen[str]
    home: Path

    def said(self) -> str:
        """Everything that it has printed."""
        return (self.home / "server.log").read_text(errors="replace")

    def settings(self) -> dict[str, str]:
        """Every setting as the launcher printed it, and `threads a run`."""
        said = self.said()
        line = re.search(r"^All settings \(.*?\): (.*)$", said.partition("\nReady.")[0], re.MULTILINE)
        found = dict(word.split("=", 1) for word in shlex.split(line[1])) if line else {}
        threads = re.search(r", (\d+) threads? a run, with:", said)
        return {**found, "threads a run": threads[1] if threads else "?"}

    def room(self) -> int:
        """How many requests all workers admit together."""
        told = self.settings()
        batch = int(told.get("batch", 1)) or 1  # as the device likes it: one on the CPU
        return int(told["workers"]) * (int(told["runs_at_once"]) * batch + AHEAD + int(told["queue"]))

    def queue_wait_ms(self) -> int:
        """Milliseconds that a request may wait; 0: any time, or a server that knows no such bound."""
        return int(self.settings().get("queue_wait", 0))

    def processes(self) -> dict[int, str]:
        """Every process by its role: launcher, worker, or other (BentoML's own arbiter and watcher)."""
        roles = {self.process.pid: "launcher"}
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    roles[child.pid] = "worker" if "_bentoml_impl.worker.service" in child.cmdline() else "other"
        return roles

    def workers(self) -> list[int]:
        """The processes that answer, the oldest first."""
        found = [pid for pid, role in self.processes().items() if role == "worker"]
        with contextlib.suppress(psutil.Error):
            found.sort(key=lambda pid: float(psutil.Process(pid).create_time()))
        return found

    def cpu_seconds(self) -> float:
        """Processor time of all its processes that live."""
        spent = 0.0
        for pid in self.processes():
            with contextlib.suppress(psutil.Error):
                times = psutil.Process(pid).cpu_times()
                spent += times.user + times.system
        return spent

    def left_over(self) -> dict[str, int]:
        """What lies among its temporary files, counted by what it is called."""
        kinds = Counter(re.sub(r"[-_]?[A-Za-z0-9_]{8}$|\d+$", "", path.name) or path.name for path in (self.home / "tmp").iterdir())
        return dict(sorted(kinds.items()))

    def metrics(self) -> Metrics:
        """What GET /metrics says now."""
        return Metrics(_direct.open(f"{self.url}/metrics", timeout=60).read().decode())

    def stop(self) -> int:
        """Ask it to stop, and wait until it has; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(240)


class Metrics:
    """One look at GET /metrics; two of them make a difference."""

    def __init__(self, text: str) -> None:
        self._values = {
            (sample.name, frozenset(sample.labels.items())): float(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def sum(self, name: str, **labels: str) -> float:
        """Of all series of that name that carry these labels."""
        return sum(value for (one, held), value in self._values.items() if one == name and labels.items() <= dict(held).items())

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The same, apart by the values of these labels."""
        found: dict[tuple[str, ...], float] = {}
        for (one, held), value in self._values.items():
            if one == name:
                key = tuple(dict(held).get(label, "") for label in labels)
                found[key] = found.get(key, 0.0) + value
        return found


def stage_means(before: Metrics, after: Metrics) -> dict[str, float]:
    """Mean milliseconds of each stage of the requests answered between two looks, over all endpoints."""
    means = {}
    counts, sums = (
        {key: value - before.by(name, "stage").get(key, 0.0) for key, value in after.by(name, "stage").items()}
        for name in ("fewpair_stage_seconds_count", "fewpair_stage_seconds_sum")
    )
    for key, count in counts.items():
        if count:
            means[key[0]] = round(1000 * sums[key] / count, 2)
    return means


def batch_sizes(before: Metrics, after: Metrics) -> dict[str, float]:
    """Runs between two looks by how many pictures went into them ("1", "2", "4" for 3 and 4, ...), and `mean`."""
    grown = {
        bound[0]: count - before.by("fewpair_batch_size_bucket", "le").get(bound, 0.0)
        for bound, count in after.by("fewpair_batch_size_bucket", "le").items()
    }
    sizes, under = {}, 0.0
    for bound, count in sorted(grown.items(), key=lambda one: float(one[0])):
        if count > under:
            sizes[bound.removesuffix(".0")] = count - under
        under = count
    runs = after.sum("fewpair_batch_size_count") - before.sum("fewpair_batch_size_count")
    pictures = after.sum("fewpair_batch_size_sum") - before.sum("fewpair_batch_size_sum")
    return {**sizes, "mean": round(pictures / runs, 3)} if runs else sizes


def free_port() -> int:
    """A port that nobody has, below those that the system gives to whoever asks for any."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def split_options(options: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The launcher's switches, and each `--name value` as the variable of that setting: most settings have no flag, all have a variable."""
    switches, variables = [], {}
    rest = list(options)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            raise SystemExit(f"{word} among the server's options is no --name")
        if equals or (rest and not rest[0].startswith("--")):
            variables[f"FEWPAIR_{name.replace('-', '_').upper()}"] = value if equals else rest.pop(0)
        else:
            switches.append(word)
    return switches, variables


@contextlib.contextmanager
def running(models: Path, home: Path, options: Sequence[str] = (), **variables: str) -> Iterator[Server]:
    """A server over these models, ready; `options` as `split_options` reads them. It is stopped on the way out."""
    switches, chosen = split_options(options)
    port = free_port()
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    mine = {"TMPDIR": str(home / "tmp"), "BENTOML_HOME": str(home / "bentoml"), "GRADIO_TEMP_DIR": str(home / "gradio")}
    environment = {**_inherited(os.environ), **mine, "BENTOML_DO_NOT_TRACK": "True", **chosen, **variables}
    command = [sys.executable, "-m", "serving", "--models", str(models), "--port", str(port), *switches]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True)
    server = Server(f"http://127.0.0.1:{port}", process, home)
    try:
        _wait_until_ready(server)
        _check_settings(server, chosen)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(240)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _inherited(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("FEWPAIR_")}


def _check_settings(server: Server, chosen: Mapping[str, str]) -> None:
    """A variable that is no setting would do nothing, and the figures would claim it did."""
    known = {"FEWPAIR_CONFIG", *(f"FEWPAIR_{name.upper()}" for name in server.settings())}
    strange = sorted(chosen.keys() - known)
    if strange:
        names = ", ".join(f"--{name.removeprefix('FEWPAIR_').lower()}" for name in strange)
        raise SystemExit(f"{names}: this server has no such setting; it has {', '.join(sorted(server.settings()))}")


def _wait_until_ready(server: Server) -> None:
    until = time.monotonic() + _READY_WITHIN
    while not re.search(r"^Ready\.", server.said(), re.MULTILINE):
        if server.process.poll() is not None:
            raise SystemExit(f"the server ended while it started:\n{server.said()}")
        if time.monotonic() > until:
            raise SystemExit(f"the server was not ready in {_READY_WITHIN:g} s:\n{server.said()}")
        time.sleep(0.1)
