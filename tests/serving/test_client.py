"""The typed client speaks with a real server and raises its words."""

import http.server
import json
import threading
import time

import numpy as np
import pytest

from serving.client import Client
from serving.errors import Refusal
from tests.serving.pictures import file_of, pixels_of, ramp, stripes
from tests.serving.test_translator import brightness_ids


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


def test_it_lists_segments_and_synthesizes(client, tmp_path):
    assert {model["name"] for model in client.models()} == {"tiny", "fixed", "labels-only", "views"}
    assert client.model("tiny")["training"]["method"] == "by hand"
    path = tmp_path / "photo.png"
    path.write_bytes(file_of(ramp()))
    assert np.array_equal(pixels_of(client.segment(path)), brightness_ids(ramp()))
    assert client.report(path)["width"] == 61
    made = client.synthesize(file_of(stripes()), seed=4, format="png")
    assert (made.seed, made.model) == (4, "tiny")
    several = client.synthesize_several(file_of(stripes()), count=3, seed=3, format="png")
    assert [one.seed for one in several] == [3, 4, 5]
    assert several[1].photo == made.photo
    styled = client.synthesize(file_of(stripes()), style=client.style(path, model="tiny"), model="tiny")
    assert (styled.seed, styled.model) == (None, "tiny")


@pytest.mark.parametrize("address", ["127.0.0.1:3000", "localhost:3000"])
def test_an_address_without_http_is_told_to_want_it_in_front(address):
    with Client(address) as client, pytest.raises(Refusal) as refused:
        client.models()
    assert str(refused.value) == f"{address} does not begin with http://. Use http://{address}"


def test_it_gives_outlines_and_boxes(client):
    annotations = client.polygons(file_of(ramp()), min_area=10)["annotations"]
    assert sorted(row["category_id"] for row in annotations) == [0, 1, 2]
    assert client.report(file_of(ramp()), min_area=10)["regions_found"] == 3


def test_it_raises_the_servers_own_words(client):
    with pytest.raises(Refusal) as caught:
        client.segment(b"not an image")
    assert (caught.value.status, caught.value.code) == (400, "not_an_image")
    assert "PNG, JPEG" in caught.value.hint


def test_a_server_that_is_not_there_is_a_sentence_too():
    with pytest.raises(Refusal, match="does not answer"):
        Client("http://127.0.0.1:9").models()


class Scripted:
    """A server that answers requests by a script of (status, body) and then with 200, and keeps what it received."""

    def __init__(self, *script, port=0):
        self.received = []
        script = list(script)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler):
                sent = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
                self.received.append((time.monotonic(), handler.path, sent))
                status, body = script.pop(0) if script else (200, {"models": [], **JOB, "state": "done"})
                content = json.dumps(body).encode()
                handler.send_response(status)
                handler.send_header("Content-Length", str(len(content)))
                if status == 503:
                    handler.send_header("Retry-After", "1")
                handler.end_headers()
                handler.wfile.write(content)

            do_POST = do_GET

            def log_message(self, *told):
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._http.shutdown()
        self._http.server_close()


FULL = (503, {"error": {"code": "overloaded", "message": "full.", "hint": ""}})
JOB = {
    "id": "job", "state": "running", "pictures": {"total": 1, "done": 0, "failed": 0}, "progress": 0.0,
    "seconds_left": None, "failures": [], "error": None,
}  # fmt: skip


def test_a_full_server_is_asked_again_when_it_says_so_while_the_patience_lasts():
    with Scripted(FULL) as server, Client(server.url, patience=5) as client:
        assert client.models() == []
        assert 1 <= server.received[1][0] - server.received[0][0] < 2
    for patience in (0, 0.9):
        with Scripted(FULL) as server, Client(server.url, patience=patience) as client:
            with pytest.raises(Refusal, match="full") as caught:
                client.models()
            assert (len(server.received), caught.value.headers) == (1, {"Retry-After": "1"})


def test_patience_reaches_jobs_and_files_are_sent_whole_again(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(file_of(ramp()))
    with Scripted(FULL) as server, Client(server.url, patience=5) as client:
        assert client.jobs.segment([path, b"more"]).state == "done"
        first, second = (sent for _, _, sent in server.received)
        assert path.read_bytes() in first
        assert path.read_bytes() in second
        assert len(first) == len(second)


def test_two_refused_pictures_of_one_name_are_two_failures():
    errors = [{"code": code, "message": "no.", "hint": ""} for code in ("broken_image", "too_many_pixels")]
    failures = [{"name": "a.png", "error": error} for error in errors]
    with Scripted((200, {**JOB, "failures": failures})) as server, Client(server.url) as client:
        found = client.jobs.find("job").failures
    assert [(name, error.code) for name, error in found] == [("a.png", "broken_image"), ("a.png", "too_many_pixels")]


def test_waiting_for_a_job_survives_a_restart_of_the_server():
    with Scripted((200, JOB)) as server:
        client = Client(server.url)
        assert client.jobs.find("job").state == "running"
    found = []
    waiting = threading.Thread(target=lambda: found.append(client.jobs.wait("job", seconds=60, every=0.1)))
    waiting.start()
    time.sleep(0.5)
    with Scripted((503, {}), (200, JOB), port=server.port):
        waiting.join(60)
    assert found[0].state == "done"
    client.close()


def test_waiting_ends_with_its_time_and_with_errors_that_stay():
    unknown = (404, {"error": {"code": "unknown_job", "message": "no such job.", "hint": ""}})
    running = Scripted(*[(200, JOB)] * 100)
    late = pytest.raises(TimeoutError, match="running, 0 of 1 pictures done")
    with running as server, Client(server.url) as client, late:
        client.jobs.wait("job", seconds=0.3, every=0.1)
    with Scripted(unknown) as server, Client(server.url) as client, pytest.raises(Refusal, match="no such job"):
        client.jobs.wait("job", every=0.1)


def test_an_answer_of_another_server_is_named():
    foreign = pytest.raises(Refusal, match="answered 502 without an error of fewpair")
    with Scripted((502, "bad gateway")) as server, Client(server.url) as client, foreign:
        client.models()
