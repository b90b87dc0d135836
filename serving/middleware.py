"""What stands around every endpoint: request ids, timing and metrics, one error shape, and the limits on bodies."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import Refusal
from serving.imaging import too_many_bytes
from serving.logs import write_down
from serving.metrics import Metrics, Trace, endpoint_of, follow, method_of
from serving.traces import trace_id

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CODES = {
    400: "bad_request", 401: "no_token", 404: "not_found", 405: "method_not_allowed", 406: "not_acceptable", 408: "slow_body",
    413: "too_large", 415: "unsupported_media_type", 422: "bad_request",
    429: "too_many_requests", 500: "internal", 503: "not_ready", 504: "timeout",
}  # fmt: skip
_MESSAGES = {
    404: ("there is nothing at {path}.", "POST /segment and /synthesize translate; GET /v1/models lists the models, GET /v1/docs the API."),
    405: ("{method} is not how {path} is asked.", "GET /v1/docs shows how each address is used."),
    500: ("the server failed to answer; its log says more.", "Try again, and tell the operator the X-Request-ID if it stays."),
}


class Record:
    """Gives each request an id and a trace, and notes how it was answered."""

    def __init__(self, app: ASGIApp, metrics: Callable[[], Metrics | None]) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        trace = Trace(trace_id=trace_id())
        follow(trace)
        started = perf_counter()
        status = 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                if trace.stages:
                    headers["Server-Timing"] = trace.server_timing()
            trace.bytes_out += len(message.get("body", b""))
            await send(message)

        async def weighed() -> Message:
            message = await receive()
            trace.bytes_in += len(message.get("body", b""))
            return message

        try:
            await self._app(scope, weighed, note)
        finally:
            metrics, seconds = self._metrics(), perf_counter() - started
            path, method = scope["path"], method_of(scope["method"])
            if metrics is not None:
                metrics.count(trace, path=path, method=method, status=status, seconds=seconds)
            write_down(trace, request_id=request_id, endpoint=endpoint_of(path), path=path, method=method, status=status, seconds=seconds)


class OneErrorShape:
    """Turns whatever a 4xx or 5xx says into {"error": {"code", "message", "hint"}}, under /v2 into {"error": "..."}.

    The page's own traffic is left alone.
    """

    def __init__(self, app: ASGIApp, why_not_ready: Callable[[], str | None], *, page: bool) -> None:
        self._app = app
        self._page = page
        self._why_not_ready = why_not_ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (self._page and scope["path"].startswith("/ui/")):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def reshape(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
                return
            if start is None:
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_error(start, body, scope=scope, send=send)

        await self._app(scope, receive, reshape)

    async def _send_error(self, start: Message, body: bytes, *, scope: Scope, send: Send) -> None:
        shaped: dict[str, Any] = self._shape(start["status"], _parsed(body), scope=scope)
        if scope["path"] == "/v2" or scope["path"].startswith("/v2/"):  # the open inference protocol has errors of one sentence
            shaped = {"error": f"{shaped['error']['message']} {shaped['error']['hint']}".strip()}
        response = JSONResponse(shaped, status_code=400 if start["status"] == 422 else start["status"])
        kept = [(name, value) for name, value in start["headers"] if name.lower() not in (b"content-length", b"content-type")]
        await send({**start, "status": response.status_code, "headers": [*kept, *response.raw_headers]})
        await send({"type": "http.response.body", "body": response.body})

    def _shape(self, status: int, content: Any, *, scope: Scope) -> dict[str, Any]:
        if isinstance(content, dict) and isinstance(content.get("error"), dict):
            return content
        code = _CODES.get(status, "error")
        not_ready = self._why_not_ready()
        if scope["path"] == "/readyz" and not_ready is not None:
            return Refusal(status, "not_ready", not_ready, hint="Mend the models folder and start the server again.").body()
        if status in _MESSAGES:
            message, hint = _MESSAGES[status]
            return Refusal(status, code, message.format(path=scope["path"][:200], method=scope["method"]), hint=hint).body()
        return Refusal(status, code, _sentence(content), hint="GET /v1/docs shows how each address is used.").body()


class BodyLimit:
    """Refuses bodies over the limit: by their declared length before reading, otherwise as soon as they grow over it."""

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger  # path to its own limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._larger.get(scope["path"], self._max_bytes)
        allowed = most + 2**16  # the multipart wrapping and the text fields
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > allowed:
            await refuse(too_many_bytes(most), scope=scope, receive=receive, send=send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > allowed:
                raise too_many_bytes(most)
            return message

        await answer_refusals(self._app, scope, counted, send=send)


async def refuse(refusal: Refusal, *, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a refusal."""
    await JSONResponse(refusal.body(), status_code=refusal.status, headers=refusal.headers)(scope, receive, send)


async def answer_refusals(app: ASGIApp, scope: Scope, receive: Receive, *, send: Send) -> None:
    """Run the app; where reading its body raised a Refusal, that is the answer, whatever the app made of it."""
    refusal: Refusal | None = None
    answered = False

    async def watched() -> Message:
        nonlocal refusal
        try:
            return await receive()
        except Refusal as error:
            refusal = error
            raise

    async def replaced(message: Message) -> None:
        nonlocal answered
        if refusal is None:
            await send(message)
        elif not answered:
            answered = True
            await refuse(refusal, scope=scope, receive=receive, send=send)

    try:
        await app(scope, watched, replaced)
    except Refusal:
        if not answered and refusal is not None:
            await refuse(refusal, scope=scope, receive=receive, send=send)


class QuietRefusals(logging.Filter):
    """Keeps tracebacks of clients' mistakes out of the log: BentoML logs every exception it turns into a 4xx."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, Refusal) or type(error).__name__ == "ValidationError")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def _sentence(content: Any) -> str:
    """What BentoML, FastAPI and Starlette say in their several shapes, as one sentence."""
    if isinstance(content, list) and content:
        content = content[0]
    if isinstance(content, Mapping):
        details = content.get("detail")
        if isinstance(details, list):
            return "; ".join(_detail(detail) for detail in details)[:1000] + "."
        content = details or content.get("error") or content
    return str(content)[:1000].strip() or "the request was refused."


def _detail(detail: Any) -> str:
    if not isinstance(detail, Mapping):
        return str(detail)
    if "Expected UploadFile" in str(detail.get("msg")):
        return f"{detail.get('loc', ['image'])[-1]}: holds text, not a file"
    where = ".".join(str(part) for part in detail.get("loc", ()) if part not in ("body", "query", "path"))
    return f"{where}: {detail.get('msg', 'is wrong')}" if where else str(detail.get("msg", "is wrong"))
