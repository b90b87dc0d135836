"""The last resort against requests without an answer: it answers, it lets be what has begun, and it leaves nothing behind."""

import asyncio
from types import SimpleNamespace

import httpx
import pytest
from bentoml._internal.server.base_app import BaseAppFactory
from starlette.responses import PlainTextResponse, StreamingResponse

from serving.lastresort import LastResort, install


async def quick(scope, receive, send):
    await PlainTextResponse("here")(scope, receive, send)


async def never(scope, receive, send):
    await asyncio.sleep(60)


async def slow_end(scope, receive, send):
    async def parts():
        yield b"begun, "
        await asyncio.sleep(0.2)
        yield b"and ended"

    await StreamingResponse(parts())(scope, receive, send)


def get(app, *, timeout, times=1):
    """The last answer, and how many timers of the loop are set after it."""

    async def asked():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(LastResort(app, timeout)), base_url="http://here") as client:
            for _ in range(times):
                answer = await client.get("/")
        return answer, [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]

    return asyncio.run(asked())


def test_an_answered_request_leaves_no_timer_behind_that_would_keep_it_in_memory():
    answer, timers = get(quick, timeout=600, times=50)
    assert (answer.text, timers) == ("here", [])


def test_who_is_not_answered_in_time_hears_so():
    answer, timers = get(never, timeout=0.05)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert "0.05 s" in answer.json()["error"]["message"]
    assert timers == []


def test_an_answer_that_has_begun_may_take_its_time():
    answer, timers = get(slow_end, timeout=0.05)
    assert (answer.status_code, answer.text) == (200, "begun, and ended")
    assert timers == []


def test_a_timeout_of_the_app_itself_is_not_taken_for_it():
    async def times_out(scope, receive, send):
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        get(times_out, timeout=60)


def test_bentoml_puts_it_around_every_app():
    install()
    (middleware,) = BaseAppFactory.middlewares.fget(SimpleNamespace(timeout=5, max_concurrency=None))
    assert (middleware.cls, middleware.kwargs) == (LastResort, {"timeout": 5})
