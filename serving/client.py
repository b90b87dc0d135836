"""A small typed client of the server: `Client` waits for each answer, `AsyncClient` is awaited; both raise the server's own words."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import httpx

from serving.errors import Refusal
from serving.jobclient import AsyncJobs, Jobs
from serving.wire import Picture, again_in, checked, is_address, name_of, unreachable

if TYPE_CHECKING:  # a client needs no onnxruntime
    from serving.asked import SegmentOutput
    from serving.imaging import PhotoFormat
    from serving.tiles import Tiles


@dataclass(frozen=True)
class Made:
    """One photo the server made, and what to say to get it again."""

    photo: bytes
    seed: int
    model: str


@dataclass(frozen=True)
class Translated:
    """What became of one picture among several: `file` is the answer, or `error` says why there is none."""

    name: str
    file: bytes | None
    seed: int | None
    error: Refusal | None


class Client:
    """`with Client("http://127.0.0.1:3000") as fewpair: fewpair.segment("street.jpg")`; errors are `serving.errors.Refusal`.

    A server that is full is asked again, when it says so, for `patience` seconds.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 120.0, patience: float = 0.0) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=_bearing(token))
        self._patience = patience
        self.jobs = Jobs(self._http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """The models that answer, as `GET /v1/models` lists them."""
        return cast(list[dict[str, Any]], self._ask("GET", "/v1/models").json()["models"])

    def model(self, name: str) -> dict[str, Any]:
        """One model with its card."""
        return cast(dict[str, Any], self._ask("GET", f"/v1/models/{name}").json())

    def legend(self, name: str) -> bytes:
        """A model's classes and colours as a PNG."""
        return self._ask("GET", f"/v1/models/{name}/legend").content

    def segment(
        self,
        photo: Picture,
        *,
        model: str | None = None,
        output: SegmentOutput = "colours",
        opacity: float = 0.5,
        min_area: int = 1,
        tiles: Tiles = "auto",
    ) -> bytes:
        """The label map of a photo as a file: PNG, JPEG for `overlay`, JSON text for `json` and `polygons`."""
        return self._ask(
            "POST", "/v1/segment", **_one(photo, model=model, output=output, opacity=opacity, min_area=min_area, tiles=tiles)
        ).content

    def report(self, photo: Picture, *, model: str | None = None, min_area: int = 1) -> dict[str, Any]:
        """Class shares and confidence of a photo, and the boxes of its regions of at least `min_area` pixels."""
        return _parsed(self.segment(photo, model=model, output="json", min_area=min_area))

    def polygons(self, photo: Picture, *, model: str | None = None, min_area: int = 1) -> dict[str, Any]:
        """The outlines of a photo's regions of at least `min_area` pixels, as a COCO-style document."""
        return _parsed(self.segment(photo, model=model, output="polygons", min_area=min_area))

    def segment_each(
        self,
        photos: Sequence[Picture],
        *,
        model: str | None = None,
        output: SegmentOutput = "colours",
        opacity: float = 0.5,
        min_area: int = 1,
        tiles: Tiles = "auto",
    ) -> list[Translated]:
        """The label maps of several photos, in their order; one that is refused costs the others nothing."""
        sent = _several(photos, model=model, output=output, opacity=opacity, min_area=min_area, tiles=tiles)
        return _translated(self._ask("POST", "/v1/segment", **sent))

    def synthesize(
        self,
        label: Picture,
        *,
        model: str | None = None,
        seed: int | None = None,
        format: PhotoFormat = "jpeg",
        snap: bool = False,
        tiles: Tiles = "auto",
    ) -> Made:
        """A photo made from a label map."""
        return self.synthesize_several(label, count=1, model=model, seed=seed, format=format, snap=snap, tiles=tiles)[0]

    def synthesize_several(
        self,
        label: Picture,
        *,
        count: int,
        model: str | None = None,
        seed: int | None = None,
        format: PhotoFormat = "jpeg",
        snap: bool = False,
        tiles: Tiles = "auto",
    ) -> list[Made]:
        """Photos made from a label map, from seeds counted up."""
        sent = _one(label, model=model, seed=seed, count=count, format=format, snap=snap, tiles=tiles)
        return _made(self._ask("POST", "/v1/synthesize", **sent))

    def synthesize_each(
        self,
        labels: Sequence[Picture],
        *,
        model: str | None = None,
        seed: int | None = None,
        format: PhotoFormat = "jpeg",
        snap: bool = False,
        tiles: Tiles = "auto",
    ) -> list[Translated]:
        """A photo from each of several label maps, in their order."""
        return _translated(
            self._ask("POST", "/v1/synthesize", **_several(labels, model=model, seed=seed, format=format, snap=snap, tiles=tiles))
        )

    def _ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        until = time.monotonic() + self._patience
        try:
            while (seconds := again_in(response := self._http.request(method, path, **sent), until=until)) is not None:
                time.sleep(seconds)
        except httpx.HTTPError as error:
            raise unreachable(str(self._http.base_url), error) from error
        return checked(response)


class AsyncClient:
    """What `Client` does, awaited: `async with AsyncClient(url) as fewpair: await fewpair.segment("street.jpg")`."""

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 120.0, patience: float = 0.0) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, headers=_bearing(token))
        self._patience = patience
        self.jobs = AsyncJobs(self._http)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """The models that answer, as `GET /v1/models` lists them."""
        return cast(list[dict[str, Any]], (await self._ask("GET", "/v1/models")).json()["models"])

    async def model(self, name: str) -> dict[str, Any]:
        """One model with its card."""
        return cast(dict[str, Any], (await self._ask("GET", f"/v1/models/{name}")).json())

    async def legend(self, name: str) -> bytes:
        """A model's classes and colours as a PNG."""
        return (await self._ask("GET", f"/v1/models/{name}/legend")).content

    async def segment(
        self,
        photo: Picture,
        *,
        model: str | None = None,
        output: SegmentOutput = "colours",
        opacity: float = 0.5,
        min_area: int = 1,
        tiles: Tiles = "auto",
    ) -> bytes:
        """The label map of a photo as a file: PNG, JPEG for `overlay`, JSON text for `json` and `polygons`."""
        sent = _one(photo, model=model, output=output, opacity=opacity, min_area=min_area, tiles=tiles)
        return (await self._ask("POST", "/v1/segment", **sent)).content

    async def report(self, photo: Picture, *, model: str | None = None, min_area: int = 1) -> dict[str, Any]:
        """Class shares and confidence of a photo, and the boxes of its regions of at least `min_area` pixels."""
        return _parsed(await self.segment(photo, model=model, output="json", min_area=min_area))

    async def polygons(self, photo: Picture, *, model: str | None = None, min_area: int = 1) -> dict[str, Any]:
        """The outlines of a photo's regions of at least `min_area` pixels, as a COCO-style document."""
        return _parsed(await self.segment(photo, model=model, output="polygons", min_area=min_area))

    async def segment_each(
        self,
        photos: Sequence[Picture],
        *,
        model: str | None = None,
        output: SegmentOutput = "colours",
        opacity: float = 0.5,
        min_area: int = 1,
        tiles: Tiles = "auto",
    ) -> list[Translated]:
        """The label maps of several photos, in their order; one that is refused costs the others nothing."""
        sent = _several(photos, model=model, output=output, opacity=opacity, min_area=min_area, tiles=tiles)
        return _translated(await self._ask("POST", "/v1/segment", **sent))

    async def synthesize(
        self,
        label: Picture,
        *,
        model: str | None = None,
        seed: int | None = None,
        format: PhotoFormat = "jpeg",
        snap: bool = False,
        tiles: Tiles = "auto",
    ) -> Made:
        """A photo made from a label map."""
        return (await self.synthesize_several(label, count=1, model=model, seed=seed, format=format, snap=snap, tiles=tiles))[0]

    async def synthesize_several(
        self,
        label: Picture,
        *,
        count: int,
        model: str | None = None,
        seed: int | None = None,
        format: PhotoFormat = "jpeg",
        snap: bool = False,
        tiles: Tiles = "auto",
    ) -> list[Made]:
        """Photos made from a label map, from seeds counted up."""
        sent = _one(label, model=model, seed=seed, count=count, format=format, snap=snap, tiles=tiles)
        return _made(await self._ask("POST", "/v1/synthesize", **sent))

    async def synthesize_each(
        self,
        labels: Sequence[Picture],
        *,
        model: str | None = None,
        seed: int | None = None,
        format: PhotoFormat = "jpeg",
        snap: bool = False,
        tiles: Tiles = "auto",
    ) -> list[Translated]:
        """A photo from each of several label maps, in their order."""
        sent = _several(labels, model=model, seed=seed, format=format, snap=snap, tiles=tiles)
        return _translated(await self._ask("POST", "/v1/synthesize", **sent))

    async def _ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        until = time.monotonic() + self._patience
        try:
            while (seconds := again_in(response := await self._http.request(method, path, **sent), until=until)) is not None:
                await asyncio.sleep(seconds)
        except httpx.HTTPError as error:
            raise unreachable(str(self._http.base_url), error) from error
        return checked(response)


def _one(picture: Picture, **fields: Any) -> dict[str, Any]:
    """A request that holds one picture: a form, or JSON where the server is to fetch it."""
    told = {name: value for name, value in fields.items() if value is not None}
    return {"json": {"image": picture, **told}} if is_address(picture) else _form([picture], told)


def _several(pictures: Sequence[Picture], **fields: Any) -> dict[str, Any]:
    told = {"answers": "json", **{name: value for name, value in fields.items() if value is not None}}
    if not any(is_address(picture) for picture in pictures):
        return _form(pictures, told)
    listed = [{"name": name_of(picture, number), "image": _text(picture)} for number, picture in enumerate(pictures)]
    return {"json": {"images": listed, **told}}


def _form(pictures: Sequence[Picture], fields: dict[str, Any]) -> dict[str, Any]:
    files = [("image", (name_of(picture, number), _bytes(picture))) for number, picture in enumerate(pictures)]
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields.items()}
    return {"files": files, "data": texts}


def _bytes(picture: Picture) -> bytes:
    return picture if isinstance(picture, bytes) else Path(picture).read_bytes()


def _text(picture: Picture) -> str:
    return str(picture) if is_address(picture) else base64.b64encode(_bytes(picture)).decode()


def _bearing(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _parsed(body: bytes) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(body))


def _made(response: httpx.Response) -> list[Made]:
    seeds = [int(seed) for seed in response.headers["X-Seed"].split(",")]
    model = response.headers["X-Model"]
    if len(seeds) == 1:
        return [Made(response.content, seeds[0], model)]
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        return [Made(archive.read(name), seed, model) for name, seed in zip(archive.namelist(), seeds, strict=True)]


def _translated(response: httpx.Response) -> list[Translated]:
    return [_entry(entry) for entry in response.json()["answers"]]


def _entry(entry: dict[str, Any]) -> Translated:
    error = entry.get("error")
    if error is not None:
        return Translated(entry["name"], None, None, Refusal(400, error["code"], error["message"], hint=error["hint"]))
    file = json.dumps(entry["result"]).encode() if "result" in entry else base64.b64decode(entry["data"])
    return Translated(entry["name"], file, entry.get("seed"), None)
