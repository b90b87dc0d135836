"""`fewpair experiment` and `fewpair report`: tables as data, runs that resume, pages of their results."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.extractors import Counting
from tests.trainer.factories import tiny_folder
from trainer.__main__ import main
from trainer.commands import arguments
from trainer.data.catalogue import CATALOGUE
from trainer.data.selection.rules import RULES
from trainer.errors import UserError
from trainer.experiment import report, run
from trainer.experiment.report import END, write_pages
from trainer.experiment.results import append, read_results
from trainer.experiment.run import config_of
from trainer.experiment.tables import SHIPPED, open_table

PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "tables"
PRINTED = {"s0-t1": 11, "s0-t2": 14, "s0-t3": 4, "s0-t4": 8, "s0-t5": 3, "s0-t6": 2, "s0-t7": 20, "s0-t8": 11}
PRINTED |= {"s0-t9": 14, "s1-t1": 18, "s1-t2": 8, "s3-t1": 6, "s3-t2": 3}
"""How many rows each paper's table has."""

TABLE = """
title = "A small table"
source = "Nobody, Table 1"
claim = "More pairs are better."
protocol = "One run."
columns = ["Method", "Pairs"]
metrics = [{ heading = "Pixel Acc.", figure = "pixel_accuracy" }, { heading = "Mean IoU", figure = "mean_iou" }]

[settings.compact]
data = "folders"
size = [32, 48]
steps = 2
repeats = 2
splits = ["val"]
config.supervised = { width = 4, blocks = 1 }

[[rows]]
name = "one"
cells = ["supervised", "1"]
method = "supervised"
pairs = 1
unpaired = 4
rule = "random"
series = "supervised"
paper = ["0.5 ± 0.1", "0.2 ± 0.1"]

[[rows]]
name = "two"
cells = ["supervised", "2"]
method = "supervised"
pairs = 2
unpaired = 4
series = "supervised"
paper = ["0.6", "-"]
"""
DIVERGES = """
[[rows]]
name = "wild"
cells = ["far too fast", "2"]
method = "supervised"
pairs = 2
unpaired = 4
config = { lr = 1e40 }
"""


@pytest.fixture
def table_file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(TABLE)
    return path


@pytest.fixture
def experiment(tmp_path, table_file, monkeypatch):
    """Run `fewpair experiment` on a small folder with its subprocesses' commands in this process; returns those
    commands.
    """
    monkeypatch.setattr(report, "draw", lambda *_: [])
    tiny_folder(tmp_path / "data")
    begun: list[list[str]] = []

    def fewpair(words, log):
        begun.append(words)
        assert main(words) == 0
        return 1.0

    monkeypatch.setattr(run, "fewpair", fewpair)

    def command(*words, table=table_file):
        begun.clear()
        where = ["--root", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--device", "cpu"]
        assert main(["experiment", str(table), *where, *words]) == 0
        return [words[0] for words in begun]

    return command


def test_the_tables_of_the_papers_ship():
    assert set(SHIPPED) == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_a_shipped_table_names_only_what_exists_and_has_the_papers_number_of_rows(name):
    table = open_table(name)
    assert {"paper", "compact"} <= set(table.settings)
    for setting in table.settings.values():
        assert setting.data in CATALOGUE
        assert set(setting.config) <= {row.method for row in table.rows}
        for row in table.rows_of(setting):
            assert {row.rule or "random", row.pool_rule} <= set(RULES)
            config_of(setting, row, {})
    printed = [row for row in table.rows if row.paper]
    assert len({row.cells for row in printed}) == PRINTED[name]
    for row in printed:
        for figures in row.paper.values():
            assert all(re.fullmatch(r"[0-9]+(\.[0-9]+)?( ± [0-9]+\.[0-9]+)?|-", figure) for figure in figures), row.name


def test_some_of_the_papers_figures_read_off_by_hand_once_more():
    t2 = {row.name: row.paper[""] for row in open_table("s0-t2").rows}
    assert t2["20"] == ("0.768", "0.291", "0.237")
    assert t2["tripathy-30"] == ("0.696", "0.224", "0.173")
    assert open_table("s0-t4").rows[2].paper[""] == ("0.405 ± 0.152",)
    assert {row.name: row.paper["maps"] for row in open_table("s3-t1").rows}["half"] == ("0.42", "0.05", "205.14")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("pairs = 1\n", "", "one: Row.__init__() missing 1 required positional argument: 'pairs'"),
        ("pairs = 1\n", "pears = 1\npairs = 1\n", "one: Row.__init__() got an unexpected keyword argument 'pears'"),
        ('paper = ["0.6", "-"]', 'paper = ["0.6"]', "1 figures for 2 columns"),
        ('cells = ["supervised", "1"]', 'cells = ["supervised"]', "1 cells for 2 columns"),
        ('title = "A small table"', "title =", "cannot be read as a table"),
        ('name = "two"', 'name = "one"', "two rows have the same name"),
    ],
)
def test_a_mistake_in_a_table_is_refused_with_its_place(table_file, before, after, message):
    assert before in TABLE
    table_file.write_text(TABLE.replace(before, after))
    with pytest.raises(UserError, match=re.escape(message)):
        open_table(str(table_file))
    one_row = "[rows]".join(TABLE.split("[[rows]]", 2)[:2])
    table_file.write_text(one_row)
    with pytest.raises(UserError, match=r"write metrics and rows as \[\[metrics\]\] and \[\[rows\]\]"):
        open_table(str(table_file))


def test_an_unknown_table_row_or_config_field_is_refused_with_the_nearest_name(table_file, experiment, capsys):
    for words, message in (
        (["s0-t12", "--out", "x"], "did you mean s0-t"),
        (
            [str(table_file), "--out", "x", "--root", str(table_file.parent / "data"), "--rows", "tow"],
            "did you mean two",
        ),
    ):
        assert main(["experiment", *words]) == 2
        assert message in capsys.readouterr().err
    table = open_table(str(table_file))
    with pytest.raises(UserError, match="blocs"):
        config_of(
            table.setting("compact"), table.rows[0].__class__(**vars(table.rows[0]) | {"config": {"blocs": 1}}), {}
        )


@pytest.mark.parametrize("name", ["s0-t1", "s0-t2", "s0-t3", "s0-t5", "s1-t1", "s1-t2"])
def test_a_published_table_regenerates_byte_for_byte_from_its_results(name, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda *_: [])  # the bytes of a plot depend on matplotlib's version
    shutil.copy(PUBLISHED / f"{name}.md", tmp_path)
    table = open_table(name)
    write_pages(table, table.setting("compact"), read_results(PUBLISHED / f"{name}.jsonl"), tmp_path)
    for suffix in ("md", "csv"):
        assert (tmp_path / f"{name}.{suffix}").read_bytes() == (PUBLISHED / f"{name}.{suffix}").read_bytes()


def result(row, repeat, value, **changes):
    """A result as a run would have left it."""
    weights = {"step": 2, "val": {"pixel_accuracy": 2 * value, "mean_iou": value, "samples": 2, "per_class_iou": {}}}
    identity = {"table": "small", "setting": "compact", "row": row, "repeat": repeat, "precision": "fp32", "key": ""}
    learnt = {"method": "supervised", "pairs": 1, "unpaired": 4, "rule": "random", "steps": 2, "size": [32, 48]}
    place = {"commit": "abc", "python": "3", "device": "cpu", "threads": 1, "versions": {"torch": "2"}}
    spent = {"seconds": 1.0, "cpu_seconds": 1.5, "environment": place, "judges": {}, "failed": None}
    return identity | learnt | spent | {"reads": ["pairs"], "figures": {"last": weights, "best": weights}} | changes


VALUES = (0.1, 0.16, 0.13)


def test_a_page_shows_means_deviations_what_was_not_run_and_what_failed(table_file, tmp_path):
    table_file.write_text(TABLE + DIVERGES)
    table = open_table(str(table_file))
    results = [result("one", repeat, value) for repeat, value in enumerate(VALUES)]
    unmeasured = {"step": 2, "val": {"pixel_accuracy": None, "mean_iou": None}}
    results.append(result("one", len(VALUES), 0.0, figures={"last": unmeasured, "best": unmeasured}))
    results.append(result("wild", 0, 0.0, figures={}, failed="the loss is not finite at step 2"))
    page, sheet, plot = write_pages(table, table.setting("compact"), results, tmp_path)
    [row] = [
        each
        for each in csv.DictReader(sheet.read_text().splitlines())
        if (each["row"], each["checkpoint"], each["figure"]) == ("one", "last", "Mean IoU")
    ]
    assert float(row["mean"]) == pytest.approx(np.mean(VALUES), abs=1e-12)
    assert float(row["sd"]) == pytest.approx(np.std(VALUES, ddof=1), abs=1e-12)
    assert row["paper"] == "0.2 ± 0.1"
    text = page.read_text()
    assert f"{np.mean(VALUES):.3f} ± {np.std(VALUES, ddof=1):.3f} (3) | 0.5 ± 0.1 | 0.2 ± 0.1 |" in text
    assert "| supervised | 2 | not run | - | - | 0.6 | - |" in text
    assert "| far too fast | 2 | FAILED |" in text
    assert "FAILED: wild, seed 0: the loss is not finite at step 2" in text
    assert "Not run: two." in text
    assert "LineCollection" in plot.read_text(), "no error bars"


def test_bf16_and_fp32_runs_never_share_a_row(table_file, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda *_: [])
    results = tmp_path / "small.jsonl"
    for precision, value in (("fp32", 0.1), ("bf16", 0.3)):
        append(results, result("one", 0, value, precision=precision))
    assert len(read_results(results)) == 2
    table = open_table(str(table_file))
    text = write_pages(table, table.setting("compact"), read_results(results), tmp_path)[0].read_text()
    assert "supervised: 1 pair, bf16 | 0.600 (1) | 0.300 (1)" in text
    assert "supervised: 1 pair, fp32 | 0.200 (1) | 0.100 (1)" in text


def test_text_that_a_person_wrote_around_the_figures_is_kept(table_file, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw", lambda *_: [])
    table = open_table(str(table_file))
    page = write_pages(table, table.setting("compact"), [result("one", 0, 0.1)], tmp_path)[0]
    page.write_text(page.read_text().replace(END, f"{END}\n\nMy remarks."))
    write_pages(table, table.setting("compact"), [result("two", 0, 0.5)], tmp_path)
    assert page.read_text().rstrip().endswith("My remarks.")
    assert "0.500 (1)" in page.read_text()
    page.write_text("no marks")
    with pytest.raises(UserError, match="has no lines"):
        write_pages(table, table.setting("compact"), [], tmp_path)


def test_only_what_is_missing_is_run_and_a_run_that_two_tables_share_is_trained_once(experiment, tmp_path, capsys):
    assert experiment("--rows", "one") == ["train", "evaluate"] * 2
    assert experiment("--dry-run") == []
    assert "missing runs: two 2" in capsys.readouterr().out
    assert experiment() == ["train", "evaluate"] * 2
    assert experiment() == []
    results = read_results(tmp_path / "out" / "small.jsonl")
    assert [(each["row"], each["repeat"]) for each in results] == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]
    for each in results:
        assert 0 <= each["figures"]["last"]["val"]["mean_iou"] <= 1
        assert each["precision"] in ("bf16", "fp32")
        assert str(tmp_path) not in json.dumps(each), "a path of this machine would be published"
    other = tmp_path / "other.toml"
    other.write_text(TABLE.replace('name = "one"', 'name = "renamed"'))
    folders = set((tmp_path / "out" / "runs").iterdir())
    experiment("--rows", "renamed", table=other)
    assert set((tmp_path / "out" / "runs").iterdir()) == folders
    assert len(read_results(tmp_path / "out" / "other.jsonl")) == 2


def test_a_judge_or_an_extractor_that_is_missing_is_refused_before_training(experiment, table_file, tmp_path, capsys):
    for figure, words, message in (
        ("judge_mean_iou", [], "give one with --judge"),
        ("judge_mean_iou", ["--judge", "nowhere.onnx"], "nowhere.onnx"),
        ("fid*", [], "give a feature extractor with --features"),
        ("fid*", ["--features", "nowhere.onnx"], "nowhere.onnx"),
    ):
        table_file.write_text(TABLE.replace('figure = "mean_iou"', f'figure = "{figure}"'))
        where = ["--root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
        assert main(["experiment", str(table_file), *where, *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_features_may_be_a_name_that_is_no_file(experiment, tmp_path, monkeypatch):
    named: list[object] = []
    monkeypatch.setattr(arguments, "open_features", lambda source, **_: named.append(source) or Counting())
    table = tmp_path / "medoid.toml"
    table.write_text(TABLE.replace('rule = "random"', 'rule = "kcenter"'))
    experiment("--rows", "one", "--repeats", "1", "--features", "resnet50", table=table)
    assert named == [Path("resnet50")]
    [folder] = (tmp_path / "out" / "runs").iterdir()
    assert json.loads((folder / "config.json").read_text())["features"] == "resnet50"


def test_a_diverging_run_is_reported_as_failed_and_the_others_go_on(
    experiment, table_file, tmp_path, capsys, monkeypatch
):
    table_file.write_text(TABLE.replace("repeats = 2", "repeats = 1") + DIVERGES)

    def fewpair(words, log):
        if main(words):
            raise UserError(capsys.readouterr().err.strip().splitlines()[-1])
        return 1.0

    monkeypatch.setattr(run, "fewpair", fewpair)
    where = ["--root", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["experiment", str(table_file), *where, "--rows", "one", "wild"]) == 1
    said = capsys.readouterr().out
    assert "wild, seed 0: FAILED" in said
    results = tmp_path / "out" / "small.jsonl"
    assert {each["row"]: bool(each["failed"]) for each in read_results(results)} == {"one": False, "wild": True}
    assert main(["report", str(table_file), "--results", str(results), "--out", str(tmp_path)]) == 0
    assert "FAILED: wild, seed 0" in (tmp_path / "small.md").read_text()


def test_a_subprocess_answers_with_its_cpu_time_or_with_its_last_line(tmp_path):
    assert run.fewpair(["--help"], tmp_path / "log") > 0
    assert "usage: fewpair" in (tmp_path / "log").read_text()
    with pytest.raises(UserError, match="there is no command 'trian'; did you mean train"):
        run.fewpair(["trian"], tmp_path / "log")
