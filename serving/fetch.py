"""Pictures fetched from where the operator allows: named hosts, public addresses, within a size and a time, never led elsewhere."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

import httpx

from serving.batch import Picture
from serving.errors import Refusal
from serving.imaging import too_many_bytes

SECONDS = 10.0
_AT_ONCE = 8
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet. An IPv6 address that stands for an IPv4 one by a translator or a tunnel is not."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:  # the same address in another spelling
            return is_public(str(ip.ipv4_mapped))
        if ip.is_site_local or ip.sixtofour is not None or ip.teredo is not None:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


class Fetcher:
    """Fetches from `hosts`, and without hosts nothing: "example.org" stands for its ports 80 and 443, "example.org:8080" for that one.

    The addresses of a host are looked up once and all judged by `public`; the connection goes to one that was judged, so that a name
    that changes its mind in between leads nowhere. There is no proxy, no redirect, and no connection is used twice.
    """

    def __init__(
        self, hosts: Sequence[str], *, max_bytes: int, seconds: float = SECONDS, public: Callable[[str], bool] = is_public
    ) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._public = public
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._tls: ssl.SSLContext | None = None

    async def fetched(self, pictures: Sequence[Picture]) -> list[Picture]:
        """The pictures, each with a URL replaced by what is there; one that cannot be fetched refuses to be read, and says why.

        All of them together have as many bytes as one request may bring along.
        """
        budget = _ByteBudget(self._max_bytes)
        return list(await asyncio.gather(*(self._picture(picture, budget) for picture in pictures)))

    async def fetch(self, url: str) -> bytes:
        """What is at an address."""
        return await self._fetch(url, _ByteBudget(self._max_bytes))

    async def _fetch(self, url: str, budget: _ByteBudget) -> bytes:
        asked, port = self._allowed(url)
        try:
            async with asyncio.timeout(self._seconds), self._at_once:
                return await self._get(asked, await self._address(_host(asked), port), budget)
        except TimeoutError:
            raise _not_fetched(url, f"it did not come within {self._seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as error:
            raise _not_fetched(url, str(error) or type(error).__name__) from None

    async def _picture(self, picture: Picture, budget: _ByteBudget) -> Picture:
        if picture.url is None:
            return picture
        try:
            body = await self._fetch(picture.url, budget)
        except Refusal as refusal:
            return replace(picture, url=None, read=_refusing(refusal))
        return replace(picture, url=None, read=lambda: body)

    def _allowed(self, url: str) -> tuple[httpx.URL, int]:
        if not self._hosts:
            raise Refusal(
                400,
                "urls_not_allowed",
                "this server fetches no pictures from addresses.",
                hint="Send the picture itself, or have the operator name hosts in FEWPAIR_URL_HOSTS.",
            )
        try:
            asked = httpx.URL(url)
            port = asked.port or _DEFAULT_PORTS[asked.scheme]
            host = _host(asked)
        except (httpx.InvalidURL, KeyError, ValueError):
            raise _not_fetched(url, "it is no http(s) address") from None
        named = f"{host}:{port}" in self._hosts or (host in self._hosts and port in _DEFAULT_PORTS.values())
        if not named or asked.userinfo:
            raise Refusal(
                400,
                "host_not_allowed",
                f"this server does not fetch from {host[:80]}:{port}{' with a password' if asked.userinfo else ''}.",
                hint="Send the picture itself, or have the operator name the host in FEWPAIR_URL_HOSTS.",
            )
        return asked, port

    async def _address(self, host: str, port: int) -> str:
        """An address of the host, where all of them are public."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=0, proto=6)
        addresses = [str(address[4][0]) for address in found]
        if not addresses or not all(self._public(address) for address in addresses):
            raise Refusal(
                400, "address_not_public", f"{host[:80]} is not an address of the internet.", hint="Only public addresses are fetched from."
            )
        return addresses[0]

    async def _get(self, asked: httpx.URL, address: str, budget: _ByteBudget) -> bytes:
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        headers = {"Host": asked.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"}
        there = asked.copy_with(host=address)
        # A client of its own: a kept connection was checked for another host's name, and a kept cookie is somebody else's.
        client = httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=self._seconds)
        named = {"sni_hostname": _host(asked)}
        async with client, client.stream("GET", there, headers=headers, extensions=named) as response:
            if response.status_code != 200:
                raise _not_fetched(str(asked), f"it answers {response.status_code}")
            parts = []
            async for part in response.aiter_raw():  # as it came: whoever packs it against our asking sends no picture
                budget.spend(len(part))
                parts.append(part)
        return b"".join(parts)


class _ByteBudget:
    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise too_many_bytes(self._most)


def _host(asked: httpx.URL) -> str:
    """The name as it is looked up and certified: `URL.host` is for people, and would be spelled anew by older rules (IDNA 2003)."""
    return asked.raw_host.decode("ascii").lower()


def _refusing(refusal: Refusal) -> Callable[[], bytes]:
    def read() -> NoReturn:
        raise refusal

    return read


def _not_fetched(url: str, why: str) -> Refusal:
    return Refusal(
        400, "not_fetched", f"{url[:200]!r} cannot be fetched: {why[:200]}.", hint="Send the picture itself, or an address that answers."
    )
