"""A real server process for the tests: started by the launcher, waited for, stopped."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 150  # to be ready, on a machine that has other things to do


@dataclass(frozen=True)
class Server:
    """Where it answers, and the launcher's process."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def free_port() -> int:
    """A free port below the range from which the system assigns ports, so that no other process gets it."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def environment(home: Path, **variables: str) -> dict[str, str]:
    """The variables of a server that leaves no trace outside of `home`."""
    mine = {
        "BENTOML_HOME": str(home / "bentoml"),
        "GRADIO_TEMP_DIR": str(home / "gradio"),
        "BENTOML_DO_NOT_TRACK": "True",
        "OMP_NUM_THREADS": "1",
    }
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("FEWPAIR_")},
        **mine,
        **variables,
    }


def running_server(
    models: Path, home: Path, *options: str, **variables: str
) -> contextlib.AbstractContextManager[Server]:
    """A server over these models, ready."""
    return _running(home, "--models", str(models), "--threads", "1", *options, **variables)


def running_studio(folder: Path, home: Path) -> contextlib.AbstractContextManager[Server]:
    """A studio of a project folder, ready."""
    return _running(home, "studio", str(folder))


@contextlib.contextmanager
def _running(home: Path, *arguments: str, **variables: str) -> Iterator[Server]:
    port = free_port()
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    command = [sys.executable, "-m", "serving", *arguments, "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(home, **variables), stdout=out, stderr=subprocess.STDOUT, text=True
        )
    try:
        until = time.monotonic() + SECONDS
        while "\nReady." not in log.read_text():
            assert process.poll() is None, f"the server ended while it started:\n{log.read_text()}"
            assert time.monotonic() < until, f"the server was not ready in {SECONDS} s:\n{log.read_text()}"
            time.sleep(0.1)
        yield Server(f"http://127.0.0.1:{port}", process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(holds: Callable[[], object], seconds: float = 10) -> None:
    """Wait until something holds; fail where it does not within so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"the condition did not hold within {seconds} s"
        time.sleep(0.05)


def workers_of(launcher: int) -> list[int]:
    """The process that answers: a grandchild of the launcher, which BentoML replaces where it dies."""

    def children(pid: int) -> list[int]:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    found = [worker for server in children(launcher) for worker in children(server)]
    return [worker for worker in found if b"_bentoml_impl.worker" in Path(f"/proc/{worker}/cmdline").read_bytes()]


def launch(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher to its end."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "serving", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
