"""What the programs ask: requests made once from the photos and label maps of two folders, so that asking costs no work."""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from benchmarks.soak.exchange import Asked

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
ODD_SIZES = ((1, 1), (7, 13), (61, 45), (333, 217), (1031, 77))  # width and height


def pictures_of(folder: Path, *, most: int) -> list[Path]:
    """Picture files of a folder, at most so many, evenly through its names; SystemExit where there are none."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in _PICTURES)
    if not found:
        raise SystemExit(f"{folder} holds no pictures ({', '.join(_PICTURES)}); name a folder that does")
    return [found[index * len(found) // min(most, len(found))] for index in range(min(most, len(found)))]


def form(name: str, path: str, files: Sequence[tuple[str, bytes]], **fields: Any) -> Asked:
    """A multipart form with the files as `image`, as browsers and curl send it. The boundary depends on the name alone."""
    boundary = uuid.uuid5(uuid.NAMESPACE_URL, name).hex
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
        if value is not None
    )
    for file_name, content in files:
        kind = _TYPES.get(Path(file_name).suffix.lower(), "application/octet-stream")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{file_name}"\r\nContent-Type: {kind}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return Asked(name, path, body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}")


def get(path: str) -> Asked:
    """A request without a body."""
    return Asked(path, path, method="GET")


def requests(endpoint: str, photos: Sequence[Path], labels: Sequence[Path], *, model: str | None) -> list[Asked]:
    """Single pictures to /segment (palette PNG), to /synthesize (JPEG, each with its own seed), or to the two in turn (`mix`)."""
    segments = [form(f"segment {photo.name}", "/segment", [(photo.name, photo.read_bytes())], model=model) for photo in photos]
    made = [
        form(f"synthesize {label.name}", "/synthesize", [(label.name, label.read_bytes())], model=model, seed=seed)
        for seed, label in enumerate(labels)
    ]
    match endpoint:
        case "segment":
            return segments
        case "synthesize":
            return made
    return [one for pair in zip(segments, made, strict=False) for one in pair]


def varied(cards: Sequence[Mapping[str, Any]], photos: Sequence[Path], labels: Sequence[Path]) -> list[Asked]:
    """Requests of every kind to every model of GET /v1/models: both faces, all outputs and formats, seeds, several photos, odd sizes."""
    deck: list[Asked] = []
    for card in cards:
        if "to_label" in card["directions"]:
            deck += _segments(card, photos)
        if "to_photo" in card["directions"]:
            deck += _photos(card, labels)
    return deck


def _segments(card: Mapping[str, Any], photos: Sequence[Path]) -> Iterator[Asked]:
    model, classes = card["name"], card["label_kind"] == "classes"
    outputs = ["colours", "overlay", *(("ids", "polygons", "json") if classes else ()), *(["confidence"] if card["confidence"] else [])]
    for number, output in enumerate(outputs):
        photo = photos[number % len(photos)]
        sent = [("image", photo.read_bytes())]  # the short face calls every photo so, and outlines say what their photo is called
        for face in ("", "/v1"):
            yield form(f"{face}/segment {model} {output} {photo.name}", f"{face}/segment", sent, model=model, output=output)
    for number, (width, height) in enumerate(ODD_SIZES):
        photo = photos[number % len(photos)]
        file = _resized(photo, width, height, Image.Resampling.BICUBIC)
        yield Asked(f"/v1/segment {model} raw {width}x{height}", f"/v1/segment?model={quote(model)}", file, "image/png")
    several = [(photo.name, photo.read_bytes()) for photo in photos[:3]]
    yield form(f"/v1/segment {model} three photos", "/v1/segment", several, model=model)
    told = {"model": model, "images": [base64.b64encode(file).decode() for _, file in several]}
    yield Asked(f"/v1/segment {model} three photos as JSON", "/v1/segment", json.dumps(told).encode(), "application/json")


def _photos(card: Mapping[str, Any], labels: Sequence[Path]) -> Iterator[Asked]:
    model = card["name"]
    for seed, format in enumerate(("jpeg", "webp", "png")):
        label = labels[seed % len(labels)]
        fields = {"model": model, "seed": seed * 1_000_003, "format": format}
        for face in ("", "/v1"):
            name = f"{face}/synthesize {model} {format} seed {seed * 1_000_003} {label.name}"
            yield form(name, f"{face}/synthesize", [(label.name, label.read_bytes())], **fields)
    for seed, (width, height) in enumerate(ODD_SIZES):
        label = labels[seed % len(labels)]
        file = _resized(label, width, height, Image.Resampling.NEAREST)
        target = f"/v1/synthesize?model={quote(model)}&seed={seed}&format=png"
        yield Asked(f"/v1/synthesize {model} raw {width}x{height} seed {seed}", target, file, "image/png")
    if card["seeded"]:
        label = labels[0]
        for face in ("", "/v1"):
            name = f"{face}/synthesize {model} count 3 {label.name}"
            yield form(name, f"{face}/synthesize", [(label.name, label.read_bytes())], model=model, seed=11, count=3)


def same_to_both(deck: Sequence[Asked]) -> list[tuple[str, str]]:
    """Names of requests that ask the two faces for the same, in pairs."""
    names = {asked.name for asked in deck}
    return [(name, f"/v1{name}") for name in sorted(names) if f"/v1{name}" in names]


def _resized(path: Path, width: int, height: int, by: Image.Resampling) -> bytes:
    file = io.BytesIO()
    with Image.open(path) as picture:
        picture.resize((width, height), by).save(file, "PNG")
    return file.getvalue()
