"""Features that survive an interruption: one append-only file an extractor, read and written in fixed memory."""

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from trainer.data.catalogue import Dataset, Sample
from trainer.errors import UserError

KEY = 16
"""Bytes of the key that opens a record."""
CHECK = 4
"""Bytes of the CRC-32 that closes it."""


class FeatureCache:
    """Rows of Float32[D] under 16-byte keys, in `<folder>/<name>.features`.

    The file is a line of JSON that names the extractor, then records of one length: key, row, CRC-32. A record that a killed process
    left half-written is cut off when the file is opened, one whose CRC is wrong counts as absent, and of a row put twice the last counts.
    """

    def __init__(self, folder: Path, *, name: str, extractor: str, dimensions: int) -> None:
        self.path = folder / f"{name}.features"
        self.dimensions = dimensions
        self._row = np.dtype([("key", f"V{KEY}"), ("row", "<f4", (dimensions,)), ("check", "<u4")])
        self._head = (json.dumps({"fewpair features": 1, "extractor": extractor, "dimensions": dimensions}) + "\n").encode()

    @contextmanager
    def opened(self) -> Iterator["FeatureCache"]:
        """The file made or mended, and held against other processes until the block ends; one that comes later waits."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._mend()
            yield self

    def load(self, keys: Sequence[bytes], into: np.ndarray) -> np.ndarray:
        """Fill the rows of `into` whose keys the file holds; returns bool[N], True where one was found."""
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        found = np.zeros(len(keys), dtype=bool)
        with self.path.open("rb") as file:
            file.seek(len(self._head))
            while chunk := file.read(256 * self._row.itemsize):
                for record in np.frombuffer(chunk, self._row, count=len(chunk) // self._row.itemsize):  # the last may be half-written
                    wanted = places.get(record["key"].tobytes())
                    if wanted is not None and _check(record["key"].tobytes(), record["row"]) == record["check"]:
                        into[wanted] = record["row"]
                        found[wanted] = True
        return found

    def put(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Append rows Float32[B,D]; they are with the operating system when this returns."""
        records = np.zeros(len(keys), self._row)
        for record, key, row in zip(records, keys, rows, strict=True):
            record["key"] = np.void(key)
            record["row"] = row
            record["check"] = _check(key, record["row"])
        with self.path.open("ab", buffering=0) as file:
            file.write(records.tobytes())

    def _mend(self) -> None:
        """Write the head of a new file, and cut off a record that was not finished."""
        size = self.path.stat().st_size
        with self.path.open("r+b") as file:
            head = file.read(len(self._head))
            if size < len(self._head) and self._head.startswith(head):
                file.seek(0)
                file.write(self._head)
                file.truncate()
            elif head != self._head:
                raise UserError(f"{self.path} holds no features of this extractor: remove it, or name another folder with --cache")
            else:
                os.truncate(file.fileno(), size - (size - len(self._head)) % self._row.itemsize)


class NotKnown(Exception):
    """Features that are asked for are not in the cache, where none may be computed."""

    def __init__(self, count: int) -> None:
        super().__init__(f"the features of {count} photos are not known")
        self.count = count
        """How many photos would have to be looked at."""


class KnownFeatures:
    """The features that a cache holds already, in the place of their extractor: no network is loaded, and no photo is decoded."""

    def __init__(self, *, name: str, sha256: str) -> None:
        self.name = name
        self.sha256 = sha256

    def features(self, dataset: Dataset, samples: Sequence[Sample], *, cache: Path | None, progress: bool) -> np.ndarray:
        """Float32[N,D] in the samples' order. Raises NotKnown where the cache lacks any of them; it is neither made, mended nor held."""
        store = None if cache is None else self._opened(cache)
        if store is None:
            raise NotKnown(len(samples))
        rows = np.empty((len(samples), store.dimensions), np.float32)
        known = store.load([key_of(dataset, sample) for sample in samples], rows)
        if not known.all():
            raise NotKnown(int((~known).sum()))
        return rows

    def readable(
        self, dataset: Dataset, samples: Sequence[Sample], *, cache: Path | None, progress: bool
    ) -> tuple[np.ndarray, dict[Sample, str]]:
        """The same; that a photo is broken is not found out here."""
        return self.features(dataset, samples, cache=cache, progress=progress), {}

    def _opened(self, folder: Path) -> FeatureCache | None:
        """The extractor's file; None where there is none yet, or none of this extractor."""
        path = FeatureCache(folder, name=self.name, extractor=self.sha256, dimensions=1).path
        try:
            with path.open("rb") as file:
                head = json.loads(file.readline(1024))
            return FeatureCache(folder, name=self.name, extractor=self.sha256, dimensions=int(head["dimensions"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


def key_of(dataset: Dataset, sample: Sample) -> bytes:
    """What a photo's row is found by: its path, size and time of change; drawn photos, which have no file, by their content."""
    if dataset.root is None:
        identity = f"{dataset.name}\0{sample.photo}\0{dataset.digest(sample, 'photo')}"
    else:
        path = dataset.file(sample, "photo")
        try:
            status = path.stat()
        except OSError:
            status = None  # it is found unreadable where it is decoded
        identity = f"{dataset.name}\0{sample.photo}\0{path.resolve()}\0{status and (status.st_size, status.st_mtime_ns)}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).digest()[:KEY]


def _check(key: bytes, row: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(row).tobytes(), zlib.crc32(key))
