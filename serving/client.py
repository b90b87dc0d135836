"""A typed client of the server.

    with Client("http://127.0.0.1:3000") as fewpair:
        fewpair.segment("street.jpg")
        job = fewpair.jobs.segment(["photos.zip"])
        fewpair.jobs.wait(job.id)
        fewpair.jobs.fetch(job.id, "labels.zip")

Errors of the server are raised as `serving.errors.Refusal`, with its code, message and hint.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import httpx

from serving.errors import Refusal

if TYPE_CHECKING:  # a client needs no onnxruntime
    from serving.imaging.decode import PhotoFormat
    from serving.imaging.tiling import Tiles
    from serving.inference.parameters import SegmentOutput

Picture = bytes | Path | str
"""The content of an image file, or its path."""

_OUTAGE = 300.0  # seconds without an answer after which `wait` gives up


class _Fields(TypedDict, total=False):
    model: str | None
    tiles: Tiles


class SegmentFields(_Fields, total=False):
    """The parameters of segmentation; the API documentation has their defaults."""

    output: SegmentOutput
    opacity: float
    min_area: int


class SynthesizeFields(_Fields, total=False):
    """The parameters of synthesis; the API documentation has their defaults."""

    seed: int | None
    style: str | None
    format: PhotoFormat
    snap: bool


@dataclass(frozen=True)
class Made:
    """One photo, and the seed (None: a style was given) and model that make it again."""

    photo: bytes
    seed: int | None
    model: str


@dataclass(frozen=True)
class Job:
    """The state of a job at the last request."""

    id: str
    state: str  # queued, running, done, failed or cancelled
    total: int  # pictures
    done: int
    failed: int
    progress: float  # 0 to 1
    seconds_left: float | None
    failures: list[tuple[str, Refusal]]  # name and error of the first 100 pictures that were refused
    error: Refusal | None  # why the job failed

    @property
    def ended(self) -> bool:
        """Whether the job has reached its last state."""
        return self.state in ("done", "failed", "cancelled")


class Client:
    """A client with a pool of connections.

    `timeout` is that of each request. Requests that an overloaded server refuses are repeated when it says so
    (`Retry-After`), for `patience` seconds.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 120.0, patience: float = 0.0) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=headers)
        self._patience = patience
        self.jobs = Jobs(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """Return the models, as `GET /v1/models` lists them."""
        return list(self.send("GET", "/v1/models").json()["models"])

    def model(self, name: str) -> dict[str, Any]:
        """Return one model with its card."""
        return dict(self.send("GET", f"/v1/models/{name}").json())

    def segment(self, photo: Picture, **fields: Unpack[SegmentFields]) -> bytes:
        """Return the label map of a photo as a file: PNG, JPEG for `overlay`, JSON for `json` and `polygons`."""
        return self.upload("/v1/segment", [photo], {**fields}).content

    def report(self, photo: Picture, *, model: str | None = None, min_area: int = 1) -> dict[str, Any]:
        """Return class shares, confidence, and the boxes of the regions of at least `min_area` pixels."""
        return dict(json.loads(self.segment(photo, model=model, output="json", min_area=min_area)))

    def polygons(self, photo: Picture, *, model: str | None = None, min_area: int = 1) -> dict[str, Any]:
        """Return the outlines of the regions of at least `min_area` pixels as a COCO-style document."""
        return dict(json.loads(self.segment(photo, model=model, output="polygons", min_area=min_area)))

    def style(self, photo: Picture, *, model: str | None = None) -> str:
        """Return the look of a photo, as the field `style` of `synthesize` with the same model."""
        return ",".join(map(str, self.upload("/v1/style", [photo], {"model": model}).json()["style"]))

    def synthesize(self, label: Picture, **fields: Unpack[SynthesizeFields]) -> Made:
        """Return a photo made from a label map."""
        return self.synthesize_several(label, count=1, **fields)[0]

    def synthesize_several(self, label: Picture, *, count: int, **fields: Unpack[SynthesizeFields]) -> list[Made]:
        """Return `count` photos made from a label map with successive seeds."""
        response = self.upload("/v1/synthesize", [label], {"count": count, **fields})
        model, photos = response.headers["X-Model"], [response.content]
        if "X-Seed" not in response.headers:
            return [Made(response.content, None, model)]
        seeds = response.headers["X-Seed"].split(",")
        if len(seeds) > 1:
            with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
                photos = [archive.read(name) for name in archive.namelist()]
        return [Made(photo, int(seed), model) for photo, seed in zip(photos, seeds, strict=True)]

    def send(self, method: str, path: str, *, stream: bool = False, **sent: Any) -> httpx.Response:
        """Send a request and return the successful response. Raises Refusal after the patience is used up."""
        until = time.monotonic() + self._patience
        while True:
            try:
                response = self._http.send(self._http.build_request(method, path, **sent), stream=stream)
                if response.is_success:
                    return response
                response.read()
            except httpx.HTTPError as error:
                raise _unreachable(str(self._http.base_url), error) from error
            seconds = response.headers.get("Retry-After", "")
            # A little more, at random, so that clients do not return all at once.
            pause = int(seconds) * random.uniform(1.0, 1.25) if seconds.isdecimal() else float("inf")
            if response.status_code not in (429, 503) or time.monotonic() + pause >= until:
                raise _refusal_of(response)
            time.sleep(pause)
            for _, (_, content) in sent.get("files", ()):
                if not isinstance(content, bytes):
                    content.seek(0)

    def upload(self, path: str, pictures: Sequence[Picture], fields: dict[str, Any]) -> httpx.Response:
        """Send pictures and fields as a form. Files are read while they are sent, so that large ones need no memory."""
        given = {name: value for name, value in fields.items() if value is not None}
        texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
        with contextlib.ExitStack() as opened:
            files: list[tuple[str, tuple[str, Any]]] = []
            for number, picture in enumerate(pictures, start=1):
                if isinstance(picture, bytes):
                    files.append(("image", (f"image-{number}", picture)))
                else:
                    file = opened.enter_context(Path(picture).open("rb"))
                    files.append(("image", (Path(picture).name, file)))
            return self.send("POST", path, files=files, data=texts)


class Jobs:
    """The jobs of a server, as `Client.jobs`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def segment(self, photos: Sequence[Picture], **fields: Unpack[SegmentFields]) -> Job:
        """Submit photos, or ZIPs of photos, for segmentation."""
        return _job(self._client.upload("/v1/jobs", photos, {"operation": "segment", **fields}))

    def synthesize(self, labels: Sequence[Picture], *, count: int = 1, **fields: Unpack[SynthesizeFields]) -> Job:
        """Submit label maps, or ZIPs of label maps, for synthesis."""
        return _job(self._client.upload("/v1/jobs", labels, {"operation": "synthesize", "count": count, **fields}))

    def find(self, id: str) -> Job:
        """Return the state of a job."""
        return _job(self._client.send("GET", f"/v1/jobs/{id}"))

    def wait(self, id: str, *, seconds: float | None = None, every: float = 1.0) -> Job:
        """Poll until the job has ended, through restarts of the server of up to five minutes.

        Raises TimeoutError after `seconds`; the job goes on.
        """
        began = answered = time.monotonic()
        state = "not known"
        while True:
            try:
                job, answered = self.find(id), time.monotonic()
                if job.ended:
                    return job
                state = f"{job.state}, {job.done + job.failed} of {job.total} pictures done"
            except Refusal as refusal:
                if refusal.status not in (429, 502, 503, 504) or time.monotonic() - answered >= _OUTAGE:
                    raise
            if seconds is not None and time.monotonic() - began >= seconds:
                raise TimeoutError(f"job {id} has not ended after {seconds:g} seconds: it is {state}")
            time.sleep(every)

    def fetch(self, id: str, target: str | Path) -> Path:
        """Write the ZIP of the answers to a file and return its path."""
        path = Path(target)
        with contextlib.closing(self._client.send("GET", f"/v1/jobs/{id}/result", stream=True)) as response:
            try:
                with path.open("wb") as file:
                    for part in response.iter_bytes():
                        file.write(part)
            except httpx.HTTPError as error:
                raise _unreachable(str(response.url), error) from error
        return path

    def remove(self, id: str) -> Job:
        """Cancel a job that has not ended, and delete its pictures and answers."""
        return _job(self._client.send("DELETE", f"/v1/jobs/{id}"))


def _refusal_of(response: httpx.Response) -> Refusal:
    headers = {name: response.headers[name] for name in ("Retry-After",) if name in response.headers}
    try:
        return _error(response.json()["error"], status=response.status_code, headers=headers)
    except (ValueError, KeyError, TypeError):
        message = f"{response.url} answered {response.status_code} without an error of fewpair."
        return Refusal(response.status_code, "not_fewpair", message, hint="Is this the address of a fewpair server?")


def _unreachable(url: str, error: httpx.HTTPError) -> Refusal:
    if isinstance(error, httpx.UnsupportedProtocol):
        address = url.rstrip("/")
        return Refusal(503, "unreachable", f"{address} does not begin with http://.", hint=f"Use http://{address}")
    why = str(error).rstrip(".") or type(error).__name__
    return Refusal(503, "unreachable", f"{url} does not answer: {why}.", hint="Is the server running there?")


def _error(error: dict[str, str], *, status: int = 400, headers: dict[str, str] | None = None) -> Refusal:
    return Refusal(status, error["code"], error["message"], hint=error["hint"], headers=headers)


def _job(response: httpx.Response) -> Job:
    state = response.json()
    return Job(
        **{name: state[name] for name in ("id", "state", "progress", "seconds_left")},
        **state["pictures"],
        failures=[(one["name"], _error(one["error"])) for one in state["failures"]],
        error=None if state["error"] is None else _error(state["error"]),
    )
