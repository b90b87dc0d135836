"""The launcher: what cannot work is refused with a sentence and exit code 2, what works stops when it is told to."""

import signal
import socket
import subprocess
import time

import httpx
import psutil
import pytest

from serving.__main__ import main
from tests.serving.process import free_port, launch, running_server, workers_of


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "device = tpu (FEWPAIR_DEVICE): Input should be 'auto', 'cpu' or 'cuda'"),
        (["--host", "nowhere.invalid"], "host nowhere.invalid is no address of this machine"),
        (["--host", "0.0.0.0"], "host 0.0.0.0 is reached from other machines, and no tokens are set"),
        (["--jobs", "/dev/null/jobs"], "/dev/null/jobs cannot be used"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(models, capsys, arguments, message):
    assert main(["--models", str(models), "--port", str(free_port()), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused_with_the_next_one(models, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--models", str(models), "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 cannot be used" in error
    assert f"--port {port + 1}" in error


@pytest.mark.slow
def test_models_that_cannot_be_used_are_refused_with_the_reason(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "manifest.json").write_bytes(b"[" * 200_000)
    options = ("--models", str(tmp_path), "--no-ui", "--port", str(free_port()))
    said = refused(launch(tmp_path / "home", *options))
    assert "broken has no manifest.json" in said
    assert "deep/manifest.json cannot be read" in said


def test_the_help_lists_every_setting(tmp_path):
    process = launch(tmp_path, "--help")
    assert process.returncode == 0
    assert "Serve exported models over REST" in process.stdout
    assert all(flag in process.stdout for flag in ("--no-ui", "--jobs-max-bytes-in-all", "--cors-origins"))
    assert not any(internal in process.stdout for internal in ("factory", "None", "True"))


@pytest.mark.slow
def test_an_interrupt_stops_the_server_which_leaves_no_files_and_shows_no_tokens(models, tmp_path):
    (tmp_path / "temporary").mkdir()
    variables = {"FEWPAIR_TOKENS": "a-secret-of-the-test", "FEWPAIR_ALLOWED_HOSTS": "*.example.org"}
    proxies = {"TMPDIR": str(tmp_path / "temporary"), "http_proxy": "http://127.0.0.1:9"}
    with running_server(models, tmp_path, "--no-ui", "--host", "0.0.0.0", **variables, **proxies) as server:
        assert list((tmp_path / "temporary").iterdir())
        assert httpx.get(f"{server.url}/v1/models").status_code in (400, 401)
        assert server.stop(signal.SIGINT) == 0
        said = server.log.read_text()
    assert "Traceback" not in said
    assert "a-secret" not in said
    assert "tiny: to_label, to_photo on C" in said
    headers = "-H 'Authorization: Bearer TOKEN' -H 'Host: fewpair.example.org'"
    assert f"try     curl {headers} -F image=@photo.jpg {server.url}/segment -o label.png" in said
    assert not answers(server.url)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.slow
def test_a_slow_upload_delays_a_stop_and_a_second_signal_ends_it_immediately(models, tmp_path):
    with running_server(models, tmp_path, "--no-ui") as server:
        (worker,) = workers_of(server.process.pid)
        with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port)) as slow:
            slow.sendall(
                b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
            )
            slow.sendall(b"x" * 1000)
            time.sleep(0.5)
            server.process.send_signal(signal.SIGINT)
            time.sleep(1)
            assert server.process.poll() is None, "the request may still finish"
            began = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            server.process.wait(10)
            assert time.monotonic() - began < 3
        assert not answers(server.url)
        assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_the_folder_of_a_launcher_that_was_killed_is_removed_by_the_next_one_and_that_of_a_running_server_is_not(
    models, tmp_path
):
    def folders():
        return sorted((tmp_path / "jobs").glob("fewpair-server-*"))

    jobs = ("--no-ui", "--jobs", str(tmp_path / "jobs"))
    with running_server(models, tmp_path / "first", *jobs) as first:
        children = psutil.Process(first.process.pid).children(recursive=True)
        first.stop(signal.SIGKILL)
        psutil.wait_procs(children, timeout=60)
        (left,) = folders()
    with running_server(models, tmp_path / "second", *jobs) as second:
        (used,) = folders()
        assert used != left
        with running_server(models, tmp_path / "third", *jobs):
            assert used in folders()
        assert answers(second.url)
    assert folders() == []
