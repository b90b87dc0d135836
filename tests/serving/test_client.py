"""The typed client speaks with a real server and raises its words."""

import asyncio
import contextlib
import http.server
import inspect
import json
import threading
import time

import numpy as np
import pytest

from serving.client import AsyncClient, Client
from serving.errors import Refusal
from tests.serving.pictures import file_of, pixels_of, ramp, stripes
from tests.serving.test_translator import brightness_ids


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


def test_it_lists_segments_and_synthesizes(client, tmp_path):
    assert {model["name"] for model in client.models()} == {"tiny", "123", "labels-only", "views"}
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


@pytest.mark.parametrize("address", ["127.0.0.1:3000", "localhost:3000"])
def test_an_address_without_http_is_told_to_want_it_in_front(address):
    with Client(address) as client, pytest.raises(Refusal) as refused:
        client.models()
    assert str(refused.value) == f"{address} does not begin with http://. Put it in front: http://{address}"


def test_it_gives_outlines_boxes_and_the_legend(client):
    annotations = client.polygons(file_of(ramp()), min_area=10)["annotations"]
    assert sorted(row["category_id"] for row in annotations) == [0, 1, 2]
    assert client.report(file_of(ramp()), min_area=10)["regions_found"] == 3
    assert pixels_of(client.legend("tiny")).ndim == 3


def test_of_several_pictures_one_that_is_broken_is_told_and_the_others_come(client, tmp_path):
    path = tmp_path / "street.jpg"
    path.write_bytes(file_of(ramp()))
    whole, broken, again = client.segment_each([path, b"not an image", file_of(ramp())], output="ids")
    assert (whole.name, broken.name, again.name) == ("street.jpg", "image-2", "image-3")
    assert whole.file == again.file == client.segment(path, output="ids")
    assert (broken.file, broken.error.code) == (None, "not_an_image")
    (figures,) = client.segment_each([path], output="json")
    assert json.loads(figures.file) == client.report(path)
    first, second = client.synthesize_each([file_of(stripes())] * 2, seed=4, format="png")
    assert first.file == second.file == client.synthesize(file_of(stripes()), seed=4, format="png").photo
    assert (first.seed, second.seed) == (4, 4)


def test_an_address_is_left_to_the_server_which_refuses_it_here(client):
    with pytest.raises(Refusal) as caught:
        client.segment("http://localhost/a.png")
    assert caught.value.code == "address_not_public"
    refused, whole = client.segment_each(["https://example.org/a.png", file_of(ramp())])
    assert refused.error.code == "host_not_allowed"
    assert whole.file == client.segment(file_of(ramp()))


def test_it_raises_the_servers_own_words(client):
    with pytest.raises(Refusal) as caught:
        client.segment(b"not an image")
    assert (caught.value.status, caught.value.code) == (400, "not_an_image")
    assert "PNG, JPEG" in caught.value.hint


def test_a_server_that_is_not_there_is_a_sentence_too():
    with pytest.raises(Refusal, match="does not answer"):
        Client("http://127.0.0.1:9").models()


def test_awaited_it_gives_the_same(server, client):
    photo, label = file_of(ramp()), file_of(stripes())

    async def everything():
        async with AsyncClient(server.url) as fewpair:
            return await asyncio.gather(
                fewpair.models(),
                fewpair.model("tiny"),
                fewpair.legend("tiny"),
                fewpair.segment(photo),
                fewpair.report(photo, min_area=10),
                fewpair.polygons(photo),
                fewpair.segment_each([photo, photo]),
                fewpair.synthesize(label, seed=4),
                fewpair.synthesize_several(label, seed=4, count=2),
                fewpair.synthesize_each([label], seed=4),
            )

    assert asyncio.run(everything()) == [
        client.models(),
        client.model("tiny"),
        client.legend("tiny"),
        client.segment(photo),
        client.report(photo, min_area=10),
        client.polygons(photo),
        client.segment_each([photo, photo]),
        client.synthesize(label, seed=4),
        client.synthesize_several(label, seed=4, count=2),
        client.synthesize_each([label], seed=4),
    ]


def test_awaited_and_not_it_can_do_the_same():
    def offered(kind):
        signatures = {name: inspect.signature(value) for name, value in vars(kind).items() if not name.startswith("_")}
        return {name: list(signature.parameters.values()) for name, signature in signatures.items()}

    assert offered(Client) == offered(AsyncClient)


@contextlib.contextmanager
def full_at_first(refusals):
    """A server that refuses so often, and says when to come back, before it lists its models; and the times it was asked."""
    asked = []

    class Full(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(time.monotonic())
            full = len(asked) <= refusals
            body = json.dumps({"error": {"code": "overloaded", "message": "full.", "hint": ""}} if full else {"models": []}).encode()
            self.send_response(503 if full else 200)
            self.send_header("Content-Length", str(len(body)))
            if full:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *told):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Full) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_a_full_server_is_asked_again_when_it_says_so_as_long_as_the_patience_lasts():
    with full_at_first(1) as (url, asked), Client(url, patience=5) as client:
        assert client.models() == []
    assert 1 <= asked[1] - asked[0] < 2
    with full_at_first(9) as (url, asked), Client(url, patience=0.9) as client:
        with pytest.raises(Refusal, match="full") as caught:
            client.models()
        assert (len(asked), caught.value.headers) == (1, {"Retry-After": "1"})


def test_the_awaited_client_is_as_patient_and_without_patience_nobody_is():
    async def listed(url, **patience):
        async with AsyncClient(url, **patience) as client:
            return await client.models()

    with full_at_first(1) as (url, asked):
        assert asyncio.run(listed(url, patience=5)) == []
        assert len(asked) == 2
    with full_at_first(1) as (url, asked), pytest.raises(Refusal, match="full"):
        asyncio.run(listed(url))
