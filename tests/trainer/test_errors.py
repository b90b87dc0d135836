"""What the operating system refuses ends in a sentence with the path and the remedy, never in a traceback."""

import errno
import os
from pathlib import Path

import pytest

from trainer import __main__ as command_line


def error_text(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that the command line ends in."""
    assert command_line.main(words) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    line = said.strip().splitlines()[-1]
    assert line.startswith("fewpair: ")
    return line


def test_pairs_under_a_file_are_refused_with_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("a file")
    assert str(tmp_path / "notes") in error_text(
        capsys, "pairs", "--data", "scenes", "--k", "2", "--out", str(tmp_path / "notes" / "p.json")
    )


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "that you may read and write"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_an_error_of_the_operating_system_is_reported_with_path_and_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, remedy: str
) -> None:
    def meets(_: list[str]) -> int:
        raise OSError(number, os.strerror(number), "out/place")

    monkeypatch.setattr(command_line, "load", lambda _: meets)
    line = error_text(capsys, "train")
    assert line.startswith(f"fewpair: out/place: {os.strerror(number)}")
    assert remedy in line


def test_an_error_without_a_path_is_reported_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def meets(_: list[str]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command_line, "load", lambda _: meets)
    assert (
        error_text(capsys, "export")
        == "fewpair: No space left on device: free some space, or name a folder on another disk"
    )
