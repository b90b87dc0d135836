"""A small typed client of the server: `Client` waits for each answer, `AsyncClient` is awaited; both raise the server's own words."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import httpx

from serving.errors import Refusal

if TYPE_CHECKING:  # a client needs no onnxruntime
    from serving.imaging import PhotoFormat
    from serving.operations import SegmentOutput


Picture = bytes | Path | str  # the bytes of an image file, or its path


@dataclass(frozen=True)
class Made:
    """One photo the server made, and what to say to get it again."""

    photo: bytes
    seed: int
    model: str


class Client:
    """`with Client("http://127.0.0.1:3000") as fewpair: fewpair.segment("street.jpg")`; errors are `serving.errors.Refusal`."""

    def __init__(self, url: str, *, timeout: float = 120.0) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout)

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

    def segment(self, photo: Picture, *, model: str | None = None, output: SegmentOutput = "colours", opacity: float = 0.5) -> bytes:
        """The label map of a photo as a file: PNG, JPEG for `overlay`, JSON text for `json`."""
        return self._ask("POST", "/v1/segment", **_form(photo, model=model, output=output, opacity=opacity)).content

    def report(self, photo: Picture, *, model: str | None = None) -> dict[str, Any]:
        """Class shares and confidence of a photo."""
        return cast(dict[str, Any], json.loads(self.segment(photo, model=model, output="json")))

    def synthesize(
        self, label: Picture, *, model: str | None = None, seed: int | None = None, format: PhotoFormat = "jpeg", snap: bool = False
    ) -> Made:
        """A photo made from a label map."""
        return self.synthesize_several(label, count=1, model=model, seed=seed, format=format, snap=snap)[0]

    def synthesize_several(
        self,
        label: Picture,
        *,
        count: int,
        model: str | None = None,
        seed: int | None = None,
        format: PhotoFormat = "jpeg",
        snap: bool = False,
    ) -> list[Made]:
        """Photos made from a label map, from seeds counted up."""
        form = _form(label, model=model, seed=seed, count=count, format=format, snap=snap)
        return _made(self._ask("POST", "/v1/synthesize", **form))

    def _ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        try:
            return _checked(self._http.request(method, path, **sent))
        except httpx.HTTPError as error:
            raise _unreachable(str(self._http.base_url), error) from error


class AsyncClient:
    """The translations and the list, awaited: `async with AsyncClient(url) as fewpair: await fewpair.segment("street.jpg")`."""

    def __init__(self, url: str, *, timeout: float = 120.0) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout)

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

    async def segment(self, photo: Picture, *, model: str | None = None, output: SegmentOutput = "colours", opacity: float = 0.5) -> bytes:
        """The label map of a photo as a file."""
        return (await self._ask("POST", "/v1/segment", **_form(photo, model=model, output=output, opacity=opacity))).content

    async def synthesize(
        self, label: Picture, *, model: str | None = None, seed: int | None = None, format: PhotoFormat = "jpeg", snap: bool = False
    ) -> Made:
        """A photo made from a label map."""
        form = _form(label, model=model, seed=seed, format=format, snap=snap)
        return _made(await self._ask("POST", "/v1/synthesize", **form))[0]

    async def _ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        try:
            return _checked(await self._http.request(method, path, **sent))
        except httpx.HTTPError as error:
            raise _unreachable(str(self._http.base_url), error) from error


def _form(picture: Picture, **fields: Any) -> dict[str, Any]:
    data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    told = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields.items() if value is not None}
    return {"files": {"image": ("image", data)}, "data": told}


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    try:
        error = response.json()["error"]
        raise Refusal(response.status_code, error["code"], error["message"], hint=error["hint"])
    except (ValueError, KeyError, TypeError):
        raise Refusal(response.status_code, "not_fewpair", f"{response.url} answered {response.status_code} in no shape of ours.") from None


def _made(response: httpx.Response) -> list[Made]:
    seeds = [int(seed) for seed in response.headers["X-Seed"].split(",")]
    model = response.headers["X-Model"]
    if len(seeds) == 1:
        return [Made(response.content, seeds[0], model)]
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        return [Made(archive.read(name), seed, model) for name, seed in zip(archive.namelist(), seeds, strict=True)]


def _unreachable(url: str, error: httpx.HTTPError) -> Refusal:
    return Refusal(503, "unreachable", f"{url} does not answer: {error or type(error).__name__}.", hint="Is the server running there?")
