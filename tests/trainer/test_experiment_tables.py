"""A paper's table as data: what ships, what is refused, and what the pages say of results."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from tests.trainer.papers import small_file, small_table
from trainer.__main__ import main
from trainer.data.catalogue import CATALOGUE
from trainer.data.pairs import RULES
from trainer.errors import UserError
from trainer.experiment.markdown import END
from trainer.experiment.page import write_pages
from trainer.experiment.plot import NUMBER
from trainer.experiment.results import Result, append, read_results
from trainer.experiment.tables import Metric, names, open_table
from trainer.experiment.trials import config_of, spec_of
from trainer.methods import METHODS

TABLES = {
    "s0-t1": 11,
    "s0-t2": 14,
    "s0-t3": 4,
    "s0-t4": 8,
    "s0-t5": 3,
    "s0-t6": 2,
    "s0-t7": 20,
    "s0-t8": 11,
    "s0-t9": 14,
    "s1-t1": 17,
    "s1-t2": 8,
    "s3-t1": 6,
    "s3-t2": 3,
}
"""How many rows of each paper's table are printed there."""


def test_the_tables_of_the_papers_ship():
    assert set(names()) == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_shipped_table_names_only_what_there_is_and_holds_as_many_figures_as_the_paper_prints(name):
    table = open_table(name)
    assert {"paper", "compact"} <= set(table.settings)
    for setting in table.settings.values():
        assert setting.data in CATALOGUE
        assert set(setting.config) <= {row.method for row in table.rows}, "a setting asks something of a method that no row has"
        for row in table.rows_of(setting):
            assert row.method in METHODS
            assert {row.rule or "random", row.pool_rule} <= set(RULES)
            config_of(table, setting, row)  # refuses a choice that the method has not
    printed = [row for row in table.rows if row.paper]
    assert len({row.cells for row in printed}) == TABLES[name]
    for row in printed:
        for figures in row.paper.values():
            assert all(re.fullmatch(r"[0-9]+(\.[0-9]+)?( ± [0-9]+\.[0-9]+)?|-", figure) for figure in figures), row.name
            assert figures.count("-") < len(figures), row.name


def test_the_tables_of_one_dataset_share_their_compact_setting():
    """Otherwise runs that two tables have in common would be made twice, and rows of two tables would not compare."""
    scales = {}
    for name in ("s0-t1", "s0-t2", "s0-t3", "s0-t5", "s0-t6", "s0-t7", "s0-t8", "s0-t9"):
        setting = open_table(name).setting("compact")
        scales[name] = (setting.data, setting.size, setting.steps, setting.batch, setting.splits, setting.validations)
    assert len(set(scales.values())) == 1, scales


def test_some_of_the_papers_figures():
    """Read off the paper by hand, once more."""
    t2 = {row.name: row.paper[""] for row in open_table("s0-t2").rows}
    assert t2["20"] == ("0.768", "0.291", "0.237")
    assert t2["20-unbalanced"] == ("0.759", "0.276", "0.222")
    assert t2["tripathy-30"] == ("0.696", "0.224", "0.173")
    assert open_table("s0-t4").rows[2].paper[""] == ("0.405 ± 0.152",)
    assert {row.name: row.paper["maps"] for row in open_table("s3-t1").rows}["half"] == ("0.42", "0.05", "205.14")


def test_an_unknown_table_is_refused_with_the_nearest(capsys):
    assert main(["experiment", "s0-t12", "--out", "x"]) == 2
    assert "did you mean s0-t" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("pairs = 1\n", "", "pairs is missing"),
        ("pairs = 1\n", "pears = 1\npairs = 1\n", "pears is not known; did you mean pairs"),
        ('paper = ["0.5 ± 0.1", "0.2 ± 0.1"]', 'paper = ["0.5"]', "1 figures, but the table has 2 metrics"),
        ('cells = ["supervised", "1"]', 'cells = ["supervised"]', "1 cells, but the table has 2 columns"),
        ("size = [32, 48]", "size = 32", "must be height and width"),
        ("repeats = 1", 'repeats = "one"', "repeats is 'one', but must be int"),
        ('title = "A small table"', "title =", "cannot be read as a table"),
    ],
)
def test_a_slip_in_a_table_is_refused_in_a_sentence(tmp_path, before, after, said):
    path = small_file(tmp_path, "one")
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(UserError, match=re.escape(said)):
        open_table(str(path))


def test_rows_are_asked_for_by_name(tmp_path):
    table = small_table(tmp_path, "one", "two")
    setting = table.setting("compact")
    assert [row.name for row in table.rows_of(setting, ("two",))] == ["two"]
    with pytest.raises(UserError, match="did you mean two"):
        table.rows_of(setting, ("tow",))
    with pytest.raises(UserError, match="did you mean compact"):
        table.setting("compat")


def test_a_metric_finds_its_figure_with_the_extractors_name():
    metric = Metric("FID", "fid*")
    assert metric.find({"mean_iou": 0.1, "fid[mobilenet]": 20.0}) == "fid[mobilenet]"
    assert metric.find({"fid[mobilenet]": None}) is None
    assert Metric("Mean IoU", "judge_mean_iou").find({"judge_on_real_mean_iou": 0.4, "judge_mean_iou": 0.2}) == "judge_mean_iou"


def made_up(table, row, repeat, value, **changes):
    """A result as a run would have left it."""
    setting = table.setting("compact")
    spec = spec_of(setting, next(each for each in table.rows if each.name == row))
    figures = {"pixel_accuracy": 2 * value, "mean_iou": value, "samples": 2, "per_class_iou": {}, "floors": {}}
    weights = {"step": 4, "val": figures}
    place = {"commit": "abc", "python": "3", "processor": "P", "cores": 2, "device": "cpu", "threads": 1, "versions": {"torch": "2"}}
    result = Result(
        table=table.name,
        setting="compact",
        row=row,
        repeat=repeat,
        key=f"{row}{repeat}",
        spec=spec,
        method="supervised",
        pairs=1,
        unpaired=4,
        rule="random",
        steps=4,
        size=(32, 48),
        figures={"last": weights, "best": weights},
        environment=place,
    )
    return dataclasses.replace(result, **changes)


VALUES = (0.1, 0.16, 0.13)


@pytest.fixture
def pages(tmp_path):
    table = small_table(tmp_path, "one", "two", "wild", repeats=3)
    results = [made_up(table, "one", repeat, value) for repeat, value in enumerate(VALUES)]
    results.append(made_up(table, "wild", 0, 0.0, figures={}, failed="the loss is not finite at step 3"))
    write_pages(table, table.setting("compact"), results, tmp_path)
    return table, results, tmp_path


def test_mean_and_deviation_are_numpys(pages):
    _, _, folder = pages
    rows = list(csv.DictReader((folder / "small.csv").read_text().splitlines()))
    [row] = [each for each in rows if (each["row"], each["checkpoint"], each["figure"]) == ("one", "last", "mean_iou")]
    assert int(row["n"]) == 3
    assert float(row["mean"]) == pytest.approx(np.mean(VALUES), abs=1e-12)
    assert float(row["sd"]) == pytest.approx(np.std(VALUES, ddof=1), abs=1e-12)
    assert row["paper"] == "0.2 ± 0.1"
    text = (folder / "small.md").read_text()
    assert f"{np.mean(VALUES):.3f} ± {np.std(VALUES, ddof=1):.3f} (3) | 0.5 ± 0.1 | 0.2 ± 0.1 |" in text


def test_the_page_says_what_was_not_run_and_what_failed(pages):
    _, _, folder = pages
    text = (folder / "small.md").read_text()
    assert "| supervised | 2 | not run | - | - | 0.6 | 0.3 |" in text
    assert "| far too fast | 2 | FAILED | - | - | 0.6 | 0.3 |" in text
    assert "FAILED: wild #0: the loss is not finite at step 3" in text
    assert "Not run: two." in text
    for word in ("folders, 32x48, 4 steps", "seeds 0, 1, 2", "Commit abc", "torch 2", "1 thread"):
        assert word in text, word


def test_the_plot_is_written_and_shows_the_error_bars(pages):
    _, _, folder = pages
    assert (folder / "small.png").read_bytes().startswith(b"\x89PNG")
    drawn = (folder / "small.svg").read_text()
    assert "<svg" in drawn
    assert "LineCollection" in drawn, "no error bars"
    assert [float(each) for each in NUMBER.findall("0.405 ± 0.152")] == [0.405, 0.152]


def test_a_figure_that_the_paper_does_not_print_is_a_dash_and_no_point_of_the_plot(tmp_path):
    path = small_file(tmp_path, "one")
    path.write_text(path.read_text().replace('paper = ["0.5 ± 0.1", "0.2 ± 0.1"]', 'paper = ["0.5 ± 0.1", "-"]'))
    table = open_table(str(path))
    (tmp_path / "out").mkdir()
    page, *_, plot = write_pages(table, table.setting("compact"), [], tmp_path / "out")
    assert "| 0.5 ± 0.1 | - |" in page.read_text()
    assert plot.is_file()


def test_what_a_person_wrote_around_the_figures_stays(pages):
    table, results, folder = pages
    page = folder / "small.md"
    page.write_text(page.read_text().replace(END, f"{END}\n\nMy thoughts."))
    more = [*results, made_up(table, "two", 0, 0.5)]
    write_pages(table, table.setting("compact"), more, folder)
    assert page.read_text().rstrip().endswith("My thoughts.")
    assert "0.500 (1)" in page.read_text()
    page.write_text("nothing to write between")
    with pytest.raises(UserError, match="write between"):
        write_pages(table, table.setting("compact"), more, folder)


def test_results_of_another_version_of_a_row_are_left_out(pages):
    table, results, folder = pages
    old = [dataclasses.replace(each, spec="another") for each in results]
    write_pages(table, table.setting("compact"), old, folder)
    text = (folder / "small.md").read_text()
    assert "4 results were made from another version of their row and are left out" in text
    assert "Not run: one, two, wild." in text


def test_report_needs_nothing_but_the_results(pages, capsys):
    _, results, folder = pages
    for result in results:
        append(folder / "kept.jsonl", result)
    before = (folder / "small.md").read_text()
    asked = ["report", str(folder / "small.toml"), "--results", str(folder / "kept.jsonl"), "--out", str(folder / "again")]
    assert main(asked) == 0
    assert (folder / "again" / "small.md").read_text() == before
    assert "small.svg" in capsys.readouterr().out
    assert main([*asked[:3], str(folder / "nothing.jsonl"), *asked[4:]]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_a_line_cut_by_a_kill_is_dropped_and_a_spoilt_one_is_named(tmp_path):
    table = small_table(tmp_path, "one")
    path = tmp_path / "results.jsonl"
    append(path, made_up(table, "one", 0, 0.1))
    whole = path.read_text()
    path.write_text(whole + whole[: len(whole) // 2])
    assert len(read_results(path)) == 1
    append(path, made_up(table, "one", 1, 0.2))
    assert [each.repeat for each in read_results(path)] == [0, 1]
    assert all(json.loads(line) for line in path.read_text().splitlines())
    path.write_text("{}\n" + whole)
    with pytest.raises(UserError, match="line 1 is not a result"):
        read_results(path)
