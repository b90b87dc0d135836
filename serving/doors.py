"""Who may ask at all: the names the server answers to, and the tokens it was told to ask for."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import Refusal
from serving.hosts import answers_to
from serving.middleware import refuse
from serving.tokens import token_matches

HEALTH = frozenset({"/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready"})  # probes come without a token, by address
_BROWSER_PATHS = ("/ui", "/v1/docs", "/v1/openapi.json", "/static_content/")


class AllowedHosts:
    """Answers only requests addressed (Host) to one of the names; "*.example.org" stands for every name under it.

    Without it a page of a stranger whose name he points at this machine could ask in a visitor's browser (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = tuple(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] not in ("http", "websocket")
            or scope["path"] in HEALTH
            or answers_to(Headers(scope=scope).get("host", ""), self._hosts)
        ):
            await self._app(scope, receive, send)
            return
        refusal = Refusal(
            400,
            "wrong_host",
            "this server does not answer to the name it was asked by.",
            hint="Ask it by one of its names, or have the operator add this one to FEWPAIR_ALLOWED_HOSTS.",
        )
        await refuse(refusal, scope=scope, receive=receive, send=send)


class BearerTokens:
    """Asks everybody but health probes for one of the tokens.

    Programs send `Authorization: Bearer TOKEN`. A browser, which cannot, is asked for a password (Basic) and the token is one, whatever
    the user name: so the page and the API's document work as they do without.
    """

    def __init__(self, app: ASGIApp, tokens: Sequence[str]) -> None:
        self._app = app
        self._tokens = tuple(tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in HEALTH or self._knows(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        by_browser = scope["path"] == "/" or scope["path"].startswith(_BROWSER_PATHS)
        refusal = Refusal(
            401,
            "no_token",
            "the request carries none of the tokens that this server asks for.",
            hint="Send it: curl -H 'Authorization: Bearer TOKEN', or in a browser as the password, with any user name.",
            headers={"WWW-Authenticate": 'Basic realm="fewpair: the token is the password"' if by_browser else 'Bearer realm="fewpair"'},
        )
        await refuse(refusal, scope=scope, receive=receive, send=send)

    def _knows(self, headers: Headers) -> bool:
        given = headers.get("authorization")
        if given and given[:6].lower() == "basic ":
            if headers.get("sec-fetch-site") == "cross-site":  # a browser would add the password to whatever a stranger's page asks
                return False
            given = _as_bearer(given[6:])
        return token_matches(given, self._tokens)


def _as_bearer(encoded: str) -> str | None:
    try:
        _, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return f"Bearer {password}"
