"""Compare checkouts by the time of one client's requests, and watch the last one's memory over reloads.

    python -m benchmarks.beside --models FOLDER --photos CAMVID/devtest/photo --reloads 30 OLD .

Each checkout serves a copy of the models, with one thread and without the page. The servers are asked in turn, in an
order that is drawn each time, so that all of them have the same share of a busy machine: quote the ratios. Then each
reload of the last server replaces all its models, and requests follow. Linux only.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, report
from benchmarks.soak.exchange import Request, send
from benchmarks.soak.requests import form, get, pictures_of
from benchmarks.soak.server import Server, free_port

TOKEN = "the-operator-of-the-comparison"


def main() -> None:
    """Measure and print; the first checkout is 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=20, help="in a round, to each server")
    parser.add_argument("--reloads", type=int, default=0)
    parser.add_argument("checkouts", type=Path, nargs="+", metavar="CHECKOUT")
    asked = parser.parse_args()
    requests = [
        form(photo.name, "/segment", [(photo.name, photo.read_bytes())]) for photo in pictures_of(asked.photos, most=20)
    ]
    with tempfile.TemporaryDirectory(prefix="fewpair-beside-") as folder, contextlib.ExitStack() as stack:
        homes = [Path(folder, str(number)) for number in range(len(asked.checkouts))]
        servers = [
            stack.enter_context(_serving(asked.models, checkout, home))
            for checkout, home in zip(asked.checkouts, homes, strict=True)
        ]
        for server in servers:
            _ask(server, get("/v1/models"))
        started = [server.memory() for server in servers]
        figures = _compared(servers, requests, asked.rounds, asked.requests)
        for number, megabytes in enumerate(started):
            figures.append(Figure("memory after the start", megabytes, "MB", {"checkout": number}))
        held = _reloaded(servers[-1], requests, asked.reloads)
        for reloads in {0, asked.reloads // 3, 2 * asked.reloads // 3, asked.reloads} if held else ():
            figures.append(Figure("memory after reloads", held[reloads], "MB", {"reloads": reloads}))
        report(f"{len(servers)} checkouts, {asked.rounds} rounds of {asked.requests} requests", figures)


def _compared(servers: list[Server], requests: list[Request], rounds: int, each: int) -> list[Figure]:
    took: list[list[float]] = [[] for _ in servers]
    spent: list[list[float]] = [[] for _ in servers]
    for turn in range(rounds + 1):
        before = [server.cpu_seconds() for server in servers]
        seconds: list[list[float]] = [[] for _ in servers]
        for number in range(each):
            for place in random.sample(range(len(servers)), len(servers)):
                seconds[place].append(_ask(servers[place], requests[number % len(requests)]))
        if turn:  # the first warms up
            for place, server in enumerate(servers):
                took[place].append(statistics.median(seconds[place]))
                spent[place].append((server.cpu_seconds() - before[place]) / each)
    figures = []
    for name, values in (("p50 of one client", took), ("processor time of a request", spent)):
        for place, rows in enumerate(values):
            ratio = statistics.median(mine / first for mine, first in zip(rows, values[0], strict=True))
            figures.append(Figure(name, 1000 * statistics.median(rows), "ms", {"checkout": place}))
            figures.append(Figure(f"{name}, ratio", ratio, "1", {"checkout": place}))
    return figures


def _reloaded(server: Server, requests: list[Request], reloads: int) -> list[float]:
    """Return the memory before the first reload and after each, in MB."""
    held = [server.memory()]
    for turn in range(reloads):
        for path in (server.home / "models").glob("*/manifest.json"):
            manifest = json.loads(path.read_text())
            path.write_text(json.dumps({**manifest, "description": f"Replaced {turn} times."}))
        _ask(server, Request("reload", "/v1/admin/reload"), token=TOKEN)
        for number in range(4):
            _ask(server, requests[(turn + number) % len(requests)])
        held.append(server.memory())
    return held if reloads else []


def _ask(server: Server, request: Request, token: str | None = None) -> float:
    """Return the seconds that an answer took."""
    answer = asyncio.run(send(server.url, request, token=token))
    if answer.status != 200:
        raise SystemExit(f"{request.name}: {answer.status} {answer.error} {answer.body[:300]!r}")
    return answer.seconds


@contextlib.contextmanager
def _serving(models: Path, checkout: Path, home: Path) -> Iterator[Server]:
    """Start a checkout's server and wait until it is ready. Earlier checkouts have other settings, and these flags."""
    shutil.copytree(models, home / "models")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "serving", "--models", str(home / "models"), "--port", str(port)]
    variables = {"PYTHONPATH": str(checkout.resolve()), "FEWPAIR_ADMIN_TOKEN": TOKEN}
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--no-ui", "--threads", "1"],
            cwd=checkout,
            env={**os.environ, **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
    server = Server(url, process, home, {})
    try:
        while "\nReady" not in server.log():
            if process.poll() is not None:
                raise SystemExit(f"the server of {checkout} did not become ready:\n{server.log()}")
            time.sleep(0.1)
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    main()
