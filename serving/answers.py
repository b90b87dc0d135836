"""Translations and the files they are answered as."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from typing import Literal

from serving.asked import SegmentOptions
from serving.errors import Refusal
from serving.imaging import MEDIA_TYPES, Bytes, PhotoFormat, encode_grey, encode_photo
from serving.manifest import Domain
from serving.palette import Share, Spelling, blended, encode_label, overlay, shares
from serving.report import describe, polygons
from serving.translator import ExportedModel

ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "application/json": ".json", "application/zip": ".zip"}


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


def see(model: ExportedModel, photo: Bytes, answer: Bytes, *, confidence: Bytes | None) -> Segmentation:
    """A model's answer beside its photo, as classes or as a picture."""
    classes = model.manifest.label.kind == "classes"
    return Segmentation(model, photo, answer if classes else None, None if classes else answer, confidence)


def check_output(model: ExportedModel, options: SegmentOptions) -> None:
    """Refusal where the model cannot answer in this output, so that nobody waits for it."""
    if model.manifest.label.kind == "picture" and options.output not in ("colours", "overlay"):
        raise Refusal(400, "no_classes", f"model {model.name} answers with a picture, not with classes.", hint="Ask for output=colours.")
    if options.output == "confidence" and not model.has_confidence:
        raise Refusal(400, "no_confidence", f"model {model.name} gives no confidence.", hint="Its label maps are decoded from colours.")


def encode_segmentation(found: Segmentation, options: SegmentOptions, *, name: str) -> Answer:
    """A segmentation as the file that was asked for; `name` is the photo's."""
    check_output(found.model, options)
    headers = {"X-Model": found.model.name}
    if options.output == "overlay":
        return Answer(encode_photo(_overlaid(found, options.opacity), "jpeg"), MEDIA_TYPES["jpeg"], headers)
    if found.ids is None:
        assert found.picture is not None
        return Answer(encode_photo(found.picture, "png"), MEDIA_TYPES["png"], headers)
    if options.output == "confidence":
        assert found.confidence is not None
        return Answer(encode_grey(found.confidence), MEDIA_TYPES["png"], headers)
    if options.output == "json":
        told = describe(found.model.name, found.ids, found.confidence, domain=found.domain, min_area=options.min_area)
        return Answer(json.dumps(told).encode(), "application/json", headers)
    if options.output == "polygons":
        told = polygons(found.model.name, found.ids, name=name, domain=found.domain, min_area=options.min_area)
        return Answer(json.dumps(told).encode(), "application/json", headers)
    body = encode_grey(found.ids) if options.output == "ids" else encode_label(found.ids, found.domain)
    return Answer(body, MEDIA_TYPES["png"], headers)


def _overlaid(found: Segmentation, opacity: float) -> Bytes:
    if found.ids is None:
        assert found.picture is not None
        return blended(found.photo, found.picture, opacity=opacity)
    return overlay(found.photo, found.ids, domain=found.domain, opacity=opacity)


def encode_photos(made: Synthesis, format: PhotoFormat) -> tuple[Answer, ...]:
    """Each photo as a file with its seed and how its label map was read."""
    return tuple(
        Answer(
            encode_photo(photo, format),
            MEDIA_TYPES[format],
            {"X-Model": made.model.name, "X-Seed": str(seed), "X-Label-Spelling": made.spelling},
        )
        for photo, seed in zip(made.photos, made.seeds, strict=True)
    )


def photos_of_one(photos: tuple[Answer, ...]) -> Answer:
    """The photo of one label map, or a ZIP of its photos named by their seeds."""
    if len(photos) == 1:
        return photos[0]
    seeds = [photo.headers["X-Seed"] for photo in photos]
    names = [f"{photo.headers['X-Model']}-seed-{seed}{ENDINGS[photo.media_type]}" for photo, seed in zip(photos, seeds, strict=True)]
    packed = pack_zip({name: photo.body for name, photo in zip(names, photos, strict=True)})
    return Answer(packed, "application/zip", {**photos[0].headers, "X-Seed": ",".join(seeds)})


def pack_zip(files: dict[str, bytes]) -> bytes:
    """The files in a ZIP, stored as they are and without a date: equal answers give equal bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, body in files.items():
            archive.writestr(zipfile.ZipInfo(name), body)
    return file.getvalue()
