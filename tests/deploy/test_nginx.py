"""nginx in front of the server: hundreds of slow clients do not keep a normal client from its answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import time

import httpx
import numpy as np
import pytest
import yaml

from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.process import ROOT, free_port, running_server

CONFIGURATION = (ROOT / "deploy" / "nginx.conf").read_text()
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
SLOW_HEADERS, SLOW_BODIES, SLOW_READERS = 150, 150, 50
BOUND = 2.0  # seconds for an answer of the tiny model


@contextlib.contextmanager
def nginx(folder, upstream):
    """nginx with the shipped configuration in front of a server on this port; its own port."""
    port = free_port()
    changes = {
        "listen 8080": f"listen 127.0.0.1:{port}",
        "127.0.0.1:3000": f"127.0.0.1:{upstream}",
        "/tmp/": f"{folder}/",
    }
    text = re.sub("|".join(map(re.escape, changes)), lambda found: changes[found[0]], CONFIGURATION)
    if os.geteuid() == 0:
        text = f"user root;\n{text}"  # a master of root gives its workers another user, who cannot write here
    (folder / "nginx.conf").write_text(text)
    command = [NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen([*command, "-g", "daemon off;"]) as process:
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with contextlib.suppress(httpx.HTTPError):
                    httpx.get(f"http://127.0.0.1:{port}/livez", timeout=2)
                    break
            yield port
        finally:
            process.terminate()


async def slow_client(port, number, request, *, asking=None):
    """Send a request byte by byte, or read its answer so; again and again, from an address of its own.

    Those that read ask one after another (`asking`): it is not their requests that keep the server busy.
    """
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(f"127.0.{1 + number // 16}.{1 + number % 16}", 0), limit=1024
            )
            try:
                if asking is not None:
                    async with asking:
                        writer.write(request)
                        await reader.read(100)
                    while await reader.read(100):
                        await asyncio.sleep(1)
                for position in range(0 if asking else len(request)):
                    writer.write(request[position : position + 1])
                    await writer.drain()
                    await asyncio.sleep(1)
            finally:
                writer.close()
        await asyncio.sleep(0.5)


async def seconds_of_a_normal_client(port, photo, *, answers, beside=()):
    """Answer times of one client that asks again and again, with slow clients beside it."""
    slow = [asyncio.create_task(one) for one in beside]
    await asyncio.sleep(5 if slow else 0)
    spent = []
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            for _ in range(answers):
                began = time.monotonic()
                answer = await client.post("/v1/segment", files={"image": photo})
                assert answer.status_code == 200, answer.text
                spent.append(time.monotonic() - began)
                await asyncio.sleep(0.1)
    finally:
        for one in slow:
            one.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    return spent


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="there is no nginx: install it with `apt-get install nginx-light`")
def test_hundreds_of_slow_clients_do_not_keep_a_normal_client_from_its_answers(tmp_path):
    write_model(tmp_path / "models" / "tiny")
    head = b"POST /v1/segment?output=confidence HTTP/1.1\r\nHost: fewpair\r\n"
    head += b"Content-Type: image/png\r\nConnection: close\r\n"
    large = file_of(np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8))
    request = head + f"Content-Length: {len(large)}\r\n\r\n".encode() + large
    head_only = head + b"X-Padding: " + b"x" * 4000
    body_only = head + b"Content-Length: 30000\r\n\r\n" + b"x" * 30000
    with running_server(tmp_path / "models", tmp_path / "server", "--no-ui", FEWPAIR_QUEUE="8") as server:
        (tmp_path / "nginx").mkdir()
        with nginx(tmp_path / "nginx", httpx.URL(server.url).port) as port:
            alone = asyncio.run(seconds_of_a_normal_client(port, file_of(ramp()), answers=20))
            asking = asyncio.Semaphore(1)
            slow = [
                *(slow_client(port, number, head_only) for number in range(SLOW_HEADERS)),
                *(slow_client(port, 500 + number, body_only) for number in range(SLOW_BODIES)),
                *(slow_client(port, 1000 + number, request, asking=asking) for number in range(SLOW_READERS)),
            ]
            crowded = asyncio.run(seconds_of_a_normal_client(port, file_of(ramp()), answers=60, beside=slow))
            print(f"seconds alone: {max(alone):.2f} at most, beside slow clients: {max(crowded):.2f}")
            assert max(crowded) < max(alone) + BOUND
            assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 403


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="there is no nginx")
def test_too_large_a_body_is_refused_by_nginx_and_others_pass(tmp_path):
    write_model(tmp_path / "models" / "tiny")
    with (
        running_server(tmp_path / "models", tmp_path / "server", "--no-ui") as server,
        nginx(tmp_path, httpx.URL(server.url).port) as port,
    ):
        url = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{url}/v1/segment", content=bytes(34 * 2**20)).status_code == 413
        answer = httpx.post(f"{url}/v1/segment", files={"image": file_of(ramp())}, timeout=30)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")


def test_the_proxy_of_kubernetes_has_the_same_configuration():
    (proxy,) = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "cpu" / "proxy.yaml").read_text())
    assert proxy["data"]["nginx.conf"] == CONFIGURATION
