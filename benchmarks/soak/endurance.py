"""Whether a server stays as it is for a long time under everything that happens to it.

Steady clients hold each answer against the first one, byte by byte. Beside them: bad uploads, reloads after a model was
added, replaced, half written and removed, jobs, and once, after four fifths of the time, a kill -9 of the process that
answers.

Checks: only requests under way during the kill are lost, and the job that ran continues; equal requests get equal
answers, and a half-written model never answers; resident memory grows by less than 1 MB (10^6 bytes) a minute until the
kill (least squares, without the first quarter, at equal models, while the clients pause), and no more files are open at
its end; no temporary files are left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import random
import shutil
import signal
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.soak.corpus import upload
from benchmarks.soak.exchange import Answer, Request, send, send_until_admitted
from benchmarks.soak.record import Record, slope
from benchmarks.soak.requests import form, get, pictures_of, varied
from benchmarks.soak.server import Server, running
from benchmarks.soak.uploads import fault

TOKEN = "the-operator-of-the-soak"
_CLIENTS = 4
_MOST_MB_A_MINUTE = 1.0
_SPARE_FILES = 2  # descriptors that are opened once and stay
_GUEST = "guest"  # the model that comes and goes
_CHANGES = 120  # of that model, in the whole time
_UNTIL_KILL = 0.8  # of the time
_PAUSE = 3.0  # seconds without requests in which memory is read; a job ends meanwhile


def run(options: argparse.Namespace, record: Record) -> None:
    """Run for `--seconds`."""
    with tempfile.TemporaryDirectory(prefix="fewpair-endurance-") as folder:
        home = Path(folder)
        shutil.copytree(options.models, home / "models", ignore=shutil.ignore_patterns("*.md"))
        variables = {"FEWPAIR_ADMIN_TOKEN": TOKEN, "FEWPAIR_JOBS": str(home / "jobs")}
        with running(home / "models", home, ["--no-ui", *options.server], **variables) as server:
            soak = Soak(server, options.seconds)
            photos, labels = pictures_of(options.photos, most=6), pictures_of(options.label_maps, most=6)
            asyncio.run(soak.run(photos, labels))
            code = server.stop()
            left = [path.name for path in (home / "tmp").iterdir()]
            tracebacks = server.log().count("Traceback (most recent call last)")
    soak.judge(record, code=code, left=left, tracebacks=tracebacks)


class Soak:
    """The clients of one server, and what they saw."""

    def __init__(self, server: Server, seconds: float) -> None:
        self.server = server
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._seconds = seconds
        self._began = time.monotonic()
        self._over = asyncio.Event()
        self._sending = asyncio.Event()  # cleared while the clients pause
        self._sending.set()
        self._under_way = 0
        self._kill = (0.0, 0.0)  # just before, and when the server answered again
        self._guests = [{"absent"}]  # what the guest may be, now at the end
        self._references: dict[str, bytes] = {}
        self._different: list[str] = []
        self._memory: list[tuple[float, float]] = []  # minutes, MB
        self._files: list[int] = []

    async def run(self, photos: Sequence[Path], labels: Sequence[Path]) -> None:
        url = self.server.url
        listed = json.loads((await send(url, get("/v1/models"))).body)["models"]
        requests = varied(listed, photos, labels)
        for request in requests:
            self._compare(request, await send_until_admitted(url, request))
        models = [self.server.home / "models" / one["name"] for one in listed if "to_label" in one["directions"]]
        guest = form("guest", "/v1/segment", [("a.png", photos[0].read_bytes())], model=_GUEST, output="ids")
        answers = {}
        for source in (models[0], models[-1]):
            same = form("guest", "/v1/segment", [("a.png", photos[0].read_bytes())], model=source.name, output="ids")
            answers[source.name] = (await send_until_admitted(url, same)).body
        tasks = [
            *(self._steady_client(requests, seed) for seed in range(_CLIENTS)),
            self._bad_uploads(),
            self._reloads((models[0], models[-1])),
            self._guest_client(guest, answers),
            self._jobs([(photo.name, photo.read_bytes()) for photo in photos[:3]], models[0].name),
            self._kill_once(),
        ]
        running = [asyncio.create_task(one) for one in tasks]
        done, _ = await asyncio.wait(running, timeout=self._seconds, return_when=asyncio.FIRST_EXCEPTION)
        self.faults += [f"the soak itself failed: {one.exception()!r}" for one in done if one.exception()]
        self._over.set()
        await asyncio.gather(*running, return_exceptions=True)

    async def _ask(self, request: Request, who: str, token: str | None = None) -> Answer | None:
        """Return an answer; None where the server was full or killed. Anything else that is none is a fault."""
        await self._sending.wait()
        self._under_way += 1
        answer = await send(self.server.url, request, token=token)
        self._under_way -= 1
        self.counts[f"{who}: requests"] += 1
        before, after = self._kill
        if answer.error is not None and before and answer.ended >= before and (not after or answer.began <= after):
            self.counts[f"{who}: cut off by the kill"] += 1
            await asyncio.sleep(0.5)
        elif answer.error is not None:
            self.faults.append(f"{who}, {request.name}: {answer.error}")
        elif answer.refused:
            self.counts[f"{who}: refused"] += 1
            await asyncio.sleep(float(answer.headers["retry-after"]))
        else:
            return answer
        return None

    def _compare(self, request: Request, answer: Answer) -> None:
        if answer.status != 200:
            self.faults.append(f"{request.name}: {answer.status} {answer.body[:200]!r}")
        elif answer.body != self._references.setdefault(request.name, answer.body):
            self.counts["answers that differ"] += 1
            self._different.append(f"{request.name} ({len(answer.body)} bytes, {dict(answer.headers)})"[:500])
        else:
            self.counts["answers compared"] += 1

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    async def _steady_client(self, requests: Sequence[Request], seed: int) -> None:
        drawn = random.Random(seed)
        while not self._over.is_set():
            request = drawn.choice(requests)
            if (answer := await self._ask(request, "steady clients")) is not None:
                self._compare(request, answer)

    async def _bad_uploads(self) -> None:
        for seed in itertools.count(100_000):
            if self._over.is_set():
                return
            one = await asyncio.to_thread(upload, seed)
            request = Request(f"upload {seed}, {one.kind}", one.path, one.body, one.content_type)
            answer = await self._ask(request, "bad uploads")
            if answer is not None and (why := fault(answer)) is not None:
                self.faults.append(f"{request.name}: {answer.status}, {why}")
            await self._rest(0.2)

    async def _reloads(self, sources: tuple[Path, Path]) -> None:
        first, last = sources
        guest = self.server.home / "models" / _GUEST
        steps: tuple[tuple[str, Any], ...] = (
            (first.name, lambda: _put(first, guest)),
            (last.name, lambda: _put(last, guest)),
            (last.name, lambda: _write_half(first, guest)),
            (first.name, lambda: _put(first, guest)),
            ("absent", lambda: shutil.rmtree(guest)),
        )
        for turn in itertools.count():
            await self._rest(self._seconds / _CHANGES)
            if self._over.is_set():
                return
            becomes, change = steps[turn % len(steps)]
            after = {becomes, "absent"} if turn % len(steps) == 2 else {becomes}  # a kill reads the half one
            self._guests.append(self._guests[-1] | after)
            await asyncio.to_thread(change)
            answer = None
            while answer is None and not self._over.is_set():
                answer = await self._ask(Request("reload", "/v1/admin/reload"), "reloads", TOKEN)
            if answer is not None and answer.status != 200:
                self.faults.append(f"reload: {answer.status} {answer.body[:200]!r}")
            self._guests.append(after)
            self.counts["reloads"] += 1
            warm = time.monotonic() - self._began > _UNTIL_KILL * self._seconds / 4
            if becomes == "absent" and warm and not self._kill[0]:
                await self._read_memory()

    async def _guest_client(self, request: Request, answers: dict[str, bytes]) -> None:
        while not self._over.is_set():
            before = len(self._guests) - 1
            answer = await self._ask(request, "clients of the changing model")
            allowed = set().union(*self._guests[before:])
            if answer is not None:
                right = {answers[name] for name in allowed - {"absent"}}
                if answer.body not in right and not (answer.status == 404 and "absent" in allowed):
                    self.faults.append(f"the changing model answered {answer.status} while it could be {allowed}")
            await self._rest(0.3)

    async def _jobs(self, files: Sequence[tuple[str, bytes]], model: str) -> None:
        """Send jobs, wait for each and compare its result with that of a request."""
        url = self.server.url
        expected = _unpacked((await send_until_admitted(url, form("job", "/v1/segment", files, model=model))).body)
        while not self._over.is_set():
            sent = await self._ask(form("job", "/v1/jobs", files, operation="segment", model=model), "jobs")
            if sent is None:
                continue
            if sent.status != 202:
                self.faults.append(f"a job was refused: {sent.status} {sent.body[:200]!r}")
                return
            path, state, until = f"/v1/jobs/{json.loads(sent.body)['id']}", "queued", time.monotonic() + 300
            while state in ("queued", "running") and time.monotonic() < until:
                await asyncio.sleep(0.5)
                if (seen := await self._ask(get(path), "jobs")) is not None:
                    state = json.loads(seen.body)["state"]
            result = await send(url, get(f"{path}/result"))
            if state != "done" or _unpacked(result.body) != expected:
                self.faults.append(f"a job ended as {state}, its result has status {result.status}")
            self.counts["jobs"] += 1
            await self._ask(Request(path, path, method="DELETE"), "jobs")
            await self._rest(2)

    async def _kill_once(self) -> None:
        await self._rest(_UNTIL_KILL * self._seconds)
        killed = self.server.worker()
        if self._over.is_set() or killed is None:
            return
        self._kill = (time.monotonic(), 0.0)
        os.kill(killed, signal.SIGKILL)
        while (await send(self.server.url, get("/readyz"), deadline=5)).status != 200:
            if time.monotonic() > self._kill[0] + 120:
                self.faults.append("the server did not come back within 120 s after the kill")
                return
            await asyncio.sleep(0.2)
        self._kill = (self._kill[0], time.monotonic())

    async def _read_memory(self) -> None:
        """Have the clients pause, and note the memory and the open files."""
        self._sending.clear()
        try:
            while self._under_way:
                await asyncio.sleep(0.1)
            await asyncio.sleep(_PAUSE)
            memory = await asyncio.to_thread(self.server.memory)
            worker = self.server.worker()
        finally:
            self._sending.set()
        if worker is not None and not self._kill[0]:
            self._memory.append(((time.monotonic() - self._began) / 60, memory))
            self._files.append(len(list(Path(f"/proc/{worker}/fd").iterdir())))

    def judge(self, record: Record, *, code: int, left: list[str], tracebacks: int) -> None:
        """Write the figures and the checks."""
        growth = round(slope(self._memory), 3)
        before, after = self._kill
        record.add(
            "endurance",
            minutes=round((time.monotonic() - self._began) / 60, 1),
            counts=dict(sorted(self.counts.items())),
            faults=self.faults[:20],
            different=self._different[:5],
            memory_mb=[round(mb, 1) for _, mb in self._memory],
            mb_a_minute=growth,
            back_after_kill_s=round(after - before, 1),
            tracebacks=tracebacks,
        )
        record.check("nothing is lost and nothing goes wrong", not self.faults, f"{len(self.faults)} faults")
        compared, differ = self.counts["answers compared"], self.counts["answers that differ"]
        record.check("equal requests get equal answers", compared > 0 and not differ, f"{differ} of {compared} differ")
        record.check(
            f"memory grows by less than {_MOST_MB_A_MINUTE:g} MB a minute",
            len(self._memory) > 2 and growth < _MOST_MB_A_MINUTE,
            f"{growth} in {len(self._memory)} readings",
        )
        more = self._files[-1] - self._files[0] if self._files else 0
        record.check("no file descriptors leak", bool(self._files) and more <= _SPARE_FILES, f"{more} more")
        record.check("no temporary files are left", not left, f"{left or 'none'}")
        record.check("the server stopped in order", code == 0, f"exit code {code}")


def _put(source: Path, target: Path) -> None:
    """Put a copy of a model in place as an export does: built beside it, then renamed."""
    built, former = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.former")
    shutil.copytree(source, built)
    _rename(built, target.name)
    if target.exists():
        target.rename(former)
    built.rename(target)
    shutil.rmtree(former, ignore_errors=True)


def _write_half(source: Path, target: Path) -> None:
    """Write a model as a copy that has not ended: the whole manifest, and the first half of each graph."""
    shutil.copy(source / "manifest.json", target)
    _rename(target, target.name)
    for graph in source.glob("*.onnx"):
        whole = graph.read_bytes()
        (target / graph.name).write_bytes(whole[: len(whole) // 2])


def _rename(folder: Path, name: str) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "name": name}))


def _unpacked(packed: bytes) -> dict[str, bytes] | None:
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile:
        return None
