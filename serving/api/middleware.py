"""Middleware around every endpoint: sub-path, request id and metrics, one error shape, limits of request bodies."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Mapping
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import Refusal
from serving.imaging.decode import too_many_bytes
from serving.telemetry.logging import log_request
from serving.telemetry.metrics import Metrics, start_trace

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_WRAPPING = 2**16  # bytes allowed beyond the limit for multipart headers and text fields
_SLOWEST = 2**20  # bytes a second that a body which declares its length may take beyond the body timeout
_SLOW_HINT = "Send a smaller one, or have the operator raise FEWPAIR_BODY_TIMEOUT."
_KEPT_HEADERS = ("allow", "content-range")  # of the headers of a plain error
_STATUS_ERRORS = {  # status -> code, message, hint
    400: ("wrong_host", "this server does not answer to the host name {host!r}.", "FEWPAIR_ALLOWED_HOSTS lists names."),
    404: ("not_found", "there is nothing at {path}.", "GET /v1/docs shows the API, GET /v1/models the models."),
    405: ("method_not_allowed", "{method} is not allowed at {path}.", "GET /v1/docs lists the methods of each URL."),
    416: (
        "no_such_range",
        "{path} has no bytes in the range that is asked for.",
        "Send bytes=FIRST-LAST, below its size.",
    ),
    500: ("internal", "the server failed to answer.", "Tell the operator the X-Request-ID: the log says more."),
    503: ("not_ready", "the server is not ready.", ""),
}

_UNREADABLE = ("bad_request", "the body sent to {path} cannot be read.", "Send JSON in UTF-8.")


def path_of(scope: Scope) -> str:
    """The path of a request below the root path."""
    return str(scope["path"]).removeprefix(scope.get("root_path", "")) or "/"


def error_response(refusal: Refusal, scope: Scope) -> JSONResponse:
    """A refusal in the shape of every error; under /v2 in that of the open inference protocol."""
    error = str(refusal) if f"{path_of(scope)}/".startswith("/v2/") else refusal.error
    return JSONResponse({"error": error}, status_code=refusal.status, headers=refusal.headers)


class RootPath:
    """Serves below a sub-path, whether or not the proxy strips it, and answers HEAD wherever GET is answered.

    With the root path `auto` it is what the proxy says in X-Forwarded-Prefix.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        root = self._root_path
        if root == "auto":
            root = Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/")
            root = root if _PREFIX.fullmatch(root) else ""
        path = re.sub(r"^https?://[^/]*", "", scope["path"])  # a proxy may send the whole URL
        changed = {"root_path": root, "path": path if path == root or path.startswith(f"{root}/") else root + path}
        if scope.get("method") == "HEAD":  # uvicorn, which keeps its own scope, sends no body
            changed["method"] = "GET"
        await self._app({**scope, **changed}, receive, send)


class RequestRecord:
    """Gives each request an id and a trace, and records in metrics and log how it was answered."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace, started = start_trace(scope["method"]), perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        trace.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = trace.request_id
                if trace.stages:
                    headers["Server-Timing"] = trace.server_timing()
            trace.bytes_out += len(message.get("body", b""))
            await send(message)

        async def counted() -> Message:
            message = await receive()
            trace.bytes_in += len(message.get("body", b""))
            return message

        try:
            await self._app(scope, counted, note)
        finally:
            trace.seconds = perf_counter() - started
            trace.endpoint = getattr(scope.get("route"), "path", None) or "other"
            self._metrics.count(trace)
            if self._log:
                log_request(trace)


class ErrorShape:
    """Turns the plain-text errors of BentoML and Starlette into {"error": {"code", "message", "hint"}}."""

    def __init__(self, app: ASGIApp, why_not_ready: Callable[[], str | None]) -> None:
        self._app = app
        self._why_not_ready = why_not_ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or path_of(scope).startswith("/ui/"):
            await self._app(scope, receive, send)
            return
        replaced = False

        async def reshape(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] >= 400:
                headers = Headers(raw=message["headers"])
                if not headers.get("content-type", "").startswith("application/json"):
                    replaced = True
                    response = error_response(self._refusal(message["status"], scope), scope)
                    response.headers.update({name: headers[name] for name in _KEPT_HEADERS if name in headers})
                    await response(scope, receive, send)
            if not replaced:
                await send(message)

        await self._app(scope, receive, reshape)

    def _refusal(self, status: int, scope: Scope) -> Refusal:
        headers = Headers(scope=scope)
        code, message, hint = _STATUS_ERRORS.get(status, _STATUS_ERRORS[500])
        if status == 400 and "route" in scope:  # the host was right
            code, message, hint = _STATUS_ERRORS[416] if "range" in headers else _UNREADABLE
        host, path = headers.get("host", "")[:200], path_of(scope)[:200]
        message = message.format(host=host, path=path, method=scope["method"])
        retry = {"Retry-After": "5"} if status == 503 else None
        return Refusal(status, code, (status == 503 and self._why_not_ready()) or message, hint=hint, headers=retry)


class RequestBody:
    """Bounds the body of a request in bytes and in seconds."""

    def __init__(self, app: ASGIApp, *, timeout: float, max_bytes: int, larger: Mapping[str, int]) -> None:
        self._app = app
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._larger = larger  # path -> its own limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        declared = headers.get("content-length", "0").strip()
        if declared == "0" and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(path_of(scope), self._max_bytes)
        length = int(declared) if declared.isdecimal() and len(declared) < 16 else 0
        seconds = self._timeout + length / _SLOWEST
        deadline: float | None = asyncio.get_running_loop().time() + seconds
        refusal = _unreadable(headers) or (too_many_bytes(limit) if length > limit + _WRAPPING else None)
        received, started = 0, False

        async def bounded() -> Message:
            nonlocal received, deadline, refusal
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                why = f"the request's body did not arrive within {seconds:g} s."
                refusal = Refusal(408, "slow_body", why, hint=_SLOW_HINT, headers={"Connection": "close"})
                raise refusal from None
            received += len(message.get("body", b""))
            if received > limit + _WRAPPING:
                refusal = too_many_bytes(limit)
                raise refusal
            if not message.get("more_body", False):
                deadline = None
            return message

        async def unless_refused(message: Message) -> None:
            nonlocal started
            if refusal is None or started:
                started = True
                await send(message)

        if refusal is None:
            try:
                await self._app(scope, bounded, unless_refused)
            except Exception:  # after a refusal: its consequence, as of a body cut short
                if refusal is None:
                    raise
        if refusal is not None and not started:
            await error_response(refusal, scope)(scope, receive, send)


def _unreadable(headers: Headers) -> Refusal | None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        message = f"the body is sent with the content coding {coding[:80]!r}."
        return Refusal(415, "unsupported_encoding", message, hint="Send it without a Content-Encoding.")
    if kind == "application/vnd.bentoml+pickle":  # which BentoML refuses in a shape of its own
        return Refusal(415, "unsupported_media_type", f"a body of the type {kind!r} is not read.", hint="Send a form.")
    return None
