"""`fewpair experiment`: only what is missing is run, whatever ended the last command; and processes do not change figures."""

import dataclasses
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.trainer.papers import small_file, small_material, small_plan, small_table, small_trials
from trainer.__main__ import main
from trainer.errors import UserError
from trainer.experiment import runner, worker
from trainer.experiment.job import Job, claimed
from trainer.experiment.progress import Clock
from trainer.experiment.results import append, read_results
from trainer.experiment.runner import folder_of, holds, known, run_missing, state
from trainer.experiment.tables import Metric, read_table
from trainer.methods import supervised
from trainer.progress import spoken
from trainer.rundir import write_whole

ROOT = Path(__file__).parents[2]


class Inline:
    """A worker without its process: the same work, done when it is begun."""

    jobs: list[Job] = []  # noqa: RUF012  every test begins with an empty one
    dies: set[str] = set()  # noqa: RUF012

    def __init__(self, job: Path, log: Path, *, threads: int) -> None:
        done = Job.read(job)
        Inline.jobs.append(done)
        self.stdin = None
        self.code = -9 if done.run["recipe"] in Inline.dies else 0
        if self.code == 0:
            write_whole(Path(done.answer), json.dumps(worker.done(done)))

    def poll(self) -> int:
        return self.code


@pytest.fixture
def begun(monkeypatch):
    """The jobs that were begun, in their order, each done in this very process."""
    monkeypatch.setattr(runner, "spawn", Inline)
    monkeypatch.setattr(runner, "PATIENCE", 0.001)
    Inline.jobs, Inline.dies = [], set()
    return Inline.jobs


def recipes(jobs):
    return [(job.run["recipe"].partition("/")[2], job.run["seed"]) for job in jobs]


def lasting(results):
    """What must be equal whoever ran it: everything but time and place."""
    timeless = [dataclasses.replace(each, seconds=None, cpu_seconds=None, environment={}) for each in results]
    return sorted(timeless, key=lambda each: (each.row, each.repeat))


def test_only_what_is_missing_is_run_and_each_row_once_before_any_is_repeated(tmp_path, begun):
    table = small_table(tmp_path, "one", "two", repeats=2)
    plan = small_plan(table, tmp_path)
    trials = small_trials(table, tmp_path)
    first = run_missing([trial for trial in trials if trial.row.name == "one"], plan)
    assert [each.name for each in first.run] == ["one #0", "one #1"]
    run_missing(trials, plan)
    assert recipes(begun) == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]
    run_missing(trials, plan)
    assert len(begun) == 4
    results = read_results(plan.results)
    assert {each.name for each in results} == {"one #0", "one #1", "two #0", "two #1"}
    assert [(trial.row.name, trial.repeat) for trial in trials] == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]
    for each in results:
        assert 0 <= each.figures["last"]["val"]["mean_iou"] <= 1
        assert each.figures["best"]["step"] in (2, 4)
        assert each.environment["versions"]["torch"]
        assert str(tmp_path) not in json.dumps(dataclasses.asdict(each)), "a place of this machine would be committed"
    assert len({each.figures["last"]["val"]["mean_iou"] for each in results if each.row == "two"}) == 2, "the seed decides nothing"


def test_a_run_that_two_tables_need_is_made_once(tmp_path, begun):
    table, other = small_table(tmp_path, "one"), small_table(tmp_path, "two", "one", name="other")
    run_missing(small_trials(table, tmp_path), small_plan(table, tmp_path))
    outcome = run_missing(small_trials(other, tmp_path), small_plan(other, tmp_path))
    assert recipes(begun) == [("one", 0), ("two", 0)]
    [shared] = outcome.shared
    assert (shared.table, shared.row, shared.shared_with) == ("other", "one", "small: one #0")
    assert {each.row for each in read_results(small_plan(other, tmp_path).results)} == {"one", "two"}


def test_what_decides_a_result_changes_its_key_and_what_does_not_leaves_it(tmp_path):
    table = small_table(tmp_path, "one", "two", repeats=2)
    one, two, again, _ = small_trials(table, tmp_path)
    assert len({one.key, two.key, again.key}) == 3
    [longer] = small_trials(small_table(tmp_path, "one", steps=6), tmp_path)
    assert longer.key != one.key
    assert longer.spec != one.spec
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "data").rename(elsewhere / "data")
    [moved] = small_trials(small_table(tmp_path, "one", name="renamed"), elsewhere)
    assert moved.key == one.key
    labels = elsewhere / "data/train/labels"
    for index in range(6):
        (labels / f"{index}.png").write_bytes((elsewhere / "data/val/labels/0.png").read_bytes())
    [relabelled] = small_trials(small_table(tmp_path, "one"), elsewhere)
    assert relabelled.key != one.key


def test_a_choice_that_a_later_version_adds_leaves_the_keys_of_earlier_results(tmp_path, monkeypatch):
    table = small_table(tmp_path, "one", "none")
    before = [each.key for each in small_trials(table, tmp_path)]
    later = dataclasses.make_dataclass("Config", [("novelty", int, dataclasses.field(default=3))], bases=(supervised.Config,), frozen=True)
    monkeypatch.setattr(supervised.Supervised, "config_class", later)
    assert [each.key for each in small_trials(table, tmp_path)] == before
    table.setting("compact").config["supervised"]["novelty"] = 4  # type: ignore[index]
    assert [each.key == key for each, key in zip(small_trials(table, tmp_path), before, strict=True)] == [False, True]


def test_a_run_that_fails_is_recorded_with_its_reason_and_the_others_go_on(tmp_path, begun, capsys):
    path = small_file(tmp_path, "wild", "one")
    asked = ["experiment", str(path), "--out", str(tmp_path / "out"), "--root", str(small_material(tmp_path).root), "--device", "cpu"]
    assert main(asked) == 1
    told = capsys.readouterr().out
    assert "wild #0 FAILED:" in told
    assert "1 run, 1 FAILED" in told
    results = {each.row: each for each in read_results(tmp_path / "out/small.jsonl")}
    assert "is not finite at step" in (results["wild"].failed or "")
    assert str(tmp_path) not in (results["wild"].failed or "")
    assert results["one"].failed is None
    assert "| far too fast | 2 | FAILED |" in (tmp_path / "out/small.md").read_text()
    assert main(asked) == 0, "a failure is a result; it is run again only with --again"
    assert len(begun) == 2
    assert main([*asked, "--again"]) == 1
    assert recipes(begun)[2:] == [("wild", 0)]


def test_a_process_that_is_killed_leaves_no_result_and_the_next_command_goes_on(tmp_path, begun, capsys):
    table = small_table(tmp_path, "one", "two")
    Inline.dies = {"small/one"}
    outcome = run_missing(small_trials(table, tmp_path), small_plan(table, tmp_path))
    assert outcome.died == ["one #0"]
    assert "signal 9" in capsys.readouterr().out
    assert [each.row for each in read_results(small_plan(table, tmp_path).results)] == ["two"]
    Inline.dies = set()
    assert [each.row for each in run_missing(small_trials(table, tmp_path), small_plan(table, tmp_path)).run] == ["one"]


def test_an_answer_that_nobody_kept_is_kept_by_the_next_command(tmp_path, begun, monkeypatch):
    """The command was killed after the worker had answered and before the answer was among the results."""
    table = small_table(tmp_path, "one")
    trials, plan = small_trials(table, tmp_path), small_plan(table, tmp_path)
    monkeypatch.setattr(runner.Runner, "_keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_missing(trials, plan)
    monkeypatch.undo()
    monkeypatch.setattr(runner, "spawn", Inline)
    assert not plan.results.exists()
    assert [each.row for each in run_missing(trials, plan).run] == ["one"]
    assert len(begun) == 1


@pytest.mark.parametrize("theirs_is", ["another table's", "the same table's"])
def test_a_run_that_another_command_is_at_is_taken_over_when_it_is_done(tmp_path, begun, monkeypatch, theirs_is):
    table = small_table(tmp_path, "one")
    [trial], plan = small_trials(table, tmp_path), small_plan(table, tmp_path)
    other = dataclasses.replace(plan, results=plan.out / "other.jsonl")
    run_missing([dataclasses.replace(trial, table="other" if theirs_is == "another table's" else trial.table)], other)
    kept = other.results.read_text()
    other.results.unlink()
    looks = []

    def waiting(seconds):
        looks.append(len(begun))
        if len(looks) == 3:  # the other command is through
            other.results.write_text(kept)
            theirs.close()

    folder = folder_of(trial, plan)
    with (folder.parent / f"{folder.name}.lock").open("a") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        monkeypatch.setattr(runner.time, "sleep", waiting)
        outcome = run_missing([trial], plan)
    assert [each.shared_with for each in outcome.shared] == (["other: one #0"] if theirs_is == "another table's" else [])
    assert outcome.run == []
    assert looks == [1, 1, 1], "it was begun a second time"


def test_an_answer_that_another_command_is_about_to_keep_is_left_to_it(tmp_path, begun, monkeypatch):
    table = small_table(tmp_path, "one")
    [trial], plan = small_trials(table, tmp_path), small_plan(table, tmp_path)
    run_missing([trial], dataclasses.replace(plan, results=plan.out / "kept"))
    kept = (plan.out / "kept").read_text()
    answer = plan.out / "answers" / f"{trial.key[:16]}.json"
    waiting = runner.Runner([trial], plan)
    answer.write_text("{}")
    assert waiting._next() is None
    assert list(waiting.waiting) == [trial]
    plan.results.write_text(kept)
    answer.unlink()
    waiting.run()
    assert len(begun) == 1, "it was judged a second time"


def test_figures_that_a_table_needs_and_a_result_lacks_are_judged_anew(tmp_path, begun):
    table = small_table(tmp_path, "none")
    [trial], plan = small_trials(table, tmp_path), small_plan(table, tmp_path)
    run_missing([trial], plan)
    [result] = read_results(plan.results)
    step = (folder_of(trial, plan) / "metrics.jsonl").read_text()
    poorer = {name: {"val": {}} if name == "last" else value for name, value in result.figures.items()}
    plan.results.unlink()
    append(plan.results, dataclasses.replace(result, figures=poorer))
    run_missing([trial], plan)
    [again] = read_results(plan.results)
    assert again.figures == result.figures
    assert (folder_of(trial, plan) / "metrics.jsonl").read_text() == step, "it was trained again"


def test_a_result_lacks_no_figure_of_a_direction_that_its_method_does_not_offer(tmp_path, begun):
    table = small_table(tmp_path, "none")
    [trial], plan = small_trials(table, tmp_path), small_plan(table, tmp_path)
    run_missing([trial], plan)
    [result] = read_results(plan.results)
    photos = {name: {"val": {"judge_mean_iou by j": 0.3}} for name in ("last", "best")}
    wide = dataclasses.replace(plan, metrics=(Metric("mIoU", "mean_iou"), Metric("mIoU of photos", "judge_mean_iou*")))
    for method, figures, held in (
        ("spade", photos, True),  # label map -> photo alone
        ("cyclegan", photos, False),  # both
        ("supervised", photos, False),  # photo -> label map alone
        ("supervised", result.figures, True),
        ("spade", result.figures, False),
    ):
        assert holds(dataclasses.replace(result, method=method, figures=figures), wide) is held, (method, held)


def test_figures_by_another_judge_do_not_count(tmp_path, begun):
    table = small_table(tmp_path, "none")
    [trial], plan = small_trials(table, tmp_path), small_plan(table, tmp_path)
    run_missing([trial], plan)
    [result] = read_results(plan.results)
    judged = dataclasses.replace(result, judges={"judge": "first-00000000"})
    for name, held in (("first-00000000", True), ("second-11111111", False)):
        assert holds(judged, dataclasses.replace(plan, judged_by={"judge": name})) is held


def test_a_row_that_its_method_cannot_take_is_refused_before_anything_runs(tmp_path):
    path = small_file(tmp_path, "one", "none")
    for before, after, said in (
        ("size = [32, 48]", "size = [32, 46]", "row one: 32x46 does not suit supervised: sides must be multiples of 4"),
        ("pairs = 1\n", "pairs = 0\n", "row one: supervised learns from pairs, and the row has none"),
        ('unpaired = "all"\n', "unpaired = 0\n", "row none: cyclegan learns from unpaired photos and label maps"),
        ("pairs = 1\n", "pairs = 7\n", "row one: --pairs 7 asks for more than"),
        ('rule = "random"', 'rule = "medoids"', "row one: there is no rule medoids"),
        ('rule = "random"\n', 'rule = "random"\nunpaired_labels = "moon"\n', "give --unpaired-labels moon=DATASET:FOLDER"),
        ('method = "cyclegan"', 'method = "cyclegam"', "has no method cyclegam"),
        ("width = 4, blocks = 1 }", "width = 4, block = 1 }", "supervised has no choice called block; did you mean blocks"),
    ):
        text = path.read_text()
        assert before in text
        slip = tmp_path / "slip.toml"
        slip.write_text(text.replace(before, after, 1))
        with pytest.raises(UserError, match=re.escape(said)):
            small_trials(read_table(slip), tmp_path)


def test_checkpoints_go_only_when_asked_and_only_after_the_result_is_kept(tmp_path, begun):
    table = small_table(tmp_path, "one", "two")
    one, two = small_trials(table, tmp_path)
    run_missing([one], small_plan(table, tmp_path))
    run_missing([two], small_plan(table, tmp_path, discard=True))
    plan = small_plan(table, tmp_path)
    assert (folder_of(one, plan) / "last.ckpt").exists()
    assert not list(folder_of(two, plan).glob("*.ckpt"))
    assert (folder_of(two, plan) / "evaluation").exists()
    assert {each.row for each in read_results(plan.results)} == {"one", "two"}


def test_a_dry_run_says_what_is_there_and_runs_nothing(tmp_path, begun, capsys):
    table = small_table(tmp_path, "one", "two", repeats=2)
    run_missing(small_trials(table, tmp_path)[:1], small_plan(table, tmp_path))
    asked = ["experiment", str(tmp_path / "small.toml"), "--out", str(tmp_path / "out"), "--root", str(tmp_path / "data"), "--dry-run"]
    capsys.readouterr()
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert "1 done, 1 missing" in told
    assert "2 missing" in told
    assert len(begun) == 1


def test_the_clock_tells_the_time_left_from_what_a_method_has_cost(tmp_path):
    table = small_table(tmp_path, "one", "two", repeats=2)
    trials = small_trials(table, tmp_path)
    clock = Clock(4, processes=2)
    assert clock.left(trials, []) is None
    clock.learn("supervised", seconds=40, steps=4)
    assert clock.left(trials, []) == 4 * 4 * 10 / 2
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n{"step": 4, "cut')
    assert clock.left([], [(trials[0], tmp_path)]) == 1 * 10 / 2
    assert [spoken(seconds) for seconds in (40, 121, 154, 750, 7500)] == ["40 s", "2 min", "2 min 30 s", "12 min", "2 h 05 min"]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path, request):
    table = small_table(tmp_path, "one", "two")
    trials = small_trials(table, tmp_path)
    together = small_plan(table, tmp_path, processes=2)
    apart = small_plan(table, tmp_path, out=tmp_path / "apart", results=tmp_path / "apart.jsonl")
    assert len(run_missing(trials, together).run) == 2
    begun = request.getfixturevalue("begun")  # one after the other in this very process
    assert len(run_missing(trials, apart).run) == len(begun) == 2
    assert lasting(read_results(together.results)) == lasting(read_results(apart.results))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_experiment_whose_command_is_killed_goes_on_where_it_was(tmp_path, begun):
    """SIGKILL of the command: its worker saves its run and ends; the next command repeats nothing."""
    steps = 600  # seconds of work for the worker, which ends within a step once its command is gone
    small_file(tmp_path, "one", "two", steps=steps)
    material = small_material(tmp_path)
    table = small_table(tmp_path, "one", "two", steps=steps)
    one, two = small_trials(table, tmp_path)
    plan = small_plan(table, tmp_path)
    short = dataclasses.replace(one, run=dataclasses.replace(one.run, steps=2))  # finished at once, under the key of the long one
    assert len(run_missing([short], plan).run) == 1

    asked = [
        "experiment",
        str(tmp_path / "small.toml"),
        "--out",
        str(plan.out),
        "--root",
        str(material.root),
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    command = subprocess.Popen([sys.executable, "-m", "trainer", *asked], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lock, logged = folder_of(two, plan), folder_of(two, plan) / "metrics.jsonl"
    try:
        _wait(lambda: logged.exists() and logged.read_text().count("\n") > 3)
    finally:
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
    _wait(lambda: _free(lock))
    reached = json.loads(logged.read_text().splitlines()[-1])["step"]
    assert 0 < reached < steps
    assert (folder_of(two, plan) / "last.ckpt").exists()
    assert [each.row for each in read_results(plan.results)] == ["one"]
    assert state(two, plan, known(plan))[0] == "half-finished"
    goes_on = subprocess.run([sys.executable, "-m", "trainer", *asked], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert goes_on.returncode == 0, goes_on.stdout + goes_on.stderr
    assert [each.row for each in read_results(plan.results)] == ["one", "two"]
    assert len(json.loads((folder_of(two, plan) / "environment.json").read_text())["resumed"]) == 1
    lines = [json.loads(line) for line in logged.read_text().splitlines()]
    steps_logged = [line["step"] for line in lines if "seconds" in line and "val/mean_iou" not in line]
    assert steps_logged == sorted(set(steps_logged)), "steps were repeated"


def _free(folder: Path) -> bool:
    with claimed(folder) as free:
        return free


def _wait(until, *, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
