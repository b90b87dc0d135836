"""How a server ends: on SIGTERM it finishes its requests; killed, it comes back."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.process import running_server, until, workers_of
from tests.serving.slow import write_slow_model

LONG = file_of(np.zeros((700, 800, 3), np.uint8))  # some two seconds of the slow model
LONGER = file_of(np.zeros((1400, 1600, 3), np.uint8))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ends")
    write_model(folder / "tiny")
    write_slow_model(folder / "slow", pytest.MonkeyPatch())
    return folder


def ask(url, model, photo):
    try:
        return httpx.post(f"{url}/segment", files={"image": photo}, data={"model": model, "output": "ids"}, timeout=60)
    except httpx.TransportError as error:
        return error


@pytest.mark.slow
def test_told_to_stop_it_finishes_what_it_has_taken_and_accepts_nothing_more(models, tmp_path):
    variables = {"FEWPAIR_QUEUE_WAIT": "0", "TMPDIR": str(tmp_path / "temporary"), "HOME": "/proc/nope"}
    (tmp_path / "temporary").mkdir()
    with (
        running_server(models, tmp_path, "--default-model", "tiny", **variables) as server,
        ThreadPoolExecutor(4) as pool,
        httpx.Client(base_url=server.url, timeout=60) as visitor,
    ):
        until(lambda: visitor.get("/ui/").status_code == 200, seconds=120)
        taken = [pool.submit(ask, server.url, "slow", LONG) for _ in range(3)]
        until(lambda: "fewpair_requests_admitted 3.0" in visitor.get("/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        assert [answer.result().status_code for answer in taken] == [200, 200, 200]
        assert server.process.wait(25) == 0
    assert isinstance(ask(server.url, "tiny", file_of(ramp())), httpx.ConnectError)
    assert "Traceback" not in server.log.read_text()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.slow
def test_a_killed_server_comes_back_by_itself_and_ends_with_its_launcher(models, tmp_path):
    with running_server(models, tmp_path, "--no-ui") as server:
        (killed,) = workers_of(server.process.pid)
        with ThreadPoolExecutor(1) as pool:
            lost = pool.submit(ask, server.url, "slow", LONGER)
            until(lambda: "fewpair_requests_admitted 1.0" in httpx.get(f"{server.url}/metrics").text, seconds=30)
            os.kill(killed, signal.SIGKILL)
            assert isinstance(lost.result(), httpx.TransportError)

        def answers():
            return isinstance(ask(server.url, "tiny", file_of(ramp())), httpx.Response)

        until(answers, seconds=60)
        assert ask(server.url, "tiny", file_of(ramp())).status_code == 200
        server.stop(signal.SIGKILL)  # the launcher, whose server ends with it
        until(lambda: not answers(), seconds=30)
