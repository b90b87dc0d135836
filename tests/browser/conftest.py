"""A server with the page, and a real Chromium that opens it."""

from __future__ import annotations

import shutil

import pytest

from tests.serving.factory import write_model
from tests.serving.process import running_server

NAMES = ("chromium", "chromium-browser", "google-chrome")  # tests/conftest.py skips, or fails, where there is none
ADMIN = {"Authorization": "Bearer the-operators-own"}
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def page_server(folder, tmp_path_factory):
    write_model(folder / "tiny")
    write_model(folder / "other", noise=False, resize={"rule": "exact", "height": 32, "width": 48, "filter": "bicubic"})
    variables = {"FEWPAIR_ADMIN_TOKEN": ADMIN["Authorization"].removeprefix("Bearer ")}
    with running_server(folder, tmp_path_factory.mktemp("server"), "--default-model", "tiny", **variables) as running:
        yield running


@pytest.fixture(scope="module")  # while it is open, Playwright keeps an event loop that later tests would trip over
def browser():
    executable = next(path for name in NAMES if (path := shutil.which(name)))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, page_server):
    """The page, opened as a new visitor sees it; a script that fails or a call to anybody else fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    strangers: list[str] = []
    page.on(
        "request", lambda request: None if request.url.startswith((page_server.url, "data:", "blob:")) else strangers.append(request.url)
    )
    page.goto(f"{page_server.url}/ui/")
    page.wait_for_selector("#segment", timeout=120_000)  # until then the page says that it is being prepared
    yield page
    context.close()
    assert not complaints
    assert not strangers, "the page asks others for something"
