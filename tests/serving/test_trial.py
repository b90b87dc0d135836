"""How the launcher learns why no model can be served: from a process in which libraries print what and when they like."""

from __future__ import annotations

import os

import pytest

from serving.errors import ServingError
from serving.trial import try_models

AT_ITS_END = "import atexit, os, sys\natexit.register(lambda: (sys.stdout.flush(), os.write(1, {noise!r})))\n"


def tried(folder, begins):
    """What is said of an absent models folder by a process that begins with these lines of Python."""
    (folder / "sitecustomize.py").write_text(begins)
    with pytest.raises(ServingError) as refused:
        try_models(os.environ | {"PYTHONPATH": str(folder), "FEWPAIR_MODELS": str(folder / "absent")}, spelled=str)
    return str(refused.value)


@pytest.mark.parametrize("noise", [b"native library: done\n", b"7\n{}\n[]", b"\n\n"])
def test_what_a_library_prints_after_the_reason_does_not_hide_it(tmp_path, noise):
    assert f"the models folder {tmp_path}/absent does not exist" in tried(tmp_path, AT_ITS_END.format(noise=noise))


@pytest.mark.parametrize("printed", ["", "out of memory"])
def test_an_end_without_a_reason_is_told_by_its_exit_code_and_what_was_printed(tmp_path, capfd, printed):
    said = tried(tmp_path, f"import os\nos.write(1, {printed.encode()!r})\nos._exit(2)\n")
    assert said.startswith("loading the models ended with exit code 2.")
    assert capfd.readouterr().err == printed
