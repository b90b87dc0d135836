"""Host-name and bearer-token checks."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.middleware import error_response, path_of
from serving.errors import Refusal

HEALTH = frozenset({"/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready"})
LOOPBACK = ("127.0.0.1", "localhost")
_BROWSER_PATHS = ("/ui", "/v1/docs", "/v1/openapi.json", "/static_content/")
_TOKEN_HINT = (
    "Send `Authorization: Bearer TOKEN`; in a browser as the password, for `fewpair predict` in FEWPAIR_TOKEN."
)
_ADMIN = HTTPBearer(auto_error=False, scheme_name="adminToken", description="FEWPAIR_ADMIN_TOKEN, if there is one.")


class AllowedHosts(TrustedHostMiddleware):
    """Starlette's check of the Host header (against DNS rebinding), except for health probes, which use an address."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and path_of(scope) in HEALTH:
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class BearerTokens:
    """Requires one of the tokens for everything but health probes.

    Programs send `Authorization: Bearer TOKEN`. A browser is asked for a password (Basic), which is the token, with any
    user name: so the page and the API's document work as they do without tokens.
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
        message = "the request carries none of the tokens that this server asks for."
        refusal = Refusal(401, "no_token", message, hint=_TOKEN_HINT, headers={"WWW-Authenticate": challenge})
        await error_response(refusal, scope)(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            if headers.get("sec-fetch-site") == "cross-site":  # the browser adds the password to requests of any page
                return False
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except ValueError:
                return False
        elif scheme.lower() != "bearer":
            return False
        return _is_one_of(given.strip(), self._tokens)


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


def _is_one_of(given: str, tokens: Sequence[str]) -> bool:
    """Compare with every token, each in constant time."""
    return sum(hmac.compare_digest(given.encode(), token.encode()) for token in tokens) > 0
