"""A project folder in the layout of the command line: photos/, labels/, val/, classes.csv, pairs.json, runs/, ..."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import threading
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from serving.errors import Refusal, ServingError
from serving.imaging.decode import Bytes, encode_grey, image_size, read_photo, saved
from serving.imaging.domain import IGNORE, ClassRow, Domain
from serving.imaging.labels import read_label
from serving.imaging.ranking import NEAR, distances

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"})
_FIRST_TABLE = (ClassRow(0, "background", (96, 104, 120), False), ClassRow(1, "object", (230, 90, 60), False))


class Project:
    """Reads and writes one project folder. Clients name photos by their path below photos/, without the ending."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.train = root / "train" if (root / "train" / "photos").is_dir() else root
        self.val = root / "val"
        self._table = root / "classes.csv"
        self.lock = threading.RLock()  # of each write, and of what was read for it

    def prepare(self) -> None:
        """Write a class table and a models folder where there are none.

        Raises ServingError without photos, or where a photo to train on has the name of one in val/.
        """
        if not self.photos():
            hint = f"Put your photos into {self.train / 'photos'}; sub-folders are fine."
            raise ServingError(f"{self.train / 'photos'} holds no photos.", hint=hint)
        trained_on, measured = _pictures(self.train / "photos"), _pictures(self.val / "photos")
        for name in trained_on.keys() & measured.keys():
            message = f"two photos have the same name: {trained_on[name]} and {measured[name]}."
            raise ServingError(message, hint="Rename one of them, and its label map if it has one.")
        (self.root / "exported").mkdir(exist_ok=True)
        if not self._table.exists():
            self._write_classes(_with_void(_FIRST_TABLE))

    def photos(self) -> dict[str, Path]:
        """The photos, by name: those to train on and those kept for measuring, in val/."""
        return _pictures(self.val / "photos") | _pictures(self.train / "photos")

    def labels(self) -> dict[str, Path]:
        """Their label maps, by the names of the photos. A photo in val/ has its label map there."""
        train, val = _pictures(self.train / "labels"), _pictures(self.val / "labels")
        sides = {name: val if self.kept(path) else train for name, path in self.photos().items()}
        return {name: side[name] for name, side in sides.items() if name in side}

    def kept(self, path: Path) -> bool:
        """Whether a photo or label map is kept for measuring."""
        return path.is_relative_to(self.val)

    def keep(self, name: str, *, kept: bool) -> None:
        """Move a photo and its label map to those kept for measuring, or back to those to train on.

        Raises Refusal where a photo or label map of that name is there already.
        """
        photo, label = self.photo(name), self.labels().get(name)
        if self.kept(photo) == kept:
            return
        before, after = (self.train, self.val) if kept else (self.val, self.train)
        for folder in (after / "photos", after / "labels"):
            if name in (there := _pictures(folder)):
                hint = "Rename or move one of the two files."
                raise Refusal(409, "name_taken", f"{there[name]} has the name of {photo}.", hint=hint)
        for path in filter(None, (photo, label)):
            target = after / path.relative_to(before)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    def photo(self, name: str) -> Path:
        """The file of a photo. Raises Refusal where the folder has no photo of that name."""
        path = self.photos().get(name)
        if path is None:
            raise Refusal(404, "unknown_photo", f"there is no photo {name[:200]!r} in {self.train / 'photos'}.")
        return path

    def domain(self) -> Domain:
        """The class table, with a void class. Raises Refusal where the file cannot be read."""
        return Domain("classes", _with_void(self._rows()))

    def _rows(self) -> tuple[ClassRow, ...]:
        try:
            with self._table.open(newline="", encoding="utf-8-sig") as file:
                return tuple(map(_class_row, csv.DictReader(file, skipinitialspace=True)))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            hint = "Its lines are id,name,r,g,b,ignore; `fewpair check` says more."
            raise Refusal(409, "class_table", f"{self._table} cannot be read: {error!r}.", hint=hint) from None

    def version(self, name: str | None = None) -> str:
        """Another text after each change of a photo's label map, or of the class table."""
        path = self._table if name is None else self.labels().get(name)
        return f'"{0 if path is None else path.stat().st_mtime_ns}"'

    def save_classes(self, rows: Sequence[ClassRow]) -> None:
        """Replace the class table. Raises Refusal where it is not one, or lacks a class that label maps use."""
        hint = "Each class needs an id from 0 to 254, a name and a colour of its own; at least one is not void."
        for word in ("id", "name", "color"):
            values = [getattr(row, word) for row in rows]
            if twice := [value for value in values if values.count(value) > 1]:
                raise Refusal(400, "class_table", f"two classes have the {word} {twice[0]}.", hint=hint)
        if all(row.ignore for row in rows):
            raise Refusal(400, "class_table", "all classes are void.", hint=hint)
        for row in self.domain().classes:
            users = [name for name, counts in self._counts().items() if row.id in counts]
            if users and row.id not in {each.id for each in rows}:
                hint = "Turn its pixels into another class first: Turn all ... into, below the canvas."
                message = f"{len(users)} label maps use the class {row.name}, that of {users[0]} for example."
                raise Refusal(409, "class_in_use", message, hint=hint)
        before = self.domain()
        if {row.id: row.color for row in before.classes} != {row.id: row.color for row in rows}:
            for path in self.labels().values():
                label = read_label(path, before)
                if label.spelling != "ids":  # else its colours would belong to other classes
                    self._write_label(path.with_suffix(".png"), label.ids, path)
        self._write_classes(rows)

    def _write_classes(self, rows: Sequence[ClassRow]) -> None:
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["id", "name", "r", "g", "b", "ignore"])
        table.writerows([row.id, row.name, *row.color, int(row.ignore)] for row in rows)
        _write(self._table, text.getvalue().encode())

    def _counts(self) -> dict[str, dict[int, int]]:
        """The pixels of each class in each photo's label map."""
        domain = self.domain()
        return {name: _counts(path, path.stat().st_mtime_ns, domain) for name, path in self.labels().items()}

    def labelled(self) -> dict[str, float]:
        """The share of its pixels that have a class, for each photo with a label map."""
        ignored = self.domain().ignored_ids
        return {
            name: sum(count for id, count in counts.items() if id not in ignored) / sum(counts.values())
            for name, counts in self._counts().items()
        }

    def label(self, name: str, side: int) -> Bytes:
        """The ids of a photo's label map, uint8[H,W] of at most `side` pixels a side; void where it has none."""
        path, domain, size = self.labels().get(name), self.domain(), image_size(self.photo(name))
        ids = np.full(size, min(domain.ignored_ids), np.uint8) if path is None else read_label(path, domain).ids
        return _shrunk(ids, side, Image.Resampling.NEAREST)

    def save_label(self, name: str, ids: Bytes, *, before_erasing: Callable[[], None]) -> None:
        """Write ids uint8[H,W] as a photo's label map, at the photo's size. A map of void alone removes the file.

        Where they are fewer pixels than the label map had, those that are as they were shown keep its details.
        `before_erasing` may raise Refusal.
        """
        photo = self.photo(name)
        height, width = image_size(photo)
        folder = self.val if self.kept(photo) else self.train
        path, former = folder / "labels" / f"{name}.png", self.labels().get(name)
        domain = self.domain()
        whole = _enlarged(ids, width, height)
        if former is not None and ids.shape != (height, width):
            before = read_label(former, domain).ids
            shown = _shrunk(before, max(ids.shape), Image.Resampling.NEAREST)
            if before.shape == (height, width) and shown.shape == ids.shape:
                whole = np.where(_enlarged(shown == ids, width, height), before, whole)
        if np.isin(whole, list(domain.ignored_ids)).all():
            before_erasing()
            if former is not None:
                former.unlink()
            return
        if domain.classes != self._rows():  # the file has no void class
            self._write_classes(domain.classes)
        self._write_label(path, whole, former)

    def _write_label(self, path: Path, ids: Bytes, former: Path | None) -> None:
        _write(path, encode_grey(ids))
        if former is not None and former != path:
            former.unlink()

    def picks(self) -> dict[str, Any] | None:
        """The newest pairs.json: its photos by rank, and how many photos each represents."""
        files = sorted(self.root.glob("pairs*.json"), key=lambda path: path.stat().st_mtime_ns)
        if not files:
            return None
        content = json.loads(files[-1].read_text(encoding="utf-8"))
        represents = content.get("clusters") or [None] * len(content["pairs"])
        photos = self.photos()
        rows = [
            {"name": pair["name"], "represents": size}
            for pair, size in zip(content["pairs"], represents, strict=True)
            if pair["name"] in photos
        ]
        return {"file": files[-1].name, "rule": content["rule"], "photos": rows}

    def next_pairs_file(self) -> Path:
        """A name for another selection: pairs.json, pairs-2.json, ..."""
        names = (self.root / ("pairs.json" if n == 1 else f"pairs-{n}.json") for n in range(1, 10_000))
        return next(path for path in names if not path.exists())

    def map(self) -> dict[str, Any]:
        """The photos in the plane of their features' first two principal components, and near-duplicates of picks."""
        files = sorted((self.root / "features").glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
        known: dict[bytes, Any] = {}
        if files:
            with np.load(files[-1]) as file:
                known = dict(zip(map(bytes, file["sha256"]), file["features"], strict=True))
        digests = {name: _digest(path, path.stat().st_mtime_ns) for name, path in self.photos().items()}
        names = [name for name, digest in digests.items() if digest in known]
        if len(names) < 3:
            return {"points": [], "near": []}
        features = np.stack([known[digests[name]] for name in names]).astype(np.float64)
        left, scale, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
        plane = left[:, :2] * scale[:2]
        plane = (plane - plane.min(axis=0)) / np.maximum(np.ptp(plane, axis=0), 1e-9)
        points = [{"name": name, "x": x, "y": y} for name, (x, y) in zip(names, plane.round(4).tolist(), strict=True)]
        picks = [names.index(row["name"]) for row in (self.picks() or {"photos": []})["photos"] if row["name"] in names]
        between = distances(features[picks], features)
        limit = NEAR * between[:, picks].sum() / (len(picks) * (len(picks) - 1)) if len(picks) > 1 else 0
        near = np.flatnonzero(between.min(axis=0, initial=np.inf) < limit).tolist()
        return {"points": points, "near": [names[row] for row in near if row not in picks]}


def read_photo_at(path: Path, side: int) -> Bytes:
    """A photo, upright, of at most `side` pixels a side, uint8[H,W,3]."""
    return _shrunk(read_photo(path), side, Image.Resampling.LANCZOS)


def superpixels(photo: Bytes, count: int) -> bytes:
    """About `count` superpixels (SLIC, Achanta et al. 2012) as a PNG: red and green are the low and high byte."""
    from skimage.segmentation import slic  # takes half a second

    numbers = slic(photo, n_segments=count, compactness=12, start_label=0)
    pixels = np.stack([numbers & 255, numbers >> 8, np.zeros_like(numbers)], axis=2).astype(np.uint8)
    return saved(Image.fromarray(pixels), "PNG")


def _class_row(row: dict[str, str]) -> ClassRow:
    """A row of the class table; those of published datasets have `index` for `id`, and no `ignore`."""
    name = row["name"].strip()
    ignore = row.get("ignore", "1" if name.lower() in ("void", "unlabeled", "unlabelled") else "0")
    color = (int(row["r"]), int(row["g"]), int(row["b"]))
    return ClassRow(int(row.get("id") or row["index"]), name, color, ignore.strip().lower() in ("1", "true", "yes"))


def _with_void(rows: Sequence[ClassRow]) -> tuple[ClassRow, ...]:
    """The rows, and a void class of a colour that no other has where none is void."""
    if any(row.ignore for row in rows):
        return tuple(rows)
    grey = next(grey for grey in range(256) if all(row.color != (grey, grey, grey) for row in rows))
    return (*rows, ClassRow(IGNORE, "void", (grey, grey, grey), True))


def _pictures(folder: Path) -> dict[str, Path]:
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() in _ENDINGS and not any(part.startswith(".") for part in inside.parts):
            found[unicodedata.normalize("NFC", inside.with_suffix("").as_posix())] = path
    return found


def _shrunk(values: Bytes, side: int, filter: Image.Resampling) -> Bytes:
    picture = Image.fromarray(values)
    picture.thumbnail((side, side), filter, reducing_gap=None)
    return np.asarray(picture)


def _enlarged(values: np.ndarray[Any, Any], width: int, height: int) -> np.ndarray[Any, Any]:
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST))


@lru_cache(maxsize=4096)
def _counts(path: Path, modified: int, domain: Domain) -> dict[int, int]:
    try:
        counts = np.bincount(read_label(path, domain).ids.ravel())
    except Refusal as error:
        raise Refusal(409, error.code, f"{path}: {error.message}", hint=error.hint) from None
    return {int(id): int(counts[id]) for id in np.flatnonzero(counts)}


@lru_cache(maxsize=65536)
def _digest(path: Path, modified: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
