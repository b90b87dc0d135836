"""Results of a model and the files they are encoded as: label maps, overlays, figures as JSON, polygons, photos."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from serving.errors import Refusal
from serving.imaging.annotations import Coco
from serving.imaging.decode import MEDIA_TYPES, Bytes, encode_grey, encode_label, encode_photo
from serving.imaging.domain import ClassRow, Domain
from serving.imaging.labels import bands
from serving.imaging.regions import regions
from serving.inference.parameters import SegmentParameters
from serving.models.model import ExportedModel

MOST_BOXES = 1000
ENDINGS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "application/json": ".json",
    "application/zip": ".zip",
}


@dataclass(frozen=True)
class Answer:
    """An encoded result: body, media type and response headers."""

    body: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Share(ClassRow):
    """How much of a label map one class covers: its share of the pixels and their mean confidence, both 0 to 1."""

    pixels: int
    share: float
    mean_confidence: float | None


@dataclass(frozen=True)
class Segmentation:
    """A photo and its answer at its size: ids [H,W], or a picture [H,W,3] of a picture-to-picture model."""

    model: ExportedModel
    photo: Bytes
    answer: Bytes
    confidence: Bytes | None
    tiling: str

    @property
    def domain(self) -> Domain:
        return self.model.manifest.label

    @property
    def mean_confidence(self) -> float | None:
        return None if self.confidence is None else round(float(self.confidence.mean()) / 255, 4)


def check_output(model: ExportedModel, parameters: SegmentParameters) -> None:
    """Raise Refusal where the model cannot give the requested output."""
    if model.manifest.label.kind == "picture" and parameters.output not in ("colours", "overlay"):
        message = f"model {model.name} answers with a picture, not with classes."
        raise Refusal(400, "no_classes", message, hint="Set output to colours or overlay.")
    if parameters.output == "confidence" and not model.has_confidence:
        message = f"model {model.name} gives no confidence."
        hint = "Set another output; this model's label maps are decoded from colours."
        raise Refusal(400, "no_confidence", message, hint=hint)


def encode_segmentation(found: Segmentation, parameters: SegmentParameters, *, name: str) -> Answer:
    """Encode a segmentation as the requested output, after `check_output`; `name` is the photo's, for polygons."""
    headers = {"X-Model": found.model.name, "X-Tiling": found.tiling}
    if parameters.output == "overlay":
        laid = overlay(found.photo, found.answer, domain=found.domain, opacity=parameters.opacity)
        return Answer(encode_photo(laid, "jpeg"), MEDIA_TYPES["jpeg"], headers)
    if parameters.output == "json":
        return Answer(json.dumps(_describe(found, parameters.min_area)).encode(), "application/json", headers)
    if parameters.output == "polygons":
        return Answer(json.dumps(_polygons(found, parameters.min_area, name)).encode(), "application/json", headers)
    if parameters.output == "confidence":
        assert found.confidence is not None
        body = encode_grey(found.confidence)
    elif parameters.output == "ids":
        body = encode_grey(found.answer)
    elif found.domain.kind == "picture":
        body = encode_photo(found.answer, "png")
    else:
        body = encode_label(found.answer, found.domain)
    return Answer(body, MEDIA_TYPES["png"], headers)


def overlay(photo: Bytes, above: Bytes, *, domain: Domain, opacity: float) -> Bytes:
    """Lay a picture, or the class colours of ids, over a photo of the same size; void leaves the photo as it is."""
    weight, laid = round(256 * opacity), np.empty_like(photo)
    for band in bands(photo):
        below, layer = photo[band], above[band]
        if layer.ndim == 2:
            layer = np.where(np.isin(layer, list(domain.ignored_ids))[..., None], below, domain.palette[layer])
        laid[band] = (below.astype(np.uint16) * (256 - weight) + layer.astype(np.uint16) * weight + 128) >> 8
    return laid


def shares(ids: Bytes, confidence: Bytes | None, *, domain: Domain) -> tuple[Share, ...]:
    """Return the classes that occur, largest first."""
    pixels, sums = np.zeros(256, np.int64), np.zeros(256)
    for band in bands(ids):
        pixels += np.bincount(ids[band].ravel(), minlength=256)
        if confidence is not None:
            sums += np.bincount(ids[band].ravel(), weights=confidence[band].ravel(), minlength=256)
    found = []
    for row in domain.classes:
        if count := int(pixels[row.id]):
            mean = None if confidence is None else round(float(sums[row.id]) / count / 255, 4)
            found.append(Share(**vars(row), pixels=count, share=round(count / ids.size, 6), mean_confidence=mean))
    return tuple(sorted(found, key=lambda share: -share.pixels))


def photos_of_one(photos: tuple[Answer, ...]) -> Answer:
    """Return the photo of one label map, or a ZIP of its photos named by their seeds."""
    if len(photos) == 1:
        return photos[0]
    seeds = [photo.headers["X-Seed"] for photo in photos]
    files = {
        f"{photo.headers['X-Model']}-seed-{seed}{ENDINGS[photo.media_type]}": photo.body
        for photo, seed in zip(photos, seeds, strict=True)
    }
    return Answer(pack_zip(files), "application/zip", {**photos[0].headers, "X-Seed": ",".join(seeds)})


def pack_zip(files: dict[str, bytes]) -> bytes:
    """Return the files as a ZIP without compression and dates: equal files give equal bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, body in files.items():
            archive.writestr(zipfile.ZipInfo(name), body)
    return file.getvalue()


def clean_name(path: str) -> str:
    """Return a file name or path from a client as a relative path that stays in its folder."""
    readable = "".join(letter for letter in path.replace("\\", "/") if letter.isprintable())
    parts = [part[-80:] for part in PurePosixPath(readable).parts if part not in ("/", "//", "..", ".")]
    return "/".join(parts[-8:]) or "picture"


def _describe(found: Segmentation, min_area: int) -> dict[str, Any]:
    """Return the classes with their shares and mean confidence, and the boxes of the largest regions."""
    outlined = regions(found.answer, found.domain, min_area=min_area)
    boxes = [
        {"id": region.row.id, "name": region.row.name, "area": region.area, "box": list(region.box)}
        for region in (outlined or ())[:MOST_BOXES]
    ]
    return {
        "model": found.model.name,
        "width": found.answer.shape[1],
        "height": found.answer.shape[0],
        "mean_confidence": found.mean_confidence,
        "classes": [vars(part) for part in shares(found.answer, found.confidence, domain=found.domain)],
        "regions_found": None if outlined is None else len(outlined),
        "regions": None if outlined is None else boxes,
    }


def _polygons(found: Segmentation, min_area: int, name: str) -> dict[str, Any]:
    """Return the regions as a COCO-style document of one image called `name`."""
    coco = Coco(Path(), found.domain, min_area=min_area)
    coco.add(Path(name), found.answer, photo=Path(name))
    return {"info": {"description": f"Regions found by the model {found.model.name}."}, **coco.document()}
