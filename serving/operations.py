"""What the server does for a caller: segment and synthesize, the same for both HTTP faces and for the page."""

from __future__ import annotations

import io
import json
import secrets
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, cast

from serving.errors import Refusal
from serving.gate import Gate
from serving.imaging import MEDIA_TYPES, Bytes, Limits, PhotoFormat, encode_grey, encode_photo, read_photo
from serving.manifest import Domain
from serving.metrics import current_trace
from serving.palette import Share, Spelling, encode_label, overlay, read_label, shares
from serving.scale import Scaled
from serving.settings import Settings
from serving.shelf import Shelf
from serving.translator import ExportedModel

Upload = Callable[[], bytes]
SegmentOutput = Literal["colours", "ids", "overlay", "confidence", "json"]
PHOTO_FORMATS: tuple[PhotoFormat, ...] = ("jpeg", "webp", "png")
SEEDS = 2**32
MOST_PHOTOS = 16


@dataclass(frozen=True)
class Answer:
    """A body, what it is, and the headers that go with it."""

    body: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Segmentation:
    """A photo and what a model sees in it, at the photo's size. Picture models fill `picture` instead of `ids`."""

    model: ExportedModel
    photo: Bytes
    ids: Bytes | None
    picture: Bytes | None
    confidence: Bytes | None

    @property
    def domain(self) -> Domain:
        return self.model.manifest.label

    def shares(self) -> tuple[Share, ...]:
        return () if self.ids is None else shares(self.ids, self.confidence, domain=self.domain)


@dataclass(frozen=True)
class Synthesis:
    """Photos made from one label map, each with its seed."""

    model: ExportedModel
    photos: tuple[Bytes, ...]
    seeds: tuple[int, ...]
    spelling: Spelling | Literal["picture"]


class Operations:
    """The models on the shelf behind the gate."""

    def __init__(self, shelf: Shelf, settings: Settings) -> None:
        self.shelf = shelf
        self.settings = settings
        self.limits = Limits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)
        self.gate = Gate(runs_at_once=settings.runs_at_once, queue=settings.queue, timeout=settings.timeout)

    async def segment(self, upload: Upload, *, model: str | None, output: SegmentOutput = "colours", opacity: float = 0.5) -> Answer:
        """A photo's label map, as a palette PNG, ids, overlay, confidence or JSON."""
        async with self._place():
            found = await self._segment(upload, model=model)
            with current_trace().stage("encode"):
                return await self.gate.off_loop(lambda: encode_segmentation(found, output=output, opacity=opacity))

    async def synthesize(
        self,
        upload: Upload,
        *,
        model: str | None,
        seed: int | None = None,
        count: int = 1,
        format: PhotoFormat = "jpeg",
        snap: bool = False,
    ) -> Answer:
        """A photo made from a label map; a ZIP of them when `count` is over 1. The seeds used are in `X-Seed`."""
        async with self._place():
            made = await self._synthesize(upload, model=model, seed=seed, count=count, snap=snap)
            with current_trace().stage("encode"):
                return await self.gate.off_loop(lambda: encode_synthesis(made, format=format))

    async def segmentation(self, upload: Upload, *, model: str | None) -> Segmentation:
        """A photo's label map as arrays."""
        async with self._place():
            return await self._segment(upload, model=model)

    async def synthesis(self, upload: Upload, *, model: str | None, seed: int | None, snap: bool) -> Synthesis:
        """A photo made from a label map, as arrays."""
        async with self._place():
            return await self._synthesize(upload, model=model, seed=seed, count=1, snap=snap)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        trace, asked = current_trace(), perf_counter()
        async with self.gate.place():
            trace.stages["wait"] = perf_counter() - asked
            yield

    async def _segment(self, upload: Upload, *, model: str | None) -> Segmentation:
        chosen = self.shelf.choose(model, "to_label")
        trace = current_trace()
        trace.model = chosen.name

        def decode() -> tuple[Bytes, Scaled]:
            photo = read_photo(upload(), self.limits)
            return photo, chosen.prepare(photo)

        with trace.stage("decode"):
            photo, scaled = await self.gate.off_loop(decode)
        found = await self._run(lambda: chosen.run("to_label", scaled))

        def restore() -> Segmentation:
            return see(chosen, photo, chosen.restore("to_label", found, scaled), confidence=chosen.confidence(found, scaled))

        with trace.stage("encode"):
            return await self.gate.off_loop(restore)

    async def _synthesize(self, upload: Upload, *, model: str | None, seed: int | None, count: int, snap: bool) -> Synthesis:
        chosen = self.shelf.choose(model, "to_photo")
        trace = current_trace()
        trace.model = chosen.name
        seeds = _seeds(seed, count, noisy=chosen.manifest.directions["to_photo"].noise is not None)

        def decode() -> tuple[Scaled, Spelling | Literal["picture"]]:
            if chosen.manifest.label.kind == "picture":
                return chosen.prepare(read_photo(upload(), self.limits)), "picture"
            label = read_label(upload(), self.limits, domain=chosen.manifest.label, snap=snap)
            return chosen.prepare(label.ids), label.spelling

        with trace.stage("decode"):
            scaled, spelling = await self.gate.off_loop(decode)
        photos = [await self._photo(chosen, scaled, one) for one in seeds]
        return Synthesis(chosen, tuple(photos), seeds, spelling)

    async def _photo(self, chosen: ExportedModel, scaled: Scaled, seed: int) -> Bytes:
        found = await self._run(lambda: chosen.run("to_photo", scaled, seed=seed))
        with current_trace().stage("encode"):
            return await self.gate.off_loop(lambda: chosen.restore("to_photo", found, scaled))

    async def _run(self, work: Callable[[], dict[str, Bytes]]) -> dict[str, Bytes]:
        trace = current_trace()

        def timed() -> dict[str, Bytes]:
            with trace.stage("run"):
                return work()

        before = trace.stages.get("run", 0.0)
        with trace.stage("wait"):
            found = await self.gate.run(timed)
        trace.stages["wait"] -= trace.stages.get("run", 0.0) - before
        return found


def _seeds(seed: int | None, count: int, *, noisy: bool) -> tuple[int, ...]:
    if seed is not None and not 0 <= seed < SEEDS:
        raise Refusal(
            400, "bad_seed", f"seed {seed} lies outside 0 to {SEEDS - 1}.", hint="Leave it out for a random one; X-Seed tells which."
        )
    if not 1 <= count <= MOST_PHOTOS:
        raise Refusal(400, "bad_count", f"count {count} lies outside 1 to {MOST_PHOTOS}.", hint="Ask for fewer photos, several times.")
    if count > 1 and not noisy:
        raise Refusal(400, "no_noise", "this model takes no noise, so every seed gives the same photo.", hint="Leave count out.")
    first = secrets.randbelow(SEEDS) if seed is None else seed
    return tuple((first + offset) % SEEDS for offset in range(count))


def see(model: ExportedModel, photo: Bytes, answer: Bytes, *, confidence: Bytes | None) -> Segmentation:
    """A model's answer beside its photo, as classes or as a picture."""
    classes = model.manifest.label.kind == "classes"
    return Segmentation(model, photo, answer if classes else None, None if classes else answer, confidence)


def encode_segmentation(found: Segmentation, *, output: SegmentOutput, opacity: float) -> Answer:
    """A segmentation as the file that was asked for."""
    headers = {"X-Model": found.model.name}
    if found.ids is None:
        if output not in ("colours", "overlay"):
            raise Refusal(
                400, "no_classes", f"model {found.model.name} answers with a picture, not with classes.", hint="Ask for output=colours."
            )
        return Answer(encode_photo(cast(Bytes, found.picture), "png"), MEDIA_TYPES["png"], headers)
    if output == "overlay":
        return Answer(
            encode_photo(overlay(found.photo, found.ids, domain=found.domain, opacity=opacity), "jpeg"), MEDIA_TYPES["jpeg"], headers
        )
    if output == "confidence":
        if found.confidence is None:
            raise Refusal(
                400, "no_confidence", f"model {found.model.name} gives no confidence.", hint="Its label maps are decoded from colours."
            )
        return Answer(encode_grey(found.confidence), MEDIA_TYPES["png"], headers)
    if output == "json":
        return Answer(json.dumps(describe(found)).encode(), "application/json", headers)
    body = encode_grey(found.ids) if output == "ids" else encode_label(found.ids, found.domain)
    return Answer(body, MEDIA_TYPES["png"], headers)


def describe(found: Segmentation) -> dict[str, Any]:
    """A segmentation in figures: the classes that occur with their shares, and how sure the model is."""
    height, width = found.photo.shape[:2]
    return {
        "model": found.model.name,
        "width": width,
        "height": height,
        "mean_confidence": None if found.confidence is None else round(float(found.confidence.mean()) / 255, 4),
        "classes": [
            {
                "id": part.row.id,
                "name": part.row.name,
                "color": list(part.row.color),
                "ignore": part.row.ignore,
                "pixels": part.pixels,
                "share": round(part.share, 6),
                "mean_confidence": None if part.confidence is None else round(part.confidence, 4),
            }
            for part in found.shares()
        ],
    }


def encode_synthesis(made: Synthesis, *, format: PhotoFormat) -> Answer:
    """The photo, or a ZIP of the photos named by their seeds."""
    headers = {"X-Model": made.model.name, "X-Seed": ",".join(str(seed) for seed in made.seeds), "X-Label-Spelling": made.spelling}
    if len(made.photos) == 1:
        return Answer(encode_photo(made.photos[0], format), MEDIA_TYPES[format], headers)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for photo, seed in zip(made.photos, made.seeds, strict=True):
            entry = zipfile.ZipInfo(f"{made.model.name}-seed-{seed}.{format}")  # without a date: equal seeds give equal bytes
            archive.writestr(entry, encode_photo(photo, format))
    return Answer(file.getvalue(), "application/zip", headers)
