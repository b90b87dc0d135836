"""The client's side of jobs: `client.jobs.segment(photos)`, then `wait`, `fetch` and `remove`; the same awaited."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from serving.errors import Refusal
from serving.wire import Picture, checked, is_address, name_of, unreachable

if TYPE_CHECKING:  # a client needs no onnxruntime
    from serving.asked import SegmentOutput
    from serving.imaging import PhotoFormat
    from serving.tiles import Tiles


@dataclass(frozen=True)
class Job:
    """A job as the server last told of it."""

    id: str
    state: str  # queued, running, done, failed or cancelled
    total: int  # pictures
    done: int
    failed: int
    progress: float  # 0 to 1
    seconds_left: float | None
    failures: dict[str, Refusal]  # the first 100 pictures that were refused
    error: Refusal | None  # why the job failed

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("done", "failed", "cancelled")


class Jobs:
    """`job = client.jobs.segment(["a.jpg", "photos.zip"]); client.jobs.wait(job.id); client.jobs.fetch(job.id, "labels.zip")`."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def segment(
        self,
        photos: Sequence[Picture],
        *,
        model: str | None = None,
        output: SegmentOutput = "colours",
        opacity: float = 0.5,
        min_area: int = 1,
        tiles: Tiles = "auto",
    ) -> Job:
        """Send photos, or ZIPs of them, to be segmented."""
        return self._submit("segment", photos, model=model, output=output, opacity=opacity, min_area=min_area, tiles=tiles)

    def synthesize(
        self,
        labels: Sequence[Picture],
        *,
        model: str | None = None,
        seed: int | None = None,
        count: int = 1,
        format: PhotoFormat = "jpeg",
        snap: bool = False,
        tiles: Tiles = "auto",
    ) -> Job:
        """Send label maps, or ZIPs of them, to be made into photos."""
        return self._submit("synthesize", labels, model=model, seed=seed, count=count, format=format, snap=snap, tiles=tiles)

    def find(self, id: str) -> Job:
        """How far a job is."""
        return _job(self._ask("GET", f"/v1/jobs/{id}"))

    def wait(self, id: str, *, seconds: float | None = None, every: float = 1.0) -> Job:
        """Ask until the job has ended; TimeoutError where it has not within `seconds`. The job goes on either way."""
        until = None if seconds is None else time.monotonic() + seconds
        while not (job := self.find(id)).ended:
            _check_time(job, until)
            time.sleep(every)
        return job

    def fetch(self, id: str, target: str | Path) -> Path:
        """Write the ZIP of the answers to a file."""
        path = Path(target)
        try:
            with self._http.stream("GET", f"/v1/jobs/{id}/result") as response:
                if not response.is_success:
                    response.read()
                checked(response)
                with path.open("wb") as file:
                    for part in response.iter_bytes():
                        file.write(part)
        except httpx.HTTPError as error:
            raise unreachable(str(self._http.base_url), error) from error
        return path

    def remove(self, id: str) -> Job:
        """Cancel a job that has not ended; its pictures and answers are removed in any case."""
        return _job(self._ask("DELETE", f"/v1/jobs/{id}"))

    def _submit(self, operation: str, pictures: Sequence[Picture], **fields: Any) -> Job:
        with _form(operation, pictures, fields) as form:
            return _job(self._ask("POST", "/v1/jobs", **form))

    def _ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        try:
            return checked(self._http.request(method, path, **sent))
        except httpx.HTTPError as error:
            raise unreachable(str(self._http.base_url), error) from error


class AsyncJobs:
    """What `Jobs` does, awaited."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def segment(
        self,
        photos: Sequence[Picture],
        *,
        model: str | None = None,
        output: SegmentOutput = "colours",
        opacity: float = 0.5,
        min_area: int = 1,
        tiles: Tiles = "auto",
    ) -> Job:
        """Send photos, or ZIPs of them, to be segmented."""
        return await self._submit("segment", photos, model=model, output=output, opacity=opacity, min_area=min_area, tiles=tiles)

    async def synthesize(
        self,
        labels: Sequence[Picture],
        *,
        model: str | None = None,
        seed: int | None = None,
        count: int = 1,
        format: PhotoFormat = "jpeg",
        snap: bool = False,
        tiles: Tiles = "auto",
    ) -> Job:
        """Send label maps, or ZIPs of them, to be made into photos."""
        return await self._submit("synthesize", labels, model=model, seed=seed, count=count, format=format, snap=snap, tiles=tiles)

    async def find(self, id: str) -> Job:
        """How far a job is."""
        return _job(await self._ask("GET", f"/v1/jobs/{id}"))

    async def wait(self, id: str, *, seconds: float | None = None, every: float = 1.0) -> Job:
        """Ask until the job has ended; TimeoutError where it has not within `seconds`. The job goes on either way."""
        until = None if seconds is None else time.monotonic() + seconds
        while not (job := await self.find(id)).ended:
            _check_time(job, until)
            await asyncio.sleep(every)
        return job

    async def fetch(self, id: str, target: str | Path) -> Path:
        """Write the ZIP of the answers to a file."""
        path = Path(target)
        try:
            async with self._http.stream("GET", f"/v1/jobs/{id}/result") as response:
                if not response.is_success:
                    await response.aread()
                checked(response)
                with path.open("wb") as file:
                    async for part in response.aiter_bytes():
                        await asyncio.to_thread(file.write, part)
        except httpx.HTTPError as error:
            raise unreachable(str(self._http.base_url), error) from error
        return path

    async def remove(self, id: str) -> Job:
        """Cancel a job that has not ended; its pictures and answers are removed in any case."""
        return _job(await self._ask("DELETE", f"/v1/jobs/{id}"))

    async def _submit(self, operation: str, pictures: Sequence[Picture], **fields: Any) -> Job:
        with _form(operation, pictures, fields) as form:
            return _job(await self._ask("POST", "/v1/jobs", **form))

    async def _ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        try:
            return checked(await self._http.request(method, path, **sent))
        except httpx.HTTPError as error:
            raise unreachable(str(self._http.base_url), error) from error


@contextlib.contextmanager
def _form(operation: str, pictures: Sequence[Picture], fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The form of a job; files are read while they are sent, so that large ones fit."""
    if any(is_address(picture) for picture in pictures):
        raise Refusal(400, "not_a_file", "a job takes files, not addresses.", hint="Fetch the pictures and send them.")
    told = {"operation": operation, **{name: value for name, value in fields.items() if value is not None}}
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in told.items()}
    with contextlib.ExitStack() as files:
        sent = [
            ("image", (name_of(one, number), one if isinstance(one, bytes) else files.enter_context(Path(one).open("rb"))))
            for number, one in enumerate(pictures)
        ]
        yield {"files": sent, "data": texts}


def _job(response: httpx.Response) -> Job:
    told = response.json()
    return Job(
        id=told["id"],
        state=told["state"],
        total=told["pictures"]["total"],
        done=told["pictures"]["done"],
        failed=told["pictures"]["failed"],
        progress=told["progress"],
        seconds_left=told["seconds_left"],
        failures={one["name"]: _refusal(one["error"]) for one in told["failures"]},
        error=None if told["error"] is None else _refusal(told["error"]),
    )


def _refusal(error: dict[str, str]) -> Refusal:
    return Refusal(400, error["code"], error["message"], hint=error["hint"])


def _check_time(job: Job, until: float | None) -> None:
    if until is not None and time.monotonic() >= until:
        raise TimeoutError(f"job {job.id} is {job.state}, with {job.done + job.failed} of {job.total} pictures finished")
