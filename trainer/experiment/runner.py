"""Runs what is missing of a table on several processes, keeps every result at once, and can be stopped at any moment."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from trainer.experiment.job import BUSY, Job, claimed
from trainer.experiment.progress import Clock, learn_from
from trainer.experiment.results import Result, append, known_results
from trainer.experiment.tables import Metric
from trainer.experiment.trials import Trial
from trainer.methods import METHODS
from trainer.recipes import to_json

PATIENCE = 0.2
"""Seconds between two looks at the processes."""
FRESH = 30.0
"""Seconds within which a command that lives has written down what its worker answered."""
LAST_WORD = 120.0
"""Seconds that a process has to save its run when it is asked to stop."""


@dataclass(frozen=True)
class Plan:
    """What is asked of the runner, beside the trials themselves."""

    out: Path
    """The experiment's folder: runs/, logs/, answers/, features/ and, by default, the results of every table."""
    results: Path
    splits: tuple[str, ...]
    metrics: tuple[Metric, ...] = ()
    """What a result must hold on every split to count as one."""
    processes: int = 1
    threads: int = 1
    device: str = "auto"
    judge: Path | None = None
    features: Path | None = None
    judged_by: Mapping[str, str] = field(default_factory=dict)
    """The names of that judge and that extractor, as results hold them: figures by others are measured anew."""
    again: bool = False
    """Run once more what had failed."""
    discard: bool = False
    """Remove a run's checkpoints when its figures are safe."""
    skip_broken: bool = False


@dataclass
class Outcome:
    """What became of a command's trials."""

    run: list[Result] = field(default_factory=list)
    failed: list[Result] = field(default_factory=list)
    shared: list[Result] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    """Trials whose process was ended from outside; they are no results, and the next command goes on with them."""


@dataclass
class Busy:
    """A process at work."""

    trial: Trial
    process: "subprocess.Popen[bytes]"
    answer: Path
    began: float


def state(trial: Trial, plan: Plan, known: dict[str, list[Result]]) -> tuple[str, Result | None]:
    """`done`, `shared` (done for another row), `failed`, `half-finished` or `missing`, with the result where there is one."""
    ours = (trial.table, trial.setting, trial.row.name, trial.repeat)
    usable = [each for each in known.get(trial.key, []) if each.failed is not None or holds(each, plan)]
    own = [each for each in usable if (each.table, each.setting, each.row, each.repeat) == ours]
    if own:
        return ("failed" if own[-1].failed is not None else "done"), own[-1]
    others = [each for each in usable if each.failed is None]
    if others:
        return "shared", others[-1]
    return ("half-finished" if (folder_of(trial, plan) / "config.json").exists() else "missing"), None


def holds(result: Result, plan: Plan) -> bool:
    """Whether every figure that the table shows and the method can have was measured, for both checkpoints, by the judges of this plan."""
    if any(result.judges.get(what) != name for what, name in plan.judged_by.items()):
        return False
    found = [result.figures.get(checkpoint, {}).get(split, {}) for checkpoint in ("last", "best") for split in plan.splits]
    wanted = [metric for metric in plan.metrics if metric.direction in METHODS[result.method].directions]
    return all(metric.find(figures) is not None for metric in wanted for figures in found)


def folder_of(trial: Trial, plan: Plan) -> Path:
    """The folder of the trial's run: named by its key, so that all tables share it."""
    return plan.out / "runs" / trial.key[:16]


def known(plan: Plan) -> dict[str, list[Result]]:
    """Every result of the experiment's folder, of this table and of the others."""
    return known_results({*sorted(plan.out.glob("*.jsonl")), plan.results})


def run_missing(trials: Sequence[Trial], plan: Plan) -> Outcome:
    """Run what has no result yet, in the order given. Ctrl-C or SIGTERM lets every process save its run, then raises KeyboardInterrupt."""
    runner = Runner(trials, plan)
    with _stoppable():
        try:
            runner.run()
        finally:
            runner.stop()
    return runner.outcome


class Runner:
    """One command's processes and what they have still to do."""

    def __init__(self, trials: Sequence[Trial], plan: Plan) -> None:
        self.plan = plan
        self.outcome = Outcome()
        self.waiting: deque[Trial] = deque()
        self.busy: dict[int, Busy] = {}
        self.devices = _devices(plan)
        have = known(plan)
        for trial in trials:
            what, result = state(trial, plan, have)
            answer = self._answer(trial)
            if what in ("missing", "half-finished") and answer.exists():  # the last command was killed before it kept this
                self._keep(trial, answer)
            elif what == "shared" and result is not None:
                self._share(trial, result)
            elif what in ("missing", "half-finished") or (what == "failed" and plan.again):
                self.waiting.append(trial)
        self.clock = Clock(len(self.waiting), processes=plan.processes)
        learn_from(self.clock, [each for results in have.values() for each in results], list(self.waiting))

    def run(self) -> None:
        """Until nothing waits and nobody works."""
        while self.waiting or self.busy:
            for slot in range(self.plan.processes):
                if slot not in self.busy:
                    trial = self._next()
                    if trial is not None:
                        self.busy[slot] = self._begin(trial, self.devices[slot % len(self.devices)])
                        self._show(now=True)
            if self.busy or self.waiting:
                time.sleep(PATIENCE if self.busy else 5 * PATIENCE)
            for slot, each in list(self.busy.items()):
                code = each.process.poll()
                if code is not None:
                    del self.busy[slot]
                    self._end(each, code)
            self._show()

    def stop(self) -> None:
        """Ask every process that still works to save its run, and wait for it."""
        for each in self.busy.values():
            if each.process.stdin is not None:
                with suppress(OSError):
                    each.process.stdin.close()
        if self.busy:
            self.clock.say(f"stopping: {', '.join(each.trial.name for each in self.busy.values())} is being saved")
        deadline = time.monotonic() + LAST_WORD
        for each in self.busy.values():
            try:
                each.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait()
        self.clock.close()

    def _next(self) -> Trial | None:
        """The first trial that nobody is at; one that another experiment has finished meanwhile is taken over from its results."""
        for _ in range(len(self.waiting)):
            trial = self.waiting.popleft()
            with claimed(folder_of(trial, self.plan)) as free:
                if free:
                    what, result = state(trial, self.plan, known(self.plan))
                    if what in ("done", "failed", "shared") and result is not None and not self._again(what):
                        if what == "shared":
                            self._share(trial, result)
                        self.clock.ended()
                        continue
                    if not self._fresh_answer(trial):
                        return trial
            self.waiting.append(trial)
        return None

    def _fresh_answer(self, trial: Trial) -> bool:
        """Whether another command's worker has just answered; that command is about to write the result down."""
        try:
            return time.time() - self._answer(trial).stat().st_mtime < FRESH
        except FileNotFoundError:
            return False

    def _again(self, what: str) -> bool:
        return what == "failed" and self.plan.again

    def _begin(self, trial: Trial, device: str) -> Busy:
        plan, name = self.plan, trial.key[:16]
        answer, written, log = self._answer(trial), plan.out / "jobs" / f"{name}.json", self._log(trial)
        for path in (answer, log):
            path.parent.mkdir(parents=True, exist_ok=True)
        Job(
            run=to_json(trial.run),
            selection=trial.selection.to_json(),
            folder=str(folder_of(trial, plan)),
            answer=str(answer),
            splits=plan.splits,
            device=device,
            threads=plan.threads,
            judge=None if plan.judge is None else str(plan.judge),
            features=None if plan.features is None else str(plan.features),
            skip_broken=plan.skip_broken,
        ).write(written)
        process = spawn(written, log, threads=plan.threads)
        return Busy(trial, process, answer, time.monotonic())

    def _end(self, each: Busy, code: int) -> None:
        """Keep what a process that has ended left behind."""
        if each.process.stdin is not None:
            each.process.stdin.close()
        if code == BUSY:
            self.waiting.append(each.trial)
            return
        self.clock.ended()
        if code != 0 or not each.answer.exists():
            self.outcome.died.append(each.trial.name)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self.clock.say(f"{each.trial.name}: its process ended with {how} ({self._log(each.trial)}); the same command goes on with it")
            return
        result = self._keep(each.trial, each.answer)
        if result.failed is not None:
            self.clock.say(f"{each.trial.name} FAILED: {result.failed}")
            return
        took = time.monotonic() - each.began
        if result.cpu_seconds is not None:
            self.clock.learn(result.method, seconds=took, steps=result.steps)
        self.clock.say(f"{each.trial.name} done in {took:.0f} s: {headline(result, self.plan)}")

    def _keep(self, trial: Trial, answer: Path) -> Result:
        """A result that is written down; only then may its checkpoints go."""
        result = _result(trial, json.loads(answer.read_text()))
        append(self.plan.results, result)
        answer.unlink()
        (self.outcome.run if result.failed is None else self.outcome.failed).append(result)
        if self.plan.discard and result.failed is None:
            for checkpoint in folder_of(trial, self.plan).glob("*.ckpt"):
                checkpoint.unlink()
        return result

    def _share(self, trial: Trial, result: Result) -> None:
        adopted = replace(
            result,
            table=trial.table,
            setting=trial.setting,
            row=trial.row.name,
            repeat=trial.repeat,
            spec=trial.spec,
            rule=trial.row.rule or "-",
            shared_with=result.shared_with or f"{result.table}: {result.name}",
        )
        append(self.plan.results, adopted)
        self.outcome.shared.append(adopted)

    def _show(self, *, now: bool = False) -> None:
        self.clock.show(list(self.waiting), [(each.trial, folder_of(each.trial, self.plan)) for each in self.busy.values()], now=now)

    def _answer(self, trial: Trial) -> Path:
        return self.plan.out / "answers" / f"{trial.key[:16]}.json"

    def _log(self, trial: Trial) -> Path:
        return self.plan.out / "logs" / f"{trial.key[:16]}.log"


def spawn(job: Path, log: Path, *, threads: int) -> "subprocess.Popen[bytes]":
    """A worker at this job. It stops, and saves its run, when its standard input is closed: by us, or because we are gone."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "trainer.experiment.worker", str(job)],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process alone; it tells the others
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )


def headline(result: Result, plan: Plan) -> str:
    """The table's last figure on every split, of the last weights."""
    told = []
    for split in plan.splits:
        figures = result.figures.get("last", {}).get(split, {})
        for metric in plan.metrics[-1:]:
            name = metric.find(figures)
            told.append(f"{split} {metric.heading} {'-' if name is None else f'{figures[name]:.{metric.digits}f}'}")
    return ", ".join(told)


def _result(trial: Trial, answer: dict[str, Any]) -> Result:
    run, selection = trial.run, trial.selection
    return Result(
        table=trial.table,
        setting=trial.setting,
        row=trial.row.name,
        repeat=trial.repeat,
        key=trial.key,
        spec=trial.spec,
        method=run.method,
        pairs=len(selection.pairs),
        unpaired=max(len(selection.unpaired_photos), len(selection.unpaired_labels)),
        rule=trial.row.rule or "-",
        steps=run.steps,
        size=run.size,
        reads=trial.reads,
        **answer,
    )


def _devices(plan: Plan) -> list[str]:
    """The CUDA devices in turn, where there are some and none is named."""
    if plan.device == "auto" and torch.cuda.is_available():
        return [f"cuda:{place}" for place in range(torch.cuda.device_count())]
    return [plan.device]


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM is Ctrl-C here, and Ctrl-C works in a shell's background too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
