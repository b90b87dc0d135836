"""From samples to batches: decoded once, augmented afresh at every step, and a pure function of (seed, step)."""

import logging
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.batch import Batch, LabelMap, Pairs, Photo, random
from trainer.data.catalogue import Dataset, Sample, Side
from trainer.data.decode import BrokenFile
from trainer.data.rare_classes import Likelihood
from trainer.errors import UserError

ENLARGED = 286 / 256
"""How much larger than the crop a training picture is."""

LABEL_POOL = "unpaired labels"
"""The stream that may be read from another dataset."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Streams:
    """What a run trains on: the pairs, and two pools whose members know nothing of each other."""

    pairs: tuple[Sample, ...]
    photos: tuple[Sample, ...]
    labels: tuple[Sample, ...]
    labels_from: Dataset | None = None
    """What reads the label pool where it is not the run's own dataset; over the run's classes."""


class Loader:
    """Batches of `batch` pairs, `batch` unpaired photos and `batch` unpaired labels; an empty stream gives tensors of batch length 0.

    Each stream visits each of its samples once an epoch, in a fresh order that depends on (seed, stream, epoch) alone. Balanced, both
    halves are filled in every step, so a smaller stream begins its epochs more often. Otherwise all streams keep the pace of the longest
    one: a half with a tenth of its samples is filled in every tenth step and is empty in the others.

    In the steps of a likelihood the pairs have no epochs: each is drawn with replacement, by its probability.
    """

    def __init__(
        self,
        dataset: Dataset,
        streams: Streams,
        *,
        size: tuple[int, int],
        batch: int,
        seed: int,
        balanced: bool = True,
        likelihood: Likelihood | None = None,
        skip_broken: bool = False,
        cache_bytes: int = 2 << 30,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not (streams.pairs or (streams.photos and streams.labels)):
            raise UserError(f"{dataset.place}: there is nothing to train on: no pair, and not both unpaired photos and unpaired labels")
        if bool(streams.photos) != bool(streams.labels):
            lacking = "labels" if streams.photos else "photos"
            raise UserError(f"{dataset.place}: the unpaired pool has no {lacking}: add some")
        if likelihood is not None and len(likelihood.probabilities) != len(streams.pairs):
            raise ValueError(f"{len(likelihood.probabilities)} probabilities were given for {len(streams.pairs)} pairs")
        self.dataset = dataset
        self.streams = streams
        self.size = size
        self.enlarged = (round(ENLARGED * size[0]), round(ENLARGED * size[1]))
        self.seed = seed
        self.balanced = balanced
        self.likelihood = likelihood
        self.skip_broken = skip_broken
        self.broken: dict[tuple[Side, str], str] = {}
        """The sides that could not be decoded, by their path, each with the reason."""
        self._length = batch
        self._rank, self._world = rank, world
        self._cache: dict[tuple[Side, str], np.ndarray] = {}
        self._room = cache_bytes
        self._lock = threading.Lock()

    @property
    def skipped(self) -> int:
        """How many broken files were met so far."""
        return len(self.broken)

    def batch(self, step: int) -> Batch:
        """The batch of one step (counted from 0), on the CPU; of `world` processes that train together, each has its own share."""
        paired, unpaired = self._turns(step)  # of the step that all processes share, so that all fill the same halves
        step = step * self._world + self._rank
        pairs = [
            self._augmented(arrays, step=step, stream="pairs", index=index)
            for index, arrays in enumerate(self._drawn("pairs", self.streams.pairs, step=step, turn=paired, sides=("photo", "label")))
        ]
        photos, labels = (
            [
                self._augmented(arrays, step=step, stream=stream, index=index)[0]
                for index, arrays in enumerate(self._drawn(stream, pool, step=step, turn=unpaired, sides=(side,)))
            ]
            for stream, pool, side in _pools(self.streams)
        )
        return Batch(
            paired=Pairs(self._photos([photo for photo, _ in pairs]), self._labels([label for _, label in pairs])),
            unpaired=Pairs(self._photos(photos), self._labels(labels)),
        )

    def prefetch(self, start: int, stop: int, *, ahead: int = 3) -> Iterator[Batch]:
        """The batches of steps start..stop-1, made by a background thread that ends when the iterator is closed."""
        made: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=ahead)
        closed = threading.Event()

        def put(item: Batch | BaseException) -> None:
            while not closed.is_set():
                with suppress(queue.Full):
                    made.put(item, timeout=0.1)
                    return

        def work() -> None:
            try:
                for step in range(start, stop):
                    if closed.is_set():
                        return
                    put(self.batch(step))
            except BaseException as error:  # handed to the consumer, who raises it
                put(error)

        worker = threading.Thread(target=work, name="loader", daemon=True)
        worker.start()
        try:
            for _ in range(start, stop):
                item = made.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            closed.set()
            worker.join()

    @property
    def filled(self) -> tuple[float, float]:
        """The shares of the steps in which the paired and the unpaired half are filled."""
        paired, unpaired = self._lengths()
        longest = max(paired, unpaired)
        return (paired / longest, unpaired / longest) if not self.balanced else (float(paired > 0), float(unpaired > 0))

    def _lengths(self) -> tuple[int, int]:
        return len(self.streams.pairs), max(len(self.streams.photos), len(self.streams.labels))

    def _turns(self, step: int) -> tuple[int | None, int | None]:
        """For the paired and the unpaired half: how often it was filled before this step; None where this step leaves it empty."""
        if self.balanced:
            return step, step
        longest = max(self._lengths())
        paired, unpaired = (
            before if before < after else None
            for before, after in ((step * length // longest, (step + 1) * length // longest) for length in self._lengths())
        )
        return paired, unpaired

    def _drawn(
        self, stream: str, pool: Sequence[Sample], *, step: int, turn: int | None, sides: tuple[Side, ...]
    ) -> list[tuple[np.ndarray, ...]]:
        """The samples of one stream in this process's step, the given turn of their half, each as enlarged uint8 arrays."""
        if not pool or turn is None:
            return []
        if stream == "pairs" and self.likelihood is not None and step // self._world in self.likelihood.steps:
            draws = (random(self.seed, step, "draw pairs", index) for index in range(self._length))
            return [self._readable(stream, pool, places=self.likelihood.places(numbers), sides=sides) for numbers in draws]
        begin = (turn * self._world + self._rank) * self._length
        positions = range(begin, begin + self._length)
        return [self._readable(stream, pool, places=self._places(stream, len(pool), position), sides=sides) for position in positions]

    def _places(self, stream: str, length: int, position: int) -> Iterator[int]:
        """Where in its pool the sample at a position of the endless stream stands, then the others of its epoch, which stand in for it."""
        epoch, place = divmod(position, length)
        order = _order(self.seed, epoch, stream, length)
        return (order[(place + offset) % length] for offset in range(length))

    def _readable(self, stream: str, pool: Sequence[Sample], *, places: Iterable[int], sides: tuple[Side, ...]) -> tuple[np.ndarray, ...]:
        """The sample at the first of these places; at the next where it is broken and may be skipped."""
        broken = 0
        for place in places:
            try:
                return tuple(self._enlarged(pool[place], side, stream=stream) for side in sides)
            except BrokenFile:
                if not self.skip_broken:
                    raise
                broken += 1
        raise UserError(f"{self.dataset.place}: every one of the {broken} samples of the stream {stream!r} is broken")

    def _enlarged(self, sample: Sample, side: Side, *, stream: str) -> np.ndarray:
        """One side of a sample at 286/256 of the size, from the cache while that has room; what is broken stays so, and is reported once.

        Whether a side is broken depends on its own file alone, so that batches never depend on what was read before.
        """
        other = self.streams.labels_from if stream == LABEL_POOL else None
        reader = self.dataset if other is None else other
        path = (sample.photo if side == "photo" else sample.label) or ""
        key = (side, path if other is None else f"{other.place}: {path}")
        if key in self._cache:
            return self._cache[key]
        if key in self.broken:
            raise BrokenFile(self.broken[key])
        try:
            array = _resized(reader.read_photo(sample) if side == "photo" else reader.read_label(sample), self.enlarged)
        except BrokenFile as error:
            with self._lock:
                new = key not in self.broken
                self.broken[key] = str(error)
            if new and self.skip_broken:
                log.warning("skipped: %s", error.reason)
            raise
        with self._lock:
            if key not in self._cache and array.nbytes <= self._room:
                self._cache[key] = array
                self._room -= array.nbytes
        return array

    def _augmented(self, arrays: tuple[np.ndarray, ...], *, step: int, stream: str, index: int) -> tuple[np.ndarray, ...]:
        """One crop and one flip, the same for all arrays of a draw."""
        numbers = random(self.seed, step, f"augment {stream}", index)
        height, width = self.size
        top = int(numbers.integers(self.enlarged[0] - height + 1))
        left = int(numbers.integers(self.enlarged[1] - width + 1))
        flip = -1 if numbers.random() < 0.5 else 1
        return tuple(array[top : top + height, left : left + width][:, ::flip] for array in arrays)

    def _photos(self, arrays: Sequence[np.ndarray]) -> Photo:
        return _normalised(np.stack(arrays)) if arrays else torch.zeros(0, 3, *self.size)

    def _labels(self, arrays: Sequence[np.ndarray]) -> LabelMap | Photo:
        if self.dataset.label_domain.kind == "picture":
            return self._photos(arrays)
        return torch.from_numpy(np.stack(arrays)).long() if arrays else torch.zeros(0, *self.size, dtype=torch.long)


def prepare_photo(photo: np.ndarray, size: tuple[int, int]) -> Tensor:
    """uint8[H,W,3] -> Float[3,*size] in [-1,1], by Pillow's bicubic straight to the size: what a server does to an upload."""
    return _normalised(_resized(photo, size)[None])[0]


def prepare_label(label: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Class indices uint8[H,W] -> Long[*size] by Pillow's nearest; a picture uint8[H,W,3] is prepared like a photo."""
    return prepare_photo(label, size) if label.ndim == 3 else torch.from_numpy(_resized(label, size)).long()


def photo_to_uint8(photo: Tensor) -> np.ndarray:
    """Float[...,3,H,W] in [-1,1] -> uint8[...,H,W,3], rounded and clamped."""
    levels = photo.detach().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.movedim(-3, -1).contiguous().cpu().numpy()


def _pools(streams: Streams) -> tuple[tuple[str, tuple[Sample, ...], Side], ...]:
    """The two unpaired streams; their names differ, so their orders, crops and flips do."""
    return ("unpaired photos", streams.photos, "photo"), (LABEL_POOL, streams.labels, "label")


def _resized(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic (antialiased) for pictures, nearest for indices."""
    height, width = size
    how = Image.Resampling.BICUBIC if array.ndim == 3 else Image.Resampling.NEAREST
    return np.array(Image.fromarray(array).resize((width, height), how))


def _normalised(photos: np.ndarray) -> Photo:
    """uint8[B,H,W,3] -> Float[B,3,H,W] in [-1,1]."""
    return torch.from_numpy(np.ascontiguousarray(photos.transpose(0, 3, 1, 2))).float().div_(127.5).sub_(1)


@lru_cache(maxsize=64)
def _order(seed: int, epoch: int, stream: str, length: int) -> tuple[int, ...]:
    return tuple(random(seed, epoch, f"order {stream}").permutation(length).tolist())
