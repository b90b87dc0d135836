"""The demo: the whole way once, small; what it says where a model has learnt nothing; and how it starts and stops the server."""

import dataclasses
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from trainer import demo, demo_training
from trainer.__main__ import main
from trainer.data.catalogue import SCENE_SPLITS
from trainer.errors import UserError
from trainer.recipes import RECIPES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_recipe(monkeypatch):
    """The demo's recipe, with networks that learn nothing in two steps."""
    config = dataclasses.replace(RECIPES[demo.NAME].config, width=4, blocks=1)
    run = dataclasses.replace(RECIPES[demo.NAME], config=config, size=(32, 48), steps=2, pairs=2, unpaired=4, evaluate_every=1000)
    monkeypatch.setitem(RECIPES, demo.NAME, run)
    monkeypatch.setitem(SCENE_SPLITS, "val", 3)
    monkeypatch.setitem(SCENE_SPLITS, "test", 6)
    monkeypatch.setattr(demo, "JUDGED", 4)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_port_that_is_taken_is_refused_before_the_training(capsys, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", "--port", str(port), "--run", str(tmp_path / "run"), "--models", str(tmp_path / "models")]) == 2
    assert f"--port {port} cannot be used" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class Stranger(http.server.BaseHTTPRequestHandler):
    """Answers everything, as a server of somebody else's on the demo's port would."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("meanwhile", ["while it trained", "while the server started"])
def test_a_port_that_another_server_took_meanwhile_is_told_with_where_the_model_is_and_how_to_serve_it(
    capsys, tmp_path, monkeypatch, meanwhile
):
    started, port = [], free_port()
    dying = [sys.executable, "-c", "import time; time.sleep(1); raise SystemExit(2)"]
    start = subprocess.Popen

    def take() -> None:
        started.append(http.server.ThreadingHTTPServer(("127.0.0.1", port), Stranger))
        threading.Thread(target=started[0].serve_forever, daemon=True).start()

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(subprocess, "Popen", lambda _: take() or start(dying))
    if meanwhile == "while it trained":
        take()
    with pytest.raises(UserError) as refused:
        demo.serve(tmp_path / "models", port=port, example=Path("runs/demo/example.png"))
    started[0].shutdown()
    started[0].server_close()
    assert len(started) == 1
    assert f"--port {port} was taken meanwhile" in str(refused.value)
    assert f"The model is kept in {tmp_path / 'models' / demo.NAME}" in str(refused.value)
    assert re.search(rf"trains nothing: fewpair demo --port \d+ --models {tmp_path / 'models'}$", str(refused.value))
    assert "The demo is ready" not in capsys.readouterr().out


def test_a_demo_without_the_serving_extra_is_refused_before_the_training(capsys, tmp_path, monkeypatch):
    found = demo.importlib.util.find_spec
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None if name == "bentoml" else found(name))
    assert main(["demo", "--run", str(tmp_path / "run")]) == 2
    assert "there is no bentoml here): pip install '.[serve]' in a clone of the project" in capsys.readouterr().err


@pytest.mark.parametrize("config", [None, "{}", "no JSON", '{"recipe": "hybrid-compact"}'])
def test_a_folder_that_is_not_an_earlier_demo_s_is_refused_and_kept(capsys, tmp_path, config):
    theirs = tmp_path / "run" / "run"
    theirs.mkdir(parents=True)
    (theirs / "thesis.txt").write_text("the only copy")
    if config is not None:
        (theirs / "config.json").write_text(config)
    assert main(["demo", "--no-serve", "--run", str(tmp_path / "run"), "--models", str(tmp_path / "models")]) == 2
    assert f"{theirs} is in the way, and is not the run of an earlier demo" in capsys.readouterr().err
    assert (theirs / "thesis.txt").read_text() == "the only copy"


def test_an_earlier_demo_s_run_with_other_choices_makes_room(tmp_path, monkeypatch, small_recipe):
    earlier = tmp_path / "run" / "run"
    earlier.mkdir(parents=True)
    (earlier / "config.json").write_text('{"recipe": "scenes-demo", "method": "gone"}')
    monkeypatch.setattr("trainer.demo_training.start", lambda path, *_, **__: (_ for _ in ()).throw(SystemExit(f"{path.exists()}")))
    with pytest.raises(SystemExit, match="False"):
        main(["demo", "--no-serve", "--run", str(tmp_path / "run"), "--models", str(tmp_path / "models")])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_trains_once_refuses_what_learnt_nothing_and_serves(capfd, tmp_path, monkeypatch, small_recipe):
    models, words = tmp_path / "models", ["demo", "--no-serve", "--run", str(tmp_path / "run"), "--models", str(tmp_path / "models")]

    assert main(words) == 1
    said = capfd.readouterr()
    assert "the model has learnt too little to be worth serving" in said.err
    assert "Evaluate on 4 scenes of split `test`" in said.out
    assert not models.exists()

    monkeypatch.setattr(demo, "MARGIN", -1.0)
    assert main(words) == 0
    assert f"Train: continue {tmp_path / 'run' / 'run'}" in capfd.readouterr().out
    assert {path.name for path in (models / demo.NAME).iterdir()} >= {"manifest.json", "to_label.onnx", "to_photo.onnx"}
    metrics = json.loads((models / demo.NAME / "manifest.json").read_text())["metrics"]
    assert {split: figures["samples"] for split, figures in metrics.items()} == {"test": 4}
    assert "mean iou of the floor" in (models / demo.NAME / "README.md").read_text()

    assert main(words) == 0
    assert "is there from an earlier demo" in capfd.readouterr().out

    program = "import sys; from pathlib import Path; from trainer.demo import serve;"
    program += "sys.exit(serve(Path(sys.argv[1]), port=int(sys.argv[2]), example=Path(sys.argv[3])))"
    port, log = free_port(), tmp_path / "log"
    with log.open("w") as output:
        command = [sys.executable, "-c", program, str(models), str(port), str(tmp_path / "run" / "example.png")]
        environment = os.environ | {"BENTOML_HOME": str(tmp_path / "bentoml")}
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while "The demo is ready" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        said = log.read_text()
        for address in re.findall(r"(?:page|API) +(http://\S+)", said):
            assert urllib.request.urlopen(address, timeout=30).status == 200
        assert (tmp_path / "run" / "example.png").is_file()
        assert f"curl -F image=@{tmp_path / 'run' / 'example.png'} -F model={demo.NAME}" in said
        os.killpg(server.pid, signal.SIGINT)  # what Ctrl-C in a terminal does
        assert server.wait(timeout=60) == 0, log.read_text()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)


def test_ctrl_c_while_the_demo_trains_names_the_demo_as_what_goes_on(capsys, tmp_path, monkeypatch, small_recipe):
    monkeypatch.setattr("trainer.record.Record.tick", lambda _: os.kill(os.getpid(), signal.SIGINT))  # once, as the first step ends the run
    assert main(["demo", "--no-serve", "--run", str(tmp_path / "run"), "--models", str(tmp_path / "models")]) == 130
    said = capsys.readouterr().out
    assert "stopped at step 1 of 2; go on with: the same command (make demo, or fewpair demo)" in said
    assert "--resume" not in said
    assert re.search(
        r"2 steps: about \d+ s and the evaluations on `val`, at the \S+ s that a step takes at this moment; longer where", said
    )


def test_a_slow_machine_takes_fewer_steps_and_never_too_few() -> None:
    assert demo_training.steps_that_fit(0.1, planned=400) == 400
    assert demo_training.steps_that_fit(0.75, planned=400) == 200
    assert demo_training.steps_that_fit(30.0, planned=400) == demo_training.FEWEST_STEPS


def test_the_time_is_an_aim_with_its_measurement_and_what_it_took_is_told_afterwards() -> None:
    aim = demo_training.aimed_at
    assert aim(400, 0.1, planned=400).startswith("400 steps: about 40 s and")
    assert aim(200, 0.75, planned=400).startswith("200 steps instead of the recipe's 400: about 2 min 30 s and")
    assert aim(100, 30.0, planned=400).startswith(
        "100 steps instead of the recipe's 400, the fewest that teach it enough: about 50 min and"
    )
    assert demo_training.taken(45, aimed=40) == "Training took 45 s, evaluations aside"
    assert demo_training.taken(600, aimed=150).startswith(
        "Training took 10 min, evaluations aside; 2 min 30 s was the aim, and the machine has been"
    )
