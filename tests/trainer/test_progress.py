"""Progress: a line now and then where nobody watches, a bar on a terminal, and how long is left by what was done since it began."""

import io
from contextlib import nullcontext

import pytest

from trainer import progress
from trainer.progress import Progress, told


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_a_minute_with_the_time_left_by_what_was_done_here(capsys, clock):
    with Progress(110, what="features", unit="photo", shown=True) as work:
        work.known(10)
        for _ in range(100):
            clock[0] += 1.0
            work.update()
    assert capsys.readouterr().err.splitlines() == [
        "features: 15 of 110 photos, about 1 min 40 s left",
        "features: 75 of 110 photos, about 35 s left",
        "features: 110 of 110 photos, done",
    ]


def test_what_is_soon_done_or_not_to_be_shown_says_nothing(capsys, clock):
    for shown, seconds in ((True, 1.0), (False, 100.0)):
        for _ in told([1, 2], what="draw", unit="scene", shown=shown):
            clock[0] += seconds
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("ends_in", [KeyboardInterrupt, None])
def test_what_was_stopped_is_not_called_done_and_figures_stand_beside_the_count(capsys, clock, ends_in):
    with pytest.raises(KeyboardInterrupt) if ends_in else nullcontext(), Progress(4, what="run", unit="step", shown=True) as steps:
        steps.beside("3.20 images/s")
        clock[0] += 10.0
        steps.update()
        if ends_in:
            raise ends_in
    assert capsys.readouterr().err == "run: 1 of 4 steps, about 30 s left, 3.20 images/s\n"


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "FIRST", 0.0)
    assert list(told(["a", "b"], what="draw", unit="scene", shown=True)) == ["a", "b"]
    assert "draw: 100%" in terminal.getvalue()
    assert "2 scenes" not in terminal.getvalue()
