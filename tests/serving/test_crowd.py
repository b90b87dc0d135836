"""A server put in front of strangers, over HTTP: who may ask, what a crowd gets, and what is written down. One process for all."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from serving.client import Client
from serving.errors import Refusal
from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.process import ROOT, environment, running_server
from tests.serving.slow import write_slow_model

TOKEN = "a-token-of-the-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
LONG = file_of(np.zeros((800, 900, 3), np.uint8))  # two thirds of a second of the slow model on two free cores, seconds on busy ones
ROOM = 4  # one runs, two are decoded ahead, one waits


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crowd")
    write_model(folder / "models" / "tiny")
    write_slow_model(folder / "models" / "slow", pytest.MonkeyPatch())
    (folder / "tokens.txt").write_text(f"{TOKEN}\nanother-token\n")
    (folder / "server.toml").write_text(
        'queue = 1\nbatch = 1\ntimeout = 4\nbody_timeout = 2\nmax_bytes = 1048576\nmax_answer_bytes = 20000\nlog = "json"\nui = false\n'
        'cors_origins = ["https://app.example"]\nallowed_hosts = ["127.0.0.1", "*.example.org"]\ntokens_file = "tokens.txt"\n'
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


def metric(http, name):
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def until(holds, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def head(server, length, *, kind="image/png", path="/v1/segment?model=slow"):
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {TOKEN}", f"Content-Type: {kind}"]
    connection.sendall("\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode())
    return connection


def status_of(connection):
    return int(connection.makefile("rb").readline().split()[1])


class TestDoors:
    def test_nobody_comes_in_without_a_token_but_health_probes(self, server):
        with httpx.Client(base_url=server.url) as stranger:
            for path in ("/v1/models", "/metrics", "/v1/docs", "/", "/nowhere"):
                assert code_of(stranger.get(path)) == (401, "no_token")
            refused = stranger.post("/segment", files={"image": file_of(ramp())}, headers={"Authorization": "Bearer a-token-of-the-tes"})
            assert code_of(refused) == (401, "no_token")
            assert refused.headers["www-authenticate"].startswith("Bearer")
            for path in ("/livez", "/readyz", "/healthz"):
                assert stranger.get(path).status_code == 200

    @pytest.mark.parametrize("token", [TOKEN, "another-token"])
    def test_each_token_opens_everything_as_bearer_and_as_a_browsers_password(self, server, token):
        for authorization in (f"Bearer {token}", "Basic " + base64.b64encode(f"anybody:{token}".encode()).decode()):
            with httpx.Client(base_url=server.url, headers={"Authorization": authorization}) as client:
                assert (
                    client.get("/v1/models").status_code == client.get("/metrics").status_code == client.get("/v1/docs").status_code == 200
                )

    def test_the_apis_document_locks_what_a_token_opens_and_nothing_else(self, http):
        document = http.get("/v1/openapi.json").json()
        needed = {path: of.get("security", document["security"]) for path, methods in document["paths"].items() for of in methods.values()}
        assert {path for path, security in needed.items() if not security} == {"/v2/health/live", "/v2/health/ready"}
        assert needed["/v1/segment"] == [{"token": []}, {"password": []}]
        assert needed["/v1/admin/reload"] == [{"adminToken": []}]
        assert document["components"]["securitySchemes"].keys() == {"token", "password", "adminToken"}

    def test_the_client_and_predict_bring_a_token(self, server, tmp_path):
        with Client(server.url, token=TOKEN) as client:
            assert [model["name"] for model in client.models()] == ["slow", "tiny"]
        with Client(server.url) as client, pytest.raises(Refusal, match="none of the tokens"):
            client.models()
        (tmp_path / "photo.png").write_bytes(file_of(ramp()))
        files = ("tiny", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), "--direction", "to_label")
        command = [sys.executable, "-m", "serving", "predict", *files, "--server", server.url]
        for token, answered in ((TOKEN, True), ("another-guess", False)):
            variables = environment(tmp_path, FEWPAIR_TOKEN=token)
            ended = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)
            assert (ended.returncode == 0) is answered, ended.stdout + ended.stderr
        assert ended.stderr.endswith("\nPut one into the variable FEWPAIR_TOKEN.\n")

    def test_a_browser_is_asked_for_the_password_and_does_not_lend_it_to_a_strangers_page(self, server):
        with httpx.Client(base_url=server.url, auth=("anybody", TOKEN)) as browser:
            assert httpx.get(f"{server.url}/v1/docs").headers["www-authenticate"].startswith("Basic")
            assert browser.get("/v1/models", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
            assert browser.get("/v1/models", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 401

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
        for name, status in (("evil.example", 400), ("a.example.org:3000", 200), ("example.org", 400), ("127.0.0.1:99", 200)):
            assert http.get("/v1/models", headers={"Host": name}).status_code == status
        assert code_of(http.get("/v1/models", headers={"Host": "evil.example"})) == (400, "wrong_host")
        assert http.get("/readyz", headers={"Host": "10.1.2.3"}).status_code == 200


class TestCrowd:
    def test_a_body_that_does_not_come_is_given_up_after_its_time_and_its_place_is_free(self, server, http):
        asked = time.monotonic()
        with head(server, 1000) as connection:
            until(lambda: metric(http, "fewpair_requests_inside") == 1)
            assert status_of(connection) == 408
        assert 1.5 < time.monotonic() - asked < 10
        until(lambda: metric(http, "fewpair_requests_inside") == 0)  # the answer is out a moment before the place is given back

    def test_who_comes_when_all_places_are_taken_is_refused_at_once_and_before_his_body(self, server, http):
        waiting = [head(server, 1000) for _ in range(ROOM)]
        until(lambda: metric(http, "fewpair_requests_inside") == ROOM)
        with head(server, 10**6) as late:  # of which not a byte is sent
            asked = time.monotonic()
            answer = late.makefile("rb")
            assert b" 503 " in answer.readline()
            assert time.monotonic() - asked < 3  # and not after a turn, or a body, that does not come
            assert b"retry-after: 1\r\n" in [answer.readline().lower() for _ in range(8)]
        assert http.get("/v1/models").status_code == 200  # what has no body has no place to wait for
        for connection in waiting:
            connection.close()
        until(lambda: metric(http, "fewpair_requests_inside") == 0)
        assert http.post("/segment", files={"image": file_of(ramp())}).status_code == 200

    @pytest.mark.parametrize("path", ["/segment", "/v1/segment"])
    def test_who_leaves_in_the_middle_of_his_body_is_no_failure_of_the_server(self, server, http, path):
        counted = f'fewpair_requests_total{{endpoint="{path}",method="POST",model="none",status="400"}}'
        before = metric(http, counted)
        with head(server, 1000, path=path, kind="multipart/form-data; boundary=x") as connection:
            connection.sendall(b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n')
            until(lambda: metric(http, "fewpair_requests_inside") == 1)
        until(lambda: metric(http, counted) == before + 1)
        assert "Traceback" not in server.log.read_text()

    @pytest.mark.parametrize("way", ["full", "no token", "too large"])
    def test_who_is_refused_while_he_sends_a_large_body_and_closes_still_hears_why(self, server, http, way):
        waiting = [head(server, 1000) for _ in range(ROOM if way == "full" else 0)]
        until(lambda: metric(http, "fewpair_requests_inside") == len(waiting))
        token = {} if way == "no token" else {"Authorization": f"Bearer {TOKEN}"}
        sent = {"Connection": "close", "Content-Type": "image/png", **token}

        async def crowd():
            async with httpx.AsyncClient(headers=sent, limits=httpx.Limits(max_connections=ROOM - 1)) as client:
                asked = (client.post(f"{server.url}/v1/segment", content=bytes(20_000_000)) for _ in range(8))
                return {answer.status_code for answer in await asyncio.gather(*asked)}

        assert asyncio.run(crowd()) == {{"full": 503, "no token": 401, "too large": 413}[way]}
        for connection in waiting:
            connection.close()
        until(lambda: metric(http, "fewpair_requests_inside") == 0)

    def test_a_crowd_is_answered_or_refused_and_nothing_else(self, http):
        def one(_):
            return http.post("/v1/segment?model=slow&output=ids", content=file_of(ramp(200, 250)), headers={"Content-Type": "image/png"})

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(one, range(24)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert {code_of(answer) for answer in refused} <= {(503, "overloaded"), (503, "waited_too_long")}
        assert all(answer.headers["retry-after"] for answer in refused)
        assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
        assert len(answers) - len(refused) >= ROOM

    def test_what_is_finished_of_a_list_when_the_time_is_up_is_answered(self, http):
        pictures = [base64.b64encode(LONG).decode()] * 12
        asked = time.monotonic()
        answer = http.post("/v1/segment?model=slow", json={"images": pictures})
        assert time.monotonic() - asked < 8
        entries = answer.json()["answers"]
        ends = [entry.get("error", {}).get("code", "answered") for entry in entries]
        assert ends[0] == "answered"
        assert ends[-1] == "timeout"
        assert ends == sorted(ends)  # those that came first
        assert int(answer.headers["x-failed"]) == ends.count("timeout")

    def test_answers_over_their_limit_in_bytes_end_the_list_and_not_the_server(self, http):
        noise = file_of(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8))
        answer = http.post("/v1/segment?output=confidence", json={"images": [base64.b64encode(noise).decode()] * 4})
        ends = [entry.get("error", {}).get("code", "answered") for entry in answer.json()["answers"]]
        assert ends == ["answered", *["too_many_answer_bytes"] * 3]

    def test_a_client_that_goes_away_stops_costing(self, server, http):
        until(lambda: metric(http, "fewpair_requests_inside") == 0)
        before = metric(http, "fewpair_images_total")
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for number in range(30):
                archive.writestr(f"{number}.png", LONG)
        body = file.getvalue()
        with head(server, len(body), kind="application/zip") as connection:
            connection.sendall(body)
            until(lambda: metric(http, "fewpair_requests_inside") == 1)
            time.sleep(0.3)
        until(lambda: metric(http, "fewpair_requests_inside") == 0, seconds=15)
        time.sleep(1.5)
        assert metric(http, "fewpair_images_total") - before < 15, "of the 30, those that had begun"
        gone = 'fewpair_requests_total{endpoint="/v1/segment",method="POST",model="slow",status="499"}'
        until(lambda: metric(http, gone) >= 1)


class TestRecords:
    def test_a_request_is_one_line_of_json_with_what_it_cost(self, server, http):
        photo = file_of(ramp())
        answer = http.post("/v1/segment", content=photo, headers={"Content-Type": "image/png", "X-Request-ID": "find-me.1"})
        assert answer.headers["x-request-id"] == "find-me.1"
        until(lambda: "find-me.1" in server.log.read_text())
        lines = [line for line in server.log.read_text().splitlines() if "find-me.1" in line]
        told = json.loads(lines[0])
        assert len(lines) == 1
        assert (told["endpoint"], told["method"], told["model"], told["status"]) == ("/v1/segment", "POST", "tiny", 200)
        assert (told["bytes_in"], told["bytes_out"]) == (len(photo), len(answer.content))
        assert set(told["stages"]) == {"wait", "decode", "batch", "run", "encode"}
        assert sum(told["stages"].values()) <= told["seconds"] + 0.01

    def test_an_id_that_would_break_a_log_is_replaced(self, server, http):
        for strange in ("two words", "x" * 65, "a\x7fb"):
            assert len(http.get("/v1/models", headers={"X-Request-ID": strange}).headers["x-request-id"]) == 32

    def test_all_that_the_workers_say_is_json_and_the_secret_is_nowhere(self, server):
        said = server.log.read_text()
        assert TOKEN not in said
        after = said[said.index("Ready.") :].splitlines()
        assert all(json.loads(line) for line in after if line.startswith("{"))
        assert sum(line.startswith("{") for line in after) > 20

    def test_runs_and_their_sizes_are_counted(self, http):
        before, batches = metric(http, "fewpair_images_total"), metric(http, "fewpair_batch_size_count")
        http.post("/segment", files={"image": file_of(ramp())})
        assert metric(http, "fewpair_images_total") == before + 1
        assert metric(http, "fewpair_batch_size_count") == batches + 1

    def test_where_each_setting_came_from_is_printed_and_secrets_are_not(self, server):
        said = server.log.read_text()
        assert "queue" in said
        assert "(queue in " in said
        assert "2 hidden  (tokens_file in " in said
        assert "(--models)" in said
        assert "(default)" in said


def test_one_picture_that_takes_longer_than_the_time_is_a_504(http):  # the last: its run goes on for a while
    huge = file_of(np.zeros((3000, 3000, 3), np.uint8))
    assert code_of(http.post("/segment", files={"image": huge}, data={"model": "slow"})) == (504, "timeout")
