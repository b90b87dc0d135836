"""Label Studio's JSON: polygons and boxes in percent, brush strokes as a bit stream of RGBA."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from trainer.data.formats.geometry import box, ellipse, polygon, rotated
from trainer.data.formats.shapes import Export, Label, Picture, Shape, Unusable, one_size, read_json, shapes_of

PICTURE = re.compile(r"\.(png|jpe?g|webp|avif|bmp|tiff?|gif|heic)$", re.IGNORECASE)
UPLOAD = re.compile(r"^[0-9a-f]{8}-|_[a-z]+\.rf\.\w+$")
"""What Label Studio puts before the name of an uploaded file, and Roboflow behind it."""


def read(root: Path, paths: Sequence[Path], given: Sequence[Label] | None) -> Export:
    """Read the files, which do not list the classes. Where several persons labelled a photo, the first counts."""
    return Export(None, lambda: (_picture(task) for path in paths for task in read_json(path)))


def _picture(task: dict[str, Any]) -> Picture:
    names = sorted({_file(value) for value in task["data"].values() if isinstance(value, str)} - {""})
    if len(names) > 1:
        return Picture(names[0], None, (), ["a task with several pictures, as it is not known which one was labelled"])
    done = [each for each in task.get("annotations", ()) if not each.get("was_cancelled")]
    note = f"a task with {len(done)} annotations, whose first was read" if len(done) > 1 else None
    if not done and task.get("predictions"):
        done, note = task["predictions"], "a task without annotations, whose prediction was read"
    results = [result for result in done[0]["result"] if "value" in result] if done else []  # relations have none
    labels: dict[str, list[str]] = {}
    for result in results:  # with separate tags the label and the shape are two results of one id
        chosen = result["value"].get("labels") or result["value"].get(result["type"])
        if isinstance(chosen, list) and chosen:
            labels.setdefault(result["id"], [str(name).strip() for name in chosen])
    sizes = {(result["original_height"], result["original_width"]) for result in results if "original_width" in result}
    shapes, dropped = shapes_of(results, lambda result: _shape(result, labels))
    size, shapes, of_sizes = one_size(sizes, shapes)
    return Picture("".join(names), size, shapes, dropped + of_sizes, note=note)


def _file(address: str) -> str:
    """Return the path in an address such as /data/local-files/?d=street/1.jpg; "" where it names no picture."""
    parts = urlsplit(address)
    path = (parse_qs(parts.query).get("d") or [unquote(parts.path)])[0]
    return path if PICTURE.search(path) else ""


def _shape(result: dict[str, Any], labels: dict[str, list[str]]) -> Shape | None:
    kind, value = result["type"].removesuffix("labels"), result["value"]
    if kind == "bitmask":
        raise Unusable("a bitmask, which is not read: label with the brush")
    if kind in ("", "choices") or not value.keys() & {"points", "rle", "x"}:
        return None
    if len(labels.get(result["id"], ())) != 1:
        raise Unusable("a region with several labels" if result["id"] in labels else "a region without a label")
    if result.get("image_rotation"):
        raise Unusable("a region on a photo that was turned in Label Studio")
    (label,), size = labels[result["id"]], (result["original_height"], result["original_width"])
    scale = np.array(size[::-1]) / 100
    if kind == "polygon":
        return Shape(label, (polygon(value["points"]) * scale,))
    if kind == "brush":
        return Shape(label, mask=decoded(bytes(value["rle"]), size))
    x, y = np.array([value["x"], value["y"]]) * scale
    if kind == "rectangle":
        width, height = np.array([value["width"], value["height"]]) * scale
        outline = box(x, y, x + width, y + height)
    elif kind == "ellipse":
        outline = ellipse(x, y, value["radiusX"] * scale[0], value["radiusY"] * scale[1])
    else:
        raise Unusable(f"a shape without an area ({kind})")
    return Shape(label, (rotated(outline, value.get("rotation", 0), about=(x, y)),))


def decoded(stream: bytes, size: tuple[int, int]) -> np.ndarray:
    """Return bool[H,W] of a brush region: where the alpha of its RGBA is at least 128.

    The stream: how many values in 32 bits, the bits of a value less one in 5, four bit counts less one in 4 each; then
    chunks of a bit "run?", which of the four counts in 2 bits, the length less one in as many; a run has one value,
    another chunk all of them.
    """
    bits, place = "".join(f"{byte:08b}" for byte in stream), 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = take(32), take(5) + 1
    counts = [take(4) + 1 for _ in range(4)]
    if total != 4 * size[0] * size[1]:
        raise Unusable(f"a mask of {total} values, not 4 for each of {size[0]}x{size[1]} pixels")
    values, filled = np.empty(total, np.uint8), 0
    while filled < total:
        run = take(1)
        length = take(counts[take(2)]) + 1
        count = 1 if run else min(length, total - filled)
        values[filled : filled + length] = [take(word) for _ in range(count)]
        filled += length
    return values.reshape(*size, 4)[..., 3] >= 128
