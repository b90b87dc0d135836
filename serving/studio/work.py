"""Commands of `fewpair` as subprocesses, one after another, and the progress that the folders of runs show."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from serving.errors import Refusal

After = Callable[[], Awaitable[object]]
_CODE = Path(__file__).resolve().parents[2]  # where `python -m trainer` finds the packages
_INTERRUPTED = 130
_STOP_WITHIN = 60.0  # seconds for a checkpoint
_TAIL = 16_384  # bytes of the log that are shown
_POINTS = 200  # of a curve
_MALLOC = ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")  # the server's own


class Work:
    """Runs commands one after another in the background."""

    def __init__(self) -> None:
        self._kind, self._command, self._error = "", "", ""
        self._log: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def running(self) -> bool:
        """Whether a command runs."""
        return self._task is not None and not self._task.done()

    def refuse_training(self) -> None:
        """Raise Refusal while a model is trained on the project's files."""
        if self.running and self._kind == "train":
            message = "classes and photos for measuring cannot be changed while a model is trained."
            raise Refusal(409, "busy", message, hint="Stop the training first, or wait for its end.")

    def begin(self, kind: str, commands: Sequence[Sequence[str]], *, log: Path, after: After | None = None) -> None:
        """Start the commands, and call `after` once all have succeeded. Raises Refusal where others run."""
        if self.running:
            raise Refusal(409, "busy", f"`fewpair {self._command}` is running.", hint="Wait for it, or stop it first.")
        log.parent.mkdir(parents=True, exist_ok=True)
        self._kind, self._error, self._log, self._stopping = kind, "", log, False
        self._task = asyncio.create_task(self._run(commands, log, after))

    async def stop(self, *, interrupt: bool = True) -> None:
        """Interrupt the command, as Ctrl-C does: training saves a checkpoint. Returns when it has ended.

        Without `interrupt` where it was signalled already: a second signal would end it without a checkpoint.
        """
        self._stopping = True
        if interrupt and self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_STOP_WITHIN)

    def state(self) -> dict[str, Any]:
        """What runs or ran last, its error and the end of its log."""
        lines = [] if self._log is None or not self._log.exists() else _tail(self._log)
        state = {"kind": self._kind, "command": self._command, "error": self._error}
        return {**state, "running": self.running, "log": lines}

    async def _run(self, commands: Sequence[Sequence[str]], log: Path, after: After | None) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in _MALLOC}
        try:
            for command in commands:
                self._command = command[0]
                with log.open("ab") as out:
                    begun = out.tell()
                    self._process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-m", "trainer", *command),
                        cwd=_CODE,
                        env=environment,
                        stdout=out,
                        stderr=asyncio.subprocess.STDOUT,
                        start_new_session=True,
                    )
                if self._stopping:  # while the process was being started
                    self._process.send_signal(signal.SIGINT)
                code = await self._process.wait()
                if code == _INTERRUPTED or self._stopping:
                    return
                if code != 0:
                    messages = [line for line in _tail(log, begun) if line.startswith("fewpair: ")]
                    fallback = f"`fewpair {command[0]}` ended with exit code {code}; see the log."
                    self._error = messages[-1].removeprefix("fewpair: ") if messages else fallback
                    return
            if after is not None:
                await after()
        except Exception as error:
            self._error = str(error)


def runs_of(root: Path) -> list[dict[str, Any]]:
    """The runs of a project, the oldest first: progress, curves, sample grids and figures."""
    return [_run_of(path) for path in run_folders(root) if (path / "config.json").exists()]


def run_folders(root: Path) -> list[Path]:
    """The folders runs/1, runs/2, ... of a project."""
    folders = (path for path in (root / "runs").glob("*") if path.name.isdecimal() and path.is_dir())
    return sorted(folders, key=lambda path: int(path.name))


def _run_of(path: Path) -> dict[str, Any]:
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    log = path / "metrics.jsonl"
    logged = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    lines = [json.loads(line) for line in logged if line.endswith("}")]
    written = (path / "evaluation").glob("*-best-averaged.json")  # of what is exported; no cross-validation
    evaluations = sorted(written, key=lambda file: file.stat().st_mtime_ns)
    steps = [line for line in lines if "peak_memory_mib" in line]
    losses = [(line["step"], next(value for name, value in line.items() if "/" in name)) for line in steps]
    scores = [(line["step"], line["val/mean_iou"]) for line in lines if "val/mean_iou" in line]
    exports = [file.stat().st_mtime_ns for file in path.parents[1].glob("exported/*/manifest.json")]
    step, seconds = (lines[-1]["step"], lines[-1]["seconds"]) if lines else (0, 0.0)
    return {
        "name": path.name,
        "recipe": config["recipe"],
        "pairs": config["pairs"],
        "size": config["size"],
        "step": step,
        "steps": config["steps"],
        "seconds_left": _seconds_left(config, step, seconds),
        "loss": losses[:: max(1, len(losses) // _POINTS)],
        "score": scores,
        "samples": sorted(file.stem for file in (path / "samples").glob("step-*.png")),
        "evaluation": json.loads(evaluations[-1].read_text(encoding="utf-8")) if evaluations else None,
        "exported": bool(evaluations) and max(exports, default=0) > evaluations[-1].stat().st_mtime_ns,
    }


def _seconds_left(config: dict[str, Any], step: int, seconds: float) -> float | None:
    """The training time that is left, if a step takes time in proportion to its pixels."""
    done = _pixels(config, step)
    return seconds * (_pixels(config, config["steps"]) / done - 1) if done and seconds else None


def _pixels(config: dict[str, Any], step: int) -> float:
    """The pixels of all crops until this step."""
    total, begun = 0.0, 0.0
    for share, height, width in [*config["progressive"], (1.0, *config["size"])]:
        until = min(step, share * config["steps"])
        total += max(0.0, until - begun) * height * width
        begun = max(begun, until)
    return total


def _tail(log: Path, begin: int = 0) -> list[str]:
    """The last lines of a log, none from before the byte `begin`."""
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _TAIL))
        text = file.read().decode(errors="replace")
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]  # a bar overwrites its line
    return [line for line in lines if line][-12:]
