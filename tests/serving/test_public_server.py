"""A server for other machines: access, overload, and what is recorded."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from serving.__main__ import main
from serving.client import Client
from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.process import running_server, until
from tests.serving.slow import write_slow_model

TOKEN = "a-token-of-the-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
LONG = file_of(
    np.zeros((800, 900, 3), np.uint8)
)  # two thirds of a second of the slow model on two free cores, seconds on busy ones
ADMITTED = 4  # one runs, two are decoded ahead, one waits


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("public")
    write_model(folder / "models" / "tiny")
    write_slow_model(folder / "models" / "slow", pytest.MonkeyPatch())
    (folder / "tokens.txt").write_text(f"{TOKEN}\nanother-token\n")
    (folder / "server.toml").write_text(
        "queue = 1\nbatch = 1\ntimeout = 4\nbody_timeout = 2\nmax_bytes = 1048576\n"
        'log = "json"\nui = false\n'
        'cors_origins = ["https://app.example"]\nallowed_hosts = ["127.0.0.1", "*.example.org"]\n'
        'tokens_file = "tokens.txt"\n'
        'default_model = "tiny"\n'
    )
    with running_server(folder / "models", folder / "home", "--config", str(folder / "server.toml")) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=30, headers=BEARER) as client:
        yield client


def code_of(response):
    return response.status_code, response.json()["error"]["code"]


def ends_of(response):
    """How the pictures of a request ended, as the `index.json` of its answer says."""
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        entries = json.loads(archive.read("index.json"))["answers"]
    return [entry.get("error", {}).get("code", "answered") for entry in entries]


def metric(http, name):
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def until_idle(http):
    """Wait for abandoned runs: they end between two nodes of their graph, seconds later on a busy machine."""
    until(lambda: http.post("/segment", files={"image": file_of(ramp())}).status_code == 200, seconds=60)


def head(server, length, *, kind="image/png", path="/v1/segment?model=slow"):
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {TOKEN}", f"Content-Type: {kind}"]
    connection.sendall("\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode())
    return connection


def status_of(connection):
    return int(connection.makefile("rb").readline().split()[1])


class TestAccess:
    def test_everything_but_health_probes_needs_a_token(self, server):
        with httpx.Client(base_url=server.url) as anonymous:
            for path in ("/v1/models", "/metrics", "/v1/docs", "/", "/nowhere"):
                assert code_of(anonymous.get(path)) == (401, "no_token")
            refused = anonymous.post(
                "/segment", files={"image": file_of(ramp())}, headers={"Authorization": "Bearer a-token-of-the-tes"}
            )
            assert code_of(refused) == (401, "no_token")
            assert refused.headers["www-authenticate"].startswith("Bearer")
            for path in ("/livez", "/readyz", "/healthz"):
                assert anonymous.get(path).status_code == 200

    def test_each_token_opens_everything_as_bearer_and_as_a_browsers_password(self, server):
        password = "Basic " + base64.b64encode(b"anybody:another-token").decode()
        for authorization in (f"Bearer {TOKEN}", "bearer another-token", password):
            with httpx.Client(base_url=server.url, headers={"Authorization": authorization}) as client:
                assert {client.get(path).status_code for path in ("/v1/models", "/metrics", "/v1/docs")} == {200}

    def test_the_apis_document_locks_what_a_token_opens_and_nothing_else(self, http):
        document = http.get("/v1/openapi.json").json()
        needed = {
            f"{method} {path}": of.get("security", document["security"])
            for path, methods in document["paths"].items()
            for method, of in methods.items()
        }
        admin = {operation for operation, security in needed.items() if security == [{"adminToken": []}]}
        free = {operation for operation, security in needed.items() if not security}
        assert admin == {"post /v1/admin/reload", "get /v1/jobs"}
        assert free == {"get /v2/health/live", "get /v2/health/ready"}
        assert needed["post /v1/segment"] == [{"token": []}, {"password": []}]
        assert document["components"]["securitySchemes"].keys() == {"token", "password", "adminToken"}

    def test_the_client_and_predict_bring_a_token(self, server, tmp_path, monkeypatch, capsys):
        with Client(server.url, token=TOKEN) as client:
            assert [model["name"] for model in client.models()] == ["slow", "tiny"]
        (tmp_path / "photo.png").write_bytes(file_of(ramp()))
        files = ("tiny", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), "--direction", "to_label")
        for token, code in ((TOKEN, 0), ("another-guess", 2)):
            monkeypatch.setenv("FEWPAIR_TOKEN", token)
            assert main(["predict", *files, "--server", server.url]) == code
        assert "none of the tokens" in capsys.readouterr().err

    def test_a_browser_is_asked_for_the_password_and_does_not_lend_it_to_a_page_of_another_origin(self, server):
        with httpx.Client(base_url=server.url, auth=("anybody", TOKEN)) as browser:
            assert httpx.get(f"{server.url}/v1/docs").headers["www-authenticate"].startswith("Basic")
            assert browser.get("/v1/models", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
            assert browser.get("/v1/models", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 401
            for origin, status in (
                (server.url, 200),
                ("http://evil.example", 401),
                ("null", 401),
            ):  # no Sec-Fetch over HTTP
                assert browser.get("/v1/models", headers={"Origin": origin}).status_code == status

    def test_another_origins_preflight_needs_no_token_and_its_refusals_can_be_read(self, server):
        asked = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        assert httpx.options(f"{server.url}/v1/segment", headers=asked).status_code == 200
        refused = httpx.get(f"{server.url}/v1/models", headers={"Origin": "https://app.example"})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://app.example")

    def test_a_name_that_is_not_the_servers_is_refused_but_to_health_probes(self, http):
        for name, status in (
            ("evil.example", 400),
            ("a.example.org:3000", 200),
            ("example.org", 400),
            ("127.0.0.1:99", 200),
        ):
            assert http.get("/v1/models", headers={"Host": name}).status_code == status
        assert code_of(http.get("/v1/models", headers={"Host": "evil.example"})) == (400, "wrong_host")
        assert http.get("/readyz", headers={"Host": "10.1.2.3"}).status_code == 200


class TestOverload:
    def test_a_body_that_does_not_arrive_is_a_408_and_is_not_admitted(self, server, http):
        asked = time.monotonic()
        connections = [head(server, 1000) for _ in range(2 * ADMITTED)]
        assert http.post("/segment", files={"image": file_of(ramp())}).status_code == 200
        assert {status_of(connection) for connection in connections} == {408}
        assert 1.5 < time.monotonic() - asked < 10
        for connection in connections:
            connection.close()

    def test_a_full_server_refuses_immediately_before_the_body_is_read(self, server, http):
        def long():
            return httpx.post(
                f"{server.url}/v1/segment?model=slow", content=LONG, headers={**BEARER, "Content-Type": "image/png"}
            )

        with ThreadPoolExecutor(ADMITTED) as pool:
            answers = [pool.submit(long) for _ in range(ADMITTED)]
            until(lambda: metric(http, "fewpair_requests_admitted") == ADMITTED)
            with head(server, 10**6) as late:  # of which not a byte is sent
                asked = time.monotonic()
                answer = late.makefile("rb")
                assert b" 503 " in answer.readline()
                assert time.monotonic() - asked < 1
                assert any(line.lower().startswith(b"retry-after: ") for line in (answer.readline() for _ in range(8)))
            assert http.get("/v1/models").status_code == 200
            assert {answer.result().status_code for answer in answers} <= {200, 503, 504}
        until_idle(http)

    @pytest.mark.parametrize("path", ["/segment", "/v1/segment"])
    def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_failure_of_the_server(self, server, http, path):
        counted = f'fewpair_requests_total{{endpoint="{path}",method="POST",model="none",status="499"}}'
        before = metric(http, counted)
        with head(server, 1000, path=path, kind="multipart/form-data; boundary=x") as connection:
            connection.sendall(b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n')
            time.sleep(0.2)
        until(lambda: metric(http, counted) == before + 1)
        assert "Traceback" not in server.log.read_text()

    def test_many_clients_at_once_get_200_or_503_and_nothing_else(self, http):
        def one(_):
            return http.post(
                "/v1/segment?model=slow&output=ids",
                content=file_of(ramp(100, 125)),
                headers={"Content-Type": "image/png"},
            )

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(one, range(24)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert {code_of(answer) for answer in refused} <= {(503, "overloaded"), (503, "waited_too_long")}
        assert all(answer.headers["retry-after"] for answer in refused)
        assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
        assert len(answers) - len(refused) >= ADMITTED

    def test_what_is_finished_of_a_list_when_the_time_is_up_is_answered(self, http):
        # 60 runs of some 12 GFLOP, which no core does in the 4 s, and label maps of 322 bytes, under the limit in all
        pictures = [file_of(np.zeros((500, 500, 3), np.uint8))] * 60
        asked = time.monotonic()
        answer = http.post("/v1/segment?model=slow&output=ids", files=[("image", picture) for picture in pictures])
        assert time.monotonic() - asked < 8
        ends = ends_of(answer)
        assert (ends[0], ends[-1]) == ("answered", "timeout")
        assert ends == sorted(ends)  # those that came first
        assert int(answer.headers["x-failed"]) == ends.count("timeout")

    def test_a_client_that_goes_away_stops_costing(self, server, http):
        until(lambda: metric(http, "fewpair_requests_admitted") == 0)
        before = metric(http, "fewpair_images_total")
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for number in range(30):
                archive.writestr(f"{number}.png", LONG)
        body = file.getvalue()
        with head(server, len(body), kind="application/zip") as connection:
            connection.sendall(body)
            until(lambda: metric(http, "fewpair_requests_admitted") == 1)
            time.sleep(0.3)
        until(lambda: metric(http, "fewpair_requests_admitted") == 0, seconds=15)
        time.sleep(1.5)
        assert metric(http, "fewpair_images_total") - before < 15, "of the 30, those that had begun"
        gone = 'fewpair_requests_total{endpoint="/v1/segment",method="POST",model="slow",status="499"}'
        until(lambda: metric(http, gone) >= 1)
        until_idle(http)


class TestRecords:
    def test_a_request_is_one_line_of_json_with_what_it_cost(self, server, http):
        photo = file_of(ramp())
        answer = http.post(
            "/v1/segment", content=photo, headers={"Content-Type": "image/png", "X-Request-ID": "find-me.1"}
        )
        assert answer.headers["x-request-id"] == "find-me.1"
        until(lambda: "find-me.1" in server.log.read_text())
        lines = [line for line in server.log.read_text().splitlines() if "find-me.1" in line]
        told = json.loads(lines[0])
        assert len(lines) == 1
        assert (told["endpoint"], told["method"], told["model"], told["status"]) == ("/v1/segment", "POST", "tiny", 200)
        assert (told["bytes_in"], told["bytes_out"]) == (len(photo), len(answer.content))
        assert set(told["stages"]) == {"wait", "decode", "run", "encode"}
        assert sum(told["stages"].values()) <= told["seconds"] + 0.01

    def test_an_id_that_would_break_a_log_is_replaced(self, server, http):
        for strange in ("two words", "x" * 65, "a\x7fb"):
            assert len(http.get("/v1/models", headers={"X-Request-ID": strange}).headers["x-request-id"]) == 32

    def test_all_that_the_workers_say_is_json_and_the_secret_is_nowhere(self, server, http):
        said = server.log.read_text()
        assert TOKEN not in said
        assert re.search("^  models  /", said, re.MULTILINE)
        after = said[said.index("Ready.") :].splitlines()
        assert all(json.loads(line) for line in after if line.startswith("{"))
        assert sum(line.startswith("{") for line in after) > 20

    def test_runs_and_their_sizes_are_counted(self, http):
        before, batches = metric(http, "fewpair_images_total"), metric(http, "fewpair_batch_size_count")
        http.post("/segment", files={"image": file_of(ramp())})
        assert metric(http, "fewpair_images_total") == before + 1
        assert metric(http, "fewpair_batch_size_count") == batches + 1


def test_one_picture_that_takes_longer_than_the_time_is_a_504(http):  # the last: its run goes on for a while
    huge = file_of(np.zeros((3000, 3000, 3), np.uint8))
    assert code_of(http.post("/segment", files={"image": huge}, data={"model": "slow"})) == (504, "timeout")


def test_a_public_server_needs_no_token_limits_each_client_and_keeps_nothing(tmp_path):
    write_model(tmp_path / "models" / "tiny")
    with (
        running_server(tmp_path / "models", tmp_path / "home", "--public", "--no-ui") as running,
        httpx.Client(base_url=running.url, timeout=30) as http,
    ):
        picture = {"content": file_of(ramp(16, 16)), "headers": {"Content-Type": "image/png"}}
        assert http.post("/v1/segment", **picture).status_code == 200
        answers = [http.post("/v1/segment")]
        while answers[-1].status_code == 415 and len(answers) < 1000:
            answers.append(http.post("/v1/segment"))
        assert len(answers) >= 60
        assert code_of(answers[-1]) == (429, "too_many_requests")
        assert http.get("/v1/models").status_code == 200
        other = {**picture["headers"], "X-Forwarded-For": "203.0.113.7"}
        assert http.post("/v1/segment", content=picture["content"], headers=other).status_code == 200
        time.sleep(int(answers[-1].headers["Retry-After"]))
        assert http.post("/v1/segment", **picture).status_code == 200
