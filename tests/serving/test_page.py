"""The page's address while there is no page: a sentence that comes again until there is something to show."""

import asyncio

from fastapi import FastAPI

from serving import page
from serving.page import LatePage


async def asked(app):
    """Status and text of GET /ui/."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "GET", "path": "/ui/", "root_path": "/ui", "headers": [], "query_string": b""}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


def test_a_page_without_models_says_so_and_opens_when_a_reload_brings_one(monkeypatch):
    there = []
    built = FastAPI()
    built.get("/ui/")(lambda: "the page")
    monkeypatch.setattr(page, "_EACH", 0.01)
    monkeypatch.setattr(page, "_build", lambda operations: built)

    async def visit():
        late = LatePage(lambda: there[0] if there else None)
        async with late.opening():
            await asyncio.sleep(0.05)
            before = await asked(late)
            there.append(object())
            async with asyncio.timeout(10):
                while (after := await asked(late))[0] != 200:
                    await asyncio.sleep(0.01)
        return before, after, await asked(late)

    before, after, closed = asyncio.run(visit())
    assert before[0] == 503
    assert "No model can be served" in before[1]
    assert after == (200, '"the page"')
    assert closed[0] == 503


def test_a_server_that_stops_does_not_wait_for_a_page_that_never_came(monkeypatch):
    monkeypatch.setattr(page, "_EACH", 3600)

    async def stopped():
        async with asyncio.timeout(10), LatePage(lambda: None).opening():
            await asyncio.sleep(0.01)

    asyncio.run(stopped())
