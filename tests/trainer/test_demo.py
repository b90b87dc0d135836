"""`fewpair demo`, with few steps: it trains, evaluates, exports and serves, once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.serving.process import ROOT, free_port
from tests.trainer.factories import tiny_run
from trainer.__main__ import main
from trainer.data.layouts import drawn
from trainer.recipes import RECIPES


def test_a_port_that_is_taken_is_refused_before_the_training(capsys, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ["--port", str(port), "--run", str(tmp_path / "run"), "--models", str(tmp_path / "models")]
        assert main(["demo", *options]) == 2
    assert f"--port {port} cannot be used" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_demo_trains_once_exports_and_serves(capfd, tmp_path, monkeypatch):
    models, run = tmp_path / "models", tmp_path / "run"
    monkeypatch.setitem(RECIPES, "scenes-demo", tiny_run("mean_teacher", recipe="scenes-demo", steps=2))
    monkeypatch.setattr(drawn, "SCENES", {"train": 8, "val": 1, "test": 3})
    monkeypatch.setattr("trainer.export.export.reasons_against", lambda *_: {})  # two steps beat no baseline
    options = ["demo", "--run", str(run), "--models", str(models)]
    assert main([*options, "--no-serve"]) == 0
    assert "Evaluate on other scenes" in capfd.readouterr().out
    manifest = json.loads((models / "scenes-demo" / "manifest.json").read_text())
    assert manifest["metrics"]["test"]["samples"] == 3
    assert set(manifest["directions"]) == {"to_label"}

    port, log = free_port(), tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "trainer", *options, "--port", str(port)],
            cwd=ROOT,
            env=os.environ | {"BENTOML_HOME": str(tmp_path / "bentoml")},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 120
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            try:
                assert urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        assert "remove it to train again" in log.read_text()
        assert (run / "example.png").is_file()
        os.killpg(server.pid, signal.SIGINT)  # what Ctrl-C in a terminal does
        assert server.wait(timeout=60) == 0, log.read_text()
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
