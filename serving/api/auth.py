"""Host-name and bearer-token checks, and a rate limit for each client of a public server."""

from __future__ import annotations

import base64
import hmac
import math
from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network
from time import monotonic
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.middleware import error_response, path_of
from serving.errors import Refusal
from serving.telemetry.logging import HEALTH

LOOPBACK = ("127.0.0.1", "localhost")
RATE, BURST = 4.0, 60.0  # POST requests a second from a client, and how many may come at once
_BROWSER_PATHS = ("/ui", "/v1/docs", "/v1/openapi.json", "/static_content/")
_HINT = "Send `Authorization: Bearer TOKEN`; in a browser as the password, for `fewpair predict` in FEWPAIR_TOKEN."
_MOST_CLIENTS = 10_000  # whose buckets are kept; those that are full again are dropped beyond
_ADMIN = HTTPBearer(auto_error=False, scheme_name="adminToken", description="FEWPAIR_ADMIN_TOKEN, if there is one.")


class AllowedHosts(TrustedHostMiddleware):
    """Starlette's check of the Host header (against DNS rebinding), except for health probes, which use an address."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        probed = scope["type"] == "http" and path_of(scope) in HEALTH
        await (self.app if probed else super().__call__)(scope, receive, send)


class BearerTokens:
    """Requires one of the tokens for everything but health probes.

    Programs send `Authorization: Bearer TOKEN`. Browsers send it as a password (Basic), with any user
    name: so the page and the API's document work as they do without tokens.
    """

    def __init__(self, app: ASGIApp, tokens: Sequence[str]) -> None:
        self._app = app
        self._tokens = tuple(tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or path_of(scope) in HEALTH or self._knows(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        by_browser = path_of(scope) == "/" or path_of(scope).startswith(_BROWSER_PATHS)
        challenge = 'Basic realm="fewpair: the token is the password"' if by_browser else 'Bearer realm="fewpair"'
        message = "the request carries none of the tokens that this server requires."
        refusal = Refusal(401, "no_token", message, hint=_HINT, headers={"WWW-Authenticate": challenge})
        await error_response(refusal, scope)(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            origin = headers.get("origin")
            foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
            if foreign or headers.get("sec-fetch-site") == "cross-site":
                return False  # the browser adds the password to requests of any page
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except ValueError:
                return False
        elif scheme.lower() != "bearer":
            return False
        return _is_one_of(given.strip(), self._tokens)


class RateLimit:
    """Refuses POST requests (429) of a client that sends more than `RATE` a second for longer than `BURST` requests.

    A client is an IPv4 address or the first 64 bits of an IPv6 address: a network of 64 bits belongs to one user.
    Behind a proxy that FORWARDED_ALLOW_IPS names, uvicorn takes the address from X-Forwarded-For.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._full_at: dict[str, float] = {}  # client -> when its bucket is full again

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            wait = self._take(client_of((scope.get("client") or ("unknown", 0))[0]))
            if wait:
                hint = f"This server takes {RATE:g} requests a second from each client. Try again in {wait} s."
                headers = {"Retry-After": f"{wait}"}
                refusal = Refusal(429, "too_many_requests", "too many requests.", hint=hint, headers=headers)
                await error_response(refusal, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _take(self, client: str) -> int:
        """Take a token of the client; return 0, or the seconds until there is one, rounded up."""
        now = monotonic()
        if len(self._full_at) > _MOST_CLIENTS:
            self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
        full_at = max(now, self._full_at.get(client, now)) + 1 / RATE
        wait = full_at - now - BURST / RATE
        if wait > 0:
            return math.ceil(wait)
        self._full_at[client] = full_at
        return 0


def require_admin(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_ADMIN)]) -> None:
    """Raise Refusal where the server has no admin token, or the request does not carry it."""
    token = request.app.state.backend.settings.admin_token
    if token is None:
        hint = "Start it with FEWPAIR_ADMIN_TOKEN, or start it again for new models."
        raise Refusal(404, "no_admin", "this server was started without an admin token.", hint=hint)
    if given is None or not _is_one_of(given.credentials, [token.get_secret_value()]):
        hint = "Send it: curl -H 'Authorization: Bearer TOKEN'."
        headers = {"WWW-Authenticate": 'Bearer realm="fewpair admin"'}
        raise Refusal(401, "no_admin_token", "the request does not carry the admin token.", hint=hint, headers=headers)


def client_of(host: str) -> str:
    """Return what identifies a client: its IPv4 address, or its IPv6 network of 64 bits."""
    try:
        address = IPv6Address(host)
    except ValueError:  # an IPv4 address, or a name, as proxies may send
        return host
    return str(address.ipv4_mapped or IPv6Network((int(address), 64), strict=False))


def _is_one_of(given: str, tokens: Sequence[str]) -> bool:
    """Compare with every token, each in constant time."""
    return sum(hmac.compare_digest(given.encode(), token.encode()) for token in tokens) > 0
