"""The forms in which clients send a request: old and odd forms, HEAD, content codings, and a proxy's sub-path."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from serving.api.middleware import ErrorShape
from serving.app import create_app, middleware, respond_to_error
from serving.models.repository import EMPTY, reload_repository
from serving.settings import Settings
from serving.telemetry.metrics import Metrics
from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.test_server import error_of, segment

PHOTO = file_of(ramp(), "JPEG", quality=100)


def form(disposition, *, content=PHOTO, kind=b"multipart/form-data; boundary=B"):
    body = b"--B\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n--B--\r\n" % (disposition, content)
    return {"content": body, "headers": {"content-type": kind.decode()}}


@pytest.mark.parametrize("face", ["", "/v1"])
@pytest.mark.parametrize(
    "disposition",
    [
        b'name="image"; filename=""',
        "name=image; filename=道路.jpg".encode(),
        'name="image"; filename="{}.jpg"'.format("路" * 100).encode(),
        b'name="image"; filename="Stra\xdfe.jpg"',
        b'name="image"; filename="%s"' % ("é".encode() * 130),
        b'name="image"; filename="a\0.png"',
    ],
)
def test_a_file_is_read_whatever_its_name(http, face, disposition):
    assert http.post(f"{face}/segment", **form(disposition)).content == segment(http, face, PHOTO).content


def test_a_picture_that_is_sent_as_text_is_refused_with_the_way_to_send_it(http):
    error = error_of(http.post("/v1/segment", **form(b'name="image"')), 400)
    assert error["message"] == "the field 'image' holds no file."
    assert "curl -F image=@street.jpg" in error["hint"]
    for name in (b'name="image"', b"name=\"image\"; filename*=UTF-8''a.jpg"):
        error = error_of(http.post("/v1/segment", **form(name, content=bytes(100_000))), 400)
        assert error["message"] == "a field without a file name is over 64 KiB."


def test_media_types_are_read_in_any_letter_case(http):
    whole = segment(http, "/v1", PHOTO).content
    sent = form(b'name="image"; filename="a.jpg"', kind=b"MULTIPART/Form-Data; charset=UTF-8; boundary=B")
    assert http.post("/segment", **sent).content == whole
    bare = http.post("/v1/segment", content=PHOTO, headers={"content-type": "IMAGE/JPEG; a=b"})
    assert bare.content == whole


@pytest.mark.parametrize("path", ["/segment", "/v1/segment", "/v2/models/tiny.to_label/infer"])
def test_a_content_coding_is_refused_by_its_name(http, path):
    refused = http.post(path, content=b"x", headers={"content-encoding": "gzip", "content-type": "image/png"})
    assert refused.status_code == 415
    assert "content coding 'gzip'" in refused.text


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models", "/metrics", "/v2"])
def test_head_is_answered_as_get_without_its_body(http, path):
    answer = http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == http.get(path).headers["content-type"]


@pytest.fixture(scope="module")
def one_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("one") / "tiny").parent


def get(models, path, root_path="", **headers):
    """The answer of the app with its middleware, without a server around it."""
    app = create_app(Settings(models=models, device="cpu", ui=False, root_path=root_path))
    app.state.backend.models = reload_repository(EMPTY, app.state.settings)
    stack = app
    for kind, parameters in reversed(middleware(app)):
        stack = kind(stack, **parameters)

    async def ask():
        transport = httpx.ASGITransport(stack)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


def test_metrics_are_rendered_outside_of_the_event_loop(one_model, monkeypatch):
    threads = []
    monkeypatch.setattr(Metrics, "render", lambda _: threads.append(threading.current_thread()) or b"none")
    assert get(one_model, "/metrics").text == "none"
    assert threads != [threading.main_thread()]


class TestRootPath:
    @pytest.mark.parametrize("path", ["/sub/v1/openapi.json", "/v1/openapi.json"])
    def test_the_api_is_served_below_it_whether_or_not_the_proxy_strips_it(self, one_model, path):
        assert get(one_model, path, "/sub/").json()["servers"] == [{"url": "/sub"}]

    def test_redirects_and_documentation_stay_below_it(self, one_model):
        assert get(one_model, "/", "/sub").headers["location"] == "/sub/v1/docs"
        assert "'/sub/v1/openapi.json'" in get(one_model, "/v1/docs", "/sub").text
        assert get(one_model, "/v1/models/", "/sub").headers["location"] == "http://server/sub/v1/models"

    def test_auto_takes_the_proxy_s_header_and_nothing_but_a_path(self, one_model):
        for prefix, url in (("/sub", "/sub"), ("/a/b/", "/a/b"), ("//evil.example", "/"), ("sub", "/")):
            headers = {"X-Forwarded-Prefix": prefix}
            assert get(one_model, "/v1/openapi.json", "auto", **headers).json()["servers"] == [{"url": url}]
        headers = {"X-Forwarded-Prefix": "/sub"}
        assert get(one_model, "/v1/openapi.json", **headers).json()["servers"] == [{"url": "/"}]


@pytest.mark.parametrize("body", [b'"\xff"', b"[" * 100_000, b"1" * 5000])
def test_json_that_cannot_be_read_is_no_wrong_host(body):
    app = FastAPI()
    app.add_exception_handler(HTTPException, respond_to_error)

    @app.post("/numbers")
    async def numbers(_: list[int]) -> None: ...

    async def send():
        transport = httpx.ASGITransport(ErrorShape(app, lambda: None))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/numbers", content=body, headers={"Content-Type": "application/json"})

    answer = asyncio.run(send())
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "bad_request")
    assert error["message"] == "the body sent to /numbers cannot be read."
