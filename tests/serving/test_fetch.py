"""Fetching pictures: from whom, from where, how much and how long."""

import asyncio
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from serving.batch import Picture
from serving.errors import Refusal
from serving.fetch import Fetcher, is_public


class Pictures(BaseHTTPRequestHandler):
    """/small, /large and /endless are served, /moved leads to /small, /late comes late."""

    asked: ClassVar[list[tuple[str, str]]] = []
    cookies: ClassVar[list[str | None]] = []

    def do_GET(self):
        self.asked.append((self.path, self.headers["Host"]))
        self.cookies.append(self.headers["Cookie"])
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/small")
            self.end_headers()
            return
        if self.path == "/late":
            time.sleep(3)
        self.send_response(404 if self.path == "/nothing" else 200)
        self.send_header("Set-Cookie", "whose=mine")
        self.end_headers()
        try:
            self.wfile.write(b"x" * (5000 if self.path == "/large" else 100))
            while self.path == "/endless":
                self.wfile.write(b"x" * 10_000)
        except OSError:
            pass

    def log_message(self, *said):
        pass


@pytest.fixture(scope="module")
def there():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(url, hosts, *, seconds=5.0, public=lambda address: True):
    async def once():
        return await Fetcher(hosts, max_bytes=1000, seconds=seconds, public=public).fetch(url)

    return asyncio.run(once())


def refused(url, hosts, **options):
    with pytest.raises(Refusal) as caught:
        fetch(url, hosts, **options)
    return caught.value


def test_what_an_allowed_host_serves_is_fetched(there):
    assert fetch(f"http://{there}/small", [there]) == b"x" * 100
    assert Pictures.asked[-1] == ("/small", there)


def test_without_hosts_nothing_is_fetched(there):
    before = len(Pictures.asked)
    assert refused(f"http://{there}/small", []).code == "urls_not_allowed"
    assert len(Pictures.asked) == before


def test_a_host_without_a_port_stands_for_the_usual_ports(there):
    assert refused(f"http://{there}/small", ["localhost"]).code == "host_not_allowed"


@pytest.mark.parametrize("url", ["ftp://localhost/a", "http://", "http:///a", "http://localhost:99999/", "http://a b/"])
def test_an_address_that_is_none_is_refused(url):
    assert refused(url, ["localhost"]).status == 400


def test_the_address_behind_an_allowed_name_is_judged_and_never_asked_where_it_is_private(there):
    before = len(Pictures.asked)
    assert refused(f"http://{there}/small", [there], public=is_public).code == "address_not_public"
    assert len(Pictures.asked) == before


def test_every_address_of_a_name_is_judged(there, monkeypatch):
    async def two(self, host, port, **options):
        return [(2, 1, 6, "", (address, port)) for address in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", two)
    assert refused(f"http://{there}/small", [there], public=is_public).code == "address_not_public"


def test_the_connection_goes_to_the_address_that_was_judged(there, monkeypatch):
    names = []
    look_up = asyncio.base_events.BaseEventLoop.getaddrinfo

    async def noting(self, host, port, **options):
        names.append(host)
        return await look_up(self, host, port, **options)

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", noting)
    judged = []
    fetch(f"http://{there}/small", [there], public=lambda address: not judged.append(address))
    assert names[0] == "localhost"
    assert set(names[1:]) <= set(judged)


def test_nobody_is_followed_elsewhere(there):
    before = len(Pictures.asked)
    assert "answers 302" in refused(f"http://{there}/moved", [there]).message
    assert [path for path, _ in Pictures.asked[before:]] == ["/moved"]


def test_what_is_not_there_is_said(there):
    assert "answers 404" in refused(f"http://{there}/nothing", [there]).message


@pytest.mark.parametrize("path", ["/large", "/endless"])
def test_what_is_over_the_limit_is_not_read_to_its_end(there, path):
    assert refused(f"http://{there}{path}", [there]).code == "too_many_bytes"


def test_the_pictures_of_one_request_have_the_limit_in_all(there):
    async def thrice():
        fetcher = Fetcher([there], max_bytes=250, public=lambda address: True)
        return await fetcher.fetched([Picture(name, bytes, url=f"http://{there}/small") for name in "abc"])

    sizes = []
    for picture in asyncio.run(thrice()):
        try:
            sizes.append(len(picture.read()))
        except Refusal as refusal:
            sizes.append(refusal.code)
    assert sorted(sizes, key=str) == [100, 100, "too_many_bytes"]


def test_no_cookie_is_kept_for_the_next_who_asks(there):
    async def twice():
        fetcher = Fetcher([there], max_bytes=1000, public=lambda address: True)
        for _ in range(2):
            await fetcher.fetch(f"http://{there}/small")

    asyncio.run(twice())
    assert Pictures.cookies[-2:] == [None, None]


def test_the_name_that_is_looked_up_is_the_one_that_is_allowed(monkeypatch):
    names = []

    async def noting(self, host, port, **options):
        names.append(host)
        return [(2, 1, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", noting)
    for host in ("xn--strae-oqa.de", "stra\u00dfe.de"):  # which older rules spell strasse.de
        assert refused(f"http://{host}/a.png", ["xn--strae-oqa.de"], public=is_public).code == "address_not_public"
    assert names == ["xn--strae-oqa.de"] * 2


def test_what_comes_too_late_is_not_waited_for(there):
    started = time.monotonic()
    assert "within 0.2 s" in refused(f"http://{there}/late", [there], seconds=0.2).message
    assert time.monotonic() - started < 2.5


def test_a_proxy_of_the_environment_is_not_used(there, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch(f"http://{there}/small", [there]) == b"x" * 100


def test_one_that_cannot_be_fetched_refuses_to_be_read_and_the_others_are_there(there):
    async def both():
        sent = [
            Picture("a", bytes, url=f"http://{there}/small"),
            Picture("b", bytes, url="http://example.org/"),
            Picture("c", lambda: b"c"),
        ]
        return await Fetcher([there], max_bytes=1000, public=lambda address: True).fetched(sent)

    a, b, c = asyncio.run(both())
    assert (a.read(), c.read()) == (b"x" * 100, b"c")
    with pytest.raises(Refusal, match="does not fetch from example"):
        b.read()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "2001:db8::1", "2001:0:7f00:1::", "64:ff9b:1::1", "fec0::1",
    ],
)  # fmt: skip
def test_private_local_and_reserved_addresses_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)
