"""How far a table's runs are and how long they will take, on one line."""

import json
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TextIO

from trainer.experiment.results import Result
from trainer.experiment.trials import Trial
from trainer.progress import EVERY, spoken


class Clock:
    """Learns from every run what a step of its method costs, and says how long the rest will take."""

    def __init__(self, total: int, *, processes: int, stream: TextIO | None = None) -> None:
        self.total = total
        self.processes = processes
        self.stream = stream or sys.stdout
        self._live = self.stream.isatty()
        self._shown = 0.0
        self._rates: dict[str, float] = {}
        self._done = 0

    def learn(self, method: str, *, seconds: float, steps: int) -> None:
        """What a run of the method took."""
        rate = seconds / max(steps, 1)
        self._rates[method] = rate if method not in self._rates else 0.5 * (self._rates[method] + rate)

    def ended(self) -> None:
        """One run fewer."""
        self._done += 1

    def say(self, text: str) -> None:
        """A line that stays."""
        if text:
            self.stream.write(("\r\x1b[K" if self._live else "") + text + "\n")
            self.stream.flush()

    def show(self, waiting: Sequence[Trial], running: Collection[tuple[Trial, Path]], *, now: bool = False) -> None:
        """The line of progress, when it is due."""
        elapsed = time.monotonic() - self._shown
        if not now and elapsed < (1.0 if self._live else EVERY):
            return
        self._shown = time.monotonic()
        steps = {trial.name: step_of(folder) for trial, folder in running}
        each = ", ".join(f"{trial.name} {steps[trial.name]}/{trial.run.steps}" for trial, _ in running)
        left = self.left(waiting, running)
        line = f"[{self._done}/{self.total} runs, {'time left unknown' if left is None else f'about {spoken(left)} left'}] {each}"
        self.stream.write(f"\r\x1b[K{line}" if self._live else line + "\n")
        self.stream.flush()

    def left(self, waiting: Sequence[Trial], running: Collection[tuple[Trial, Path]]) -> float | None:
        """Seconds; None before anything was measured."""
        if not self._rates:
            return None
        usual = sum(self._rates.values()) / len(self._rates)
        steps = [(trial, trial.run.steps) for trial in waiting]
        steps += [(trial, max(0, trial.run.steps - step_of(folder))) for trial, folder in running]
        return sum(count * self._rates.get(trial.run.method, usual) for trial, count in steps) / self.processes

    def close(self) -> None:
        """Leave the line."""
        if self._live:
            self.stream.write("\n")


def learn_from(clock: Clock, results: Sequence[Result], trials: Sequence[Trial]) -> None:
    """What earlier runs of the same size took."""
    sizes = {trial.run.size for trial in trials}
    for result in results:
        if result.seconds and result.size in sizes:
            clock.learn(result.method, seconds=result.seconds, steps=result.steps)


def step_of(folder: Path) -> int:
    """The last step that a run logged; 0 before the first."""
    path = folder / "metrics.jsonl"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode(errors="ignore").splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0
