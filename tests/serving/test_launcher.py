"""The launcher: what cannot work is refused with a sentence before anything starts, what works stops cleanly."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from serving.__main__ import _addresses, _Server, main
from serving.hosts import answers_to
from serving.session import why_no_cuda
from serving.settings import VARIABLES, Settings
from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.process import ROOT, free_port, launch, running_server


def refused(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 2, process.stdout + process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    return process.stderr


def answers(url: str) -> bool:
    try:
        httpx.get(f"{url}/livez", timeout=2)
    except httpx.HTTPError:
        return False
    return True


def test_a_device_that_is_none_is_refused(models, tmp_path):
    assert "choose from" in refused(launch(tmp_path, "--models", str(models), "--device", "tpu"))
    assert "device tpu is none of auto, cpu, cuda, tensorrt" in refused(launch(tmp_path, "--models", str(models), FEWPAIR_DEVICE="tpu"))


@pytest.mark.skipif(why_no_cuda() is None, reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none(models, tmp_path):
    assert "device cuda was demanded, but" in refused(
        launch(tmp_path, "--models", str(models), "--device", "cuda", "--port", str(free_port()))
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--prot", "3000"], "there is no option --prot; did you mean --port?"),
        (["--modles=x"], "there is no option --modles; did you mean --models?"),
        (["--xyzzy"], "there is no option --xyzzy; --help lists those that there are"),
        (["predict", "tiny", "in", "--uot", "x"], "there is no option --uot; did you mean --out?"),
    ],
)
def test_a_misspelt_option_is_refused_with_the_nearest(words, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert sentence in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused(models, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(launch(tmp_path, "--models", str(models), "--port", str(port)))
    assert f"port {port} of 127.0.0.1 cannot be used" in said
    assert f"--port {port + 1}" in said


def test_a_folder_of_jobs_that_cannot_be_used_is_refused(models, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    said = refused(launch(tmp_path, "--models", str(models), "--port", str(free_port()), FEWPAIR_JOBS=str(tmp_path / "file" / "jobs")))
    assert "file/jobs cannot be used" in said


def test_a_port_outside_the_range_is_refused(models, tmp_path):
    assert "--port 70000 lies outside" in refused(launch(tmp_path, "--models", str(models), "--port", "70000"))


def test_a_host_that_is_no_address_is_refused(models, tmp_path):
    assert "--host nowhere.invalid is no address" in refused(launch(tmp_path, "--models", str(models), "--host", "nowhere.invalid"))


def test_a_public_address_without_tokens_is_refused_unless_it_is_said_to_be_open(models, tmp_path):
    public = ("--models", str(models), "--host", "0.0.0.0", "--port")
    said = refused(launch(tmp_path, *public, str(free_port())))
    assert "--host 0.0.0.0 is reached from other machines, and no token is asked for" in said
    assert "--open" in said
    for meant in ({"FEWPAIR_OPEN": "on"}, {"FEWPAIR_TOKENS": "a-token-of-the-test"}):
        assert "--port 70000 lies outside" in refused(launch(tmp_path, *public, "70000", **meant))
        assert "no token" not in refused(launch(tmp_path, *public, str(free_port()), FEWPAIR_DEFAULT_MODEL="absent", **meant))


def test_a_models_folder_that_is_absent_empty_or_broken_is_refused(tmp_path):
    options = ("--port", str(free_port()))
    absent = refused(launch(tmp_path, "--models", str(tmp_path / "absent"), *options))
    assert "does not exist" in absent
    assert "fewpair export" in absent
    (tmp_path / "empty").mkdir()
    assert "holds no model" in refused(launch(tmp_path, "--models", str(tmp_path / "empty"), *options))
    (tmp_path / "photo.jpg").write_bytes(b"")
    assert "photo.jpg is a file, not a folder" in refused(launch(tmp_path, "--models", str(tmp_path / "photo.jpg"), *options))
    (tmp_path / "all" / "broken").mkdir(parents=True)
    (tmp_path / "all" / "other").mkdir()
    said = refused(launch(tmp_path, "--models", str(tmp_path / "all"), *options))
    assert [said.count(f"  {name} has no manifest.json") for name in ("broken", "other")] == [1, 1]


def test_a_model_in_place_of_the_folder_of_models_is_refused_with_the_folder_above_it(models, tmp_path):
    said = refused(launch(tmp_path, "--models", str(models / "tiny"), "--port", str(free_port())))
    assert f"{models / 'tiny'} is a model, not a folder of models.\nName the folder above it: --models {models}\n" in said


@pytest.mark.skipif(sys.platform == "win32", reason="a process that is killed by a signal")
@pytest.mark.usefixtures("own_handlers")
def test_models_whose_loading_is_killed_are_refused_with_how_it_ended(models, tmp_path, monkeypatch, capfd):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho out of memory >&2\nkill -KILL $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    assert main(["--models", str(models), "--port", str(free_port())]) == 2
    said = capfd.readouterr().err
    assert said.startswith("out of memory\nloading the models ended with SIGKILL.\n")


def test_a_default_model_that_is_not_there_is_refused(models, tmp_path):
    options = ("--models", str(models), "--port", str(free_port()))
    said = refused(launch(tmp_path, *options, "--default-model", "nope"))
    assert said.startswith("--default-model nope cannot be the default: models here: 123, labels-only, tiny")
    assert refused(launch(tmp_path, *options, FEWPAIR_DEFAULT_MODEL="nope")).startswith("FEWPAIR_DEFAULT_MODEL=nope cannot be")


def test_every_setting_can_be_asked_for_and_nothing_is_started(tmp_path):
    process = launch(tmp_path, "--print-settings", "--host", "nowhere.invalid", FEWPAIR_QUEUE="7", FEWPAIR_TOKENS="a-secret-of-mine")
    assert process.returncode == 0
    said = process.stdout.splitlines()
    assert {line.split()[0] for line in said} == VARIABLES.keys()
    assert "  queue                  7  (FEWPAIR_QUEUE)" in said
    assert "a-secret" not in process.stdout


def test_a_page_for_several_workers_is_refused(models, tmp_path):
    assert "--no-ui" in refused(launch(tmp_path, "--models", str(models), "--workers", "2"))


def test_a_variable_that_makes_no_sense_is_refused_by_its_name(models, tmp_path):
    assert "FEWPAIR_MAX_BYTES=lots is not a whole number" in refused(launch(tmp_path, "--models", str(models), FEWPAIR_MAX_BYTES="lots"))


def test_the_help_reads_well_and_comes_at_once(tmp_path):
    started = time.monotonic()
    process = launch(tmp_path, "--help")
    assert process.returncode == 0
    assert "Serve the exported models" in process.stdout
    assert time.monotonic() - started < 5


@pytest.mark.slow
@pytest.mark.parametrize(("number", "host"), [(signal.SIGTERM, "127.0.0.1"), (signal.SIGINT, "0.0.0.0")])
def test_a_signal_stops_the_server_cleanly_and_the_greeting_names_what_is_bound_and_what_can_be_opened(models, tmp_path, number, host):
    with running_server(models, tmp_path, "--no-ui", "--open", "--host", host) as server:
        for path in ("/ui", "/ui/"):
            error = httpx.get(f"{server.url}{path}").json()["error"]
            assert (error["code"], error["message"]) == ("not_found", "the page was switched off on this server (ui = off).")
        assert httpx.get(f"{server.url}/", follow_redirects=True).url.path == "/v1/docs"
        assert server.stop(number) == 0
        said = server.log.read_text()
    assert "Traceback" not in said
    bound = f"0.0.0.0:{httpx.URL(server.url).port} (every address of this machine)"
    told = [
        f"Starting on {bound}, here {server.url}, for whoever reaches it, ",
        f"  bound   {bound}; others open it by this machine's name\n",
    ]
    assert [line in said for line in told] == [host == "0.0.0.0"] * 2
    assert (f"Starting on {server.url}, for programs of this machine, " in said) == (host == "127.0.0.1")
    assert f"  API     {server.url}/v1/docs\n" in said
    assert f"try     curl -F image=@photo.jpg {server.url}/segment -o label.png" in said
    assert "tiny: to_label, to_photo on CPUExecutionProvider" in said or "CUDAExecutionProvider" in said
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/livez")


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        ("127.0.0.1,example.org", None),
        ("example.org", "example.org"),
        ("*.example.org,Translate.example.com", "Translate.example.com"),
        ("*.example.org", "fewpair.example.org"),
    ],
)
def test_the_greeting_names_an_address_that_the_server_answers_to(names, asked):
    settings = Settings.from_environment({"FEWPAIR_ALLOWED_HOSTS": names})
    said = "\n".join(_addresses("http://127.0.0.1:3000", settings))
    assert f"  page    http://{asked or '127.0.0.1'}:3000/ui/" in said
    curl = f"curl -H 'Host: {asked}' -F" if asked else "curl -F"
    assert f"{curl} image=@photo.jpg http://127.0.0.1:3000/segment" in said
    assert answers_to(asked or "127.0.0.1:3000", settings.allowed_hosts)
    assert not answers_to("evil.example", settings.allowed_hosts)


@pytest.fixture
def own_handlers():
    """What becomes of signals to stop is as before, whatever a launcher made of it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="a process that is told to stop by a signal")
@pytest.mark.usefixtures("own_handlers")
def test_a_signal_that_comes_while_the_models_are_tried_ends_the_trial_too(models, tmp_path, monkeypatch):
    trial = tmp_path / "python"
    trial.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nsleep 0.3\nkill -TERM $PPID\nexec sleep 60\n")
    trial.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(trial))
    with pytest.raises(SystemExit) as ended:
        main(["--models", str(models), "--port", str(free_port())])
    assert ended.value.code == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.usefixtures("own_handlers")
def test_a_signal_that_comes_before_the_server_is_started_stops_it(monkeypatch):
    start, children = subprocess.Popen, []

    def interrupted(_, **options):
        signal.raise_signal(signal.SIGTERM)
        children.append(start([sys.executable, "-c", "import time; time.sleep(60)"], **options))
        return children[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    assert _Server(Settings.from_environment({"FEWPAIR_PORT": str(free_port())}), host="127.0.0.1").run("http://127.0.0.1:9") == 0
    assert children[0].returncode == -signal.SIGTERM


class Stranger(http.server.BaseHTTPRequestHandler):
    """Answers everything, as another server that has taken the port."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.usefixtures("own_handlers")
def test_another_server_that_answers_on_the_port_is_not_taken_for_the_one_that_was_started(monkeypatch, capfd):
    start = subprocess.Popen
    dying = [sys.executable, "-c", "import time; time.sleep(0.5)"]
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: start(dying, **options))
    with http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        port = stranger.server_port
        settings = Settings.from_environment({"FEWPAIR_PORT": str(port)})
        assert _Server(settings, host="127.0.0.1").run(f"http://127.0.0.1:{port}") == 1
        stranger.shutdown()
    said = capfd.readouterr()
    assert "Ready." not in said.out
    assert "the server ended while it started" in said.err


@pytest.mark.slow
def test_a_proxy_of_the_environment_does_not_stand_between_the_launcher_and_its_server(models, tmp_path):
    with running_server(models, tmp_path, "--no-ui", http_proxy="http://127.0.0.1:9", no_proxy="") as server:
        assert server.stop() == 0


@pytest.mark.slow
def test_a_server_that_stops_leaves_none_of_the_pages_files_nor_any_other(models, tmp_path):
    (tmp_path / "temporary").mkdir()
    with running_server(models, tmp_path, TMPDIR=str(tmp_path / "temporary")) as server:
        until = time.monotonic() + 120
        while httpx.get(f"{server.url}/ui/").status_code != 200 and time.monotonic() < until:
            time.sleep(0.2)
        assert list((tmp_path / "temporary").rglob("fewpair-page-*"))
        server.stop()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel for it")
def test_a_launcher_that_is_killed_leaves_no_server_on_its_port(models, tmp_path):
    (tmp_path / "temporary").mkdir()
    with running_server(models, tmp_path, "--no-ui", TMPDIR=str(tmp_path / "temporary")) as server:
        server.stop(signal.SIGKILL)
        until = time.monotonic() + 30
        while answers(server.url) or list((tmp_path / "temporary").glob("*/*")):
            assert time.monotonic() < until, "the server still answers, or has left its files"
            time.sleep(0.2)


@pytest.mark.slow
def test_two_workers_give_the_same_bytes_and_count_together(models, tmp_path):
    with running_server(models, tmp_path, "--no-ui", "--workers", "2") as server:
        answers = {httpx.post(f"{server.url}/segment", files={"image": file_of(ramp())}, data={"model": "tiny"}).content for _ in range(20)}
        assert len(answers) == 1
        if sys.platform == "linux":
            held = Path(f"/proc/{server.process.pid}/maps").read_text()
            assert "onnxruntime" not in held, "the launcher keeps nothing of the models that it tried"
            assert "numpy" not in held
        counted = [
            line for line in httpx.get(f"{server.url}/metrics").text.splitlines() if 'endpoint="/segment"' in line and "_total" in line
        ]
        assert [float(line.split()[-1]) for line in counted] == [20]


@pytest.mark.slow
def test_bentoml_serve_with_nothing_to_serve_stays_not_ready_and_says_why(tmp_path):
    port = free_port()
    (tmp_path / "models" / "broken").mkdir(parents=True)
    (tmp_path / "temporary").mkdir()
    environment = {
        **os.environ,
        "FEWPAIR_MODELS": str(tmp_path / "models"),
        "TMPDIR": str(tmp_path / "temporary"),
        "BENTOML_HOME": str(tmp_path / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Translator", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 120
            while True:
                assert time.monotonic() < until
                try:
                    ready = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=10)
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            assert ready.status_code == 503
            assert "has no manifest.json" in ready.json()["error"]["message"]
            asked = httpx.post(f"http://127.0.0.1:{port}/segment", files={"image": file_of(ramp())})
            assert (asked.status_code, asked.json()["error"]["code"]) == (503, "not_ready")
        finally:
            process.terminate()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_model_added_later_is_no_code(models, tmp_path):
    write_model(tmp_path / "models" / "another")
    said = launch(tmp_path, "--models", str(tmp_path / "models"), "--default-model", "tiny", "--port", str(free_port())).stderr
    assert "models here: another" in said
