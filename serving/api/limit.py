"""A rate limit for each client of a public server: a token bucket."""

from __future__ import annotations

import math
from ipaddress import IPv6Address, IPv6Network, ip_address
from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.middleware import error_response
from serving.errors import Refusal

RATE, BURST = 4.0, 60.0  # requests a second, and how many may come at once
_MOST_CLIENTS = 10_000  # whose buckets are kept; those that are full again are dropped beyond


class RateLimit:
    """Refuses POST requests (429) of a client that sends more than `RATE` a second for longer than `BURST` requests.

    A client is an IPv4 address or the first 64 bits of an IPv6 address: a network of 64 bits belongs to one user.
    Behind a proxy that FORWARDED_ALLOW_IPS names, uvicorn takes the address from X-Forwarded-For.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._buckets: dict[str, tuple[float, float]] = {}  # client -> tokens, and the time of that count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            wait = self._take(client_of((scope.get("client") or ("unknown", 0))[0]))
            if wait:
                headers = {"Retry-After": str(math.ceil(wait))}
                hint = (
                    f"This server takes {RATE:g} requests a second from each client. Try again in {math.ceil(wait)} s."
                )
                refusal = Refusal(429, "too_many_requests", "too many requests.", hint=hint, headers=headers)
                await error_response(refusal, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _take(self, client: str) -> float:
        """Take a token of the client; return 0, or the seconds until there is one."""
        now = monotonic()
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if _tokens(bucket, now) < BURST}
        tokens = _tokens(self._buckets.get(client, (BURST, now)), now)
        if tokens < 1:
            return (1 - tokens) / RATE
        self._buckets[client] = (tokens - 1, now)
        return 0


def client_of(host: str) -> str:
    """Return what identifies a client: its IPv4 address, or its IPv6 network of 64 bits."""
    try:
        address = ip_address(host)
    except ValueError:  # a name, as proxies may send
        return host
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped or IPv6Network((int(address), 64), strict=False))


def _tokens(bucket: tuple[float, float], now: float) -> float:
    tokens, counted = bucket
    return min(BURST, tokens + (now - counted) * RATE)
