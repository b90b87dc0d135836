"""`make bench`, quickly."""

import json

import pytest

from benchmarks.speed.__main__ import main


@pytest.mark.slow
@pytest.mark.parametrize("part", ["inference", "command_line"])
def test_every_figure_of_the_speed_benchmark_names_the_machine_the_versions_and_the_commit(part, capsys, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0})  # two threads wait for each other on busy cores
    assert main([part, "--quick"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert lines
    for line in lines:
        assert line["value"] >= 0
        assert line["machine"]["processor"]
        assert line["versions"]["torch"]
        assert line["commit"]
