"""A server with the shipped models and one that reads styles, and a real Chromium that opens its page."""

from __future__ import annotations

import contextlib
import shutil

import pytest

from tests.serving.factory import write_model
from tests.serving.process import ROOT, running_server

NAMES = ("chromium", "chromium-browser", "google-chrome")  # tests/conftest.py skips, or fails, where there is none
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def page_server(tmp_path_factory):
    models = tmp_path_factory.mktemp("models") / "exported"
    shutil.copytree(ROOT / "exported", models)
    write_model(models / "painter-with-style", directions=("to_photo",), style=True, examples=True)
    with running_server(models, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")  # while it is open, Playwright keeps an event loop that later tests would trip over
def browser():
    executable = next(path for name in NAMES if (path := shutil.which(name)))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_page(browser, page_server):
    """Open the page as a new visitor; a script that fails, or a request for another place, fails the test."""

    @contextlib.contextmanager
    def open_page(where: str = "", url: str = page_server.url, **options):
        context = browser.new_context(**{**DESKTOP, **options})
        page = context.new_page()
        page.set_default_timeout(60_000)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((f"{url}/", "data:", "blob:")) else errors.append(request.url)
            ),
        )
        page.goto(f"{url}/ui/{where}")
        page.wait_for_selector("[data-state=current]", timeout=120_000)
        yield page
        context.close()
        assert not errors

    return open_page


@pytest.fixture(scope="module")
def page(open_page):
    """One page for the tests that need no new visitor."""
    with open_page() as page:
        yield page
