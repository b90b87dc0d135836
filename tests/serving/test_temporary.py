"""A worker's temporary files: in a folder of its own; a dead one's are removed, a live one's never."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving import temporary
from serving.errors import ServingError
from tests.serving.process import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks of folders are not Windows'")

WORKER = """
import json, os, sys, tempfile
from serving import temporary
temporary.move_in()
print(json.dumps([tempfile.mkdtemp(prefix="upload-"), os.environ["PROMETHEUS_MULTIPROC_DIR"]]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def worker():
    """Starts workers of a server whose folder is given; each has written something."""
    started = []

    def start(shared):
        variables = {**os.environ, temporary.FOLDER: str(shared)}
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER], cwd=ROOT, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        upload, metrics = json.loads(process.stdout.readline())
        assert Path(upload).parent == shared / f"worker-{process.pid}"
        assert Path(metrics) == shared / "metrics"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_worker_removes_what_dead_ones_left_and_nothing_of_those_that_live(worker, tmp_path):
    shared, elsewhere = tmp_path / "server", tmp_path / "another"
    alive, killed, _ = worker(shared), worker(shared), worker(elsewhere)
    killed.kill()
    killed.wait()
    assert (shared / f"worker-{killed.pid}").is_dir(), "nobody else was there to remove it"
    came_back = worker(shared)
    assert {one.name for one in shared.glob("worker-*")} == {f"worker-{alive.pid}", f"worker-{came_back.pid}"}
    assert len(list((shared / f"worker-{alive.pid}").glob("upload-*"))) == 1
    assert len(list(elsewhere.glob("worker-*/upload-*"))) == 1


def test_where_nothing_can_be_written_the_launcher_says_so_and_what_helps(monkeypatch):
    def none(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setattr("tempfile.mkdtemp", none)
    with (
        pytest.raises(ServingError, match=r"no place for temporary files: No usable .* mount a tmpfs at /tmp"),
        temporary.folder_of_its_own(),
    ):
        pass
