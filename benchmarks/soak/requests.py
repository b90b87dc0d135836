"""The requests of the programs, made once from two folders of photos and label maps, so that sending costs little."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from benchmarks.soak.exchange import Request

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif")
_TYPES = {ending: f"image/{ending[1:]}" for ending in (".png", ".jpeg", ".webp", ".avif")} | {".jpg": "image/jpeg"}
ODD_SIZES = ((1, 1), (7, 13), (61, 45), (333, 217), (1031, 77))  # width and height


def pictures_of(folder: Path, *, most: int) -> list[Path]:
    """Return at most so many pictures of a folder, evenly through its names."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise SystemExit(f"{folder} holds no pictures ({', '.join(_SUFFIXES)}); name a folder that does")
    return [found[index * len(found) // min(most, len(found))] for index in range(min(most, len(found)))]


def get(path: str) -> Request:
    return Request(path, path, method="GET")


def form(name: str, path: str, files: Sequence[tuple[str, bytes]], **fields: Any) -> Request:
    """Return a multipart form with the files as `image`. The boundary depends on the name alone."""
    boundary = uuid.uuid5(uuid.NAMESPACE_URL, name).hex
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
        if value is not None
    )
    for file_name, content in files:
        kind = _TYPES.get(Path(file_name).suffix.lower(), "application/octet-stream")
        head = f'Content-Disposition: form-data; name="image"; filename="{file_name}"\r\nContent-Type: {kind}'
        body += f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"
    return Request(name, path, body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}")


def simple(photos: Sequence[Path], labels: Sequence[Path]) -> list[Request]:
    """Return single pictures to /segment and to /synthesize in turn, each label map with its own seed."""
    found = []
    for seed, (photo, label) in enumerate(zip(photos, labels, strict=False)):
        found.append(form(f"segment {photo.name}", "/segment", [(photo.name, photo.read_bytes())]))
        found.append(form(f"synthesize {label.name}", "/synthesize", [(label.name, label.read_bytes())], seed=seed))
    return found


def varied(models: Sequence[Mapping[str, Any]], photos: Sequence[Path], labels: Sequence[Path]) -> list[Request]:
    """Return requests of every kind to every model of GET /v1/models: all outputs, formats, seeds, several photos, odd
    sizes.
    """
    found: list[Request] = []
    for model in models:
        if "to_label" in model["directions"]:
            found += _segment(model, photos)
        if "to_photo" in model["directions"]:
            found += _synthesize(model, labels)
    return found


def _segment(model: Mapping[str, Any], photos: Sequence[Path]) -> Iterator[Request]:
    name, classes = model["name"], model["label_kind"] == "classes"
    outputs = ["colours", "overlay", *(("ids", "polygons", "json") if classes else ())]
    for number, output in enumerate([*outputs, *(["confidence"] if model["confidence"] else [])]):
        photo = photos[number % len(photos)]
        for prefix in ("", "/v1"):
            sent = [("image", photo.read_bytes())]  # outlines say what their photo is called
            title = f"{prefix}/segment {name} {output} {photo.name}"
            yield form(title, f"{prefix}/segment", sent, model=name, output=output)
    for number, (width, height) in enumerate(ODD_SIZES):
        file = _resized(photos[number % len(photos)], width, height, Image.Resampling.BICUBIC)
        title = f"/v1/segment {name} raw {width}x{height}"
        yield Request(title, f"/v1/segment?model={quote(name)}", file, "image/png")
    several = [(photo.name, photo.read_bytes()) for photo in photos[:3]]
    yield form(f"/v1/segment {name} three photos", "/v1/segment", several, model=name)


def _synthesize(model: Mapping[str, Any], labels: Sequence[Path]) -> Iterator[Request]:
    name = model["name"]
    for number, format in enumerate(("jpeg", "webp", "png")):
        label, seed = labels[number % len(labels)], number * 1_000_003
        for prefix in ("", "/v1"):
            title = f"{prefix}/synthesize {name} {format} seed {seed} {label.name}"
            sent = [(label.name, label.read_bytes())]
            yield form(title, f"{prefix}/synthesize", sent, model=name, seed=seed, format=format)
    for seed, (width, height) in enumerate(ODD_SIZES):
        file = _resized(labels[seed % len(labels)], width, height, Image.Resampling.NEAREST)
        path = f"/v1/synthesize?model={quote(name)}&seed={seed}&format=png"
        yield Request(f"/v1/synthesize {name} raw {width}x{height} seed {seed}", path, file, "image/png")
    if model["seeded"]:
        sent = [(labels[0].name, labels[0].read_bytes())]
        yield form(f"/v1/synthesize {name} count 3", "/v1/synthesize", sent, model=name, seed=11, count=3)


def _resized(path: Path, width: int, height: int, filter: Image.Resampling) -> bytes:
    file = io.BytesIO()
    with Image.open(path) as picture:
        picture.resize((width, height), filter).save(file, "PNG")
    return file.getvalue()
