"""From samples to batches: decoded once, augmented afresh at every step, and a pure function of (seed, step)."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.batch import Batch, LabelMap, Pairs, Photo, random
from trainer.data.dataset import Dataset, Sample, resized
from trainer.data.selection.rare_classes import SamplingWeights
from trainer.data.selection.selection import Selection

ENLARGED = 286 / 256
"""How much larger than the crop a training picture is."""
AHEAD = 3
"""Batches that are made while a step runs."""
CACHE = 2 << 30
"""Bytes of decoded pictures that are kept."""


class _Stream(NamedTuple):
    """Samples that are drawn together; the name decides their random numbers."""

    name: str
    samples: tuple[Sample, ...]
    sides: tuple[str, ...]
    dataset: Dataset


class Loader:
    """Batches of `batch` pairs, unpaired photos and unpaired labels; an empty stream gives batch length 0.

    Each stream visits each of its samples once an epoch, in a new order that depends on (seed, stream, epoch) alone.
    Balanced, both halves are filled in every step, so a smaller stream begins its epochs more often. Otherwise the
    halves are filled in proportion to their sizes: one with a tenth of the other's samples in every tenth step.

    In the steps of sampling weights the pairs have no epochs: each is drawn with replacement, by its probability.
    """

    def __init__(
        self,
        dataset: Dataset,
        selection: Selection,
        *,
        size: tuple[int, int],
        batch: int,
        seed: int,
        progressive: Sequence[tuple[int, int, int]] = (),
        enlarge: bool = True,
        balanced: bool = True,
        weights: SamplingWeights | None = None,
        sides: Iterable[str] = (),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.dataset = dataset
        self.selection = selection
        self._pairs = _Stream("pairs", selection.pairs, ("photo", "label", *sorted(sides)), dataset)
        self._unpaired_photos = _Stream("unpaired photos", selection.unpaired_photos, ("photo",), dataset)
        self._unpaired_labels = _Stream("unpaired labels", selection.unpaired_labels, ("label",), selection.labels_from)
        self.size = size
        self.progressive = tuple(progressive)
        """(until step, height, width): the smaller sizes that come before `size`, each up to its step."""
        self.seed = seed
        self.enlarged = ENLARGED if enlarge else 1.0
        self.balanced = balanced
        self.weights = weights
        self._length = batch
        self._rank, self._world = rank, world
        self._cache: dict[tuple[str, str], np.ndarray] = {}
        self._room = CACHE
        self._lock = threading.Lock()  # batches are made by the thread of `prefetch` and, in evaluations, by the caller

    def size_at(self, step: int) -> tuple[int, int]:
        """Height and width of the crops of a step."""
        return next(((height, width) for until, height, width in self.progressive if step < until), self.size)

    def batch(self, step: int) -> Batch:
        """Return the batch of one step (from 0), on the CPU; each of `world` processes has its own share."""
        size = self.size_at(step)
        paired, unpaired = self._filled_before(step)  # of the step that all processes share: they fill the same halves
        step = step * self._world + self._rank
        photo, label, *others = self._tensors(self._pairs, size=size, step=step, filled=paired)
        (unpaired_photo,) = self._tensors(self._unpaired_photos, size=size, step=step, filled=unpaired)
        (unpaired_label,) = self._tensors(self._unpaired_labels, size=size, step=step, filled=unpaired)
        sides = dict(zip(self._pairs.sides[2:], others, strict=True))
        return Batch(paired=Pairs(photo, label, sides), unpaired=Pairs(unpaired_photo, unpaired_label))

    def prefetch(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps start..stop-1, made by a background thread that ends when the iterator is closed."""
        worker = ThreadPoolExecutor(1, thread_name_prefix="loader")
        try:
            steps = iter(range(start, stop))
            made = deque(worker.submit(self.batch, step) for step in islice(steps, AHEAD))
            while made:
                batch = made.popleft().result()
                made.extend(worker.submit(self.batch, step) for step in islice(steps, 1))
                yield batch
        finally:
            worker.shutdown(cancel_futures=True)

    def _filled_before(self, step: int) -> tuple[int | None, int | None]:
        """How often the paired and the unpaired half were filled before this step; None where it stays empty."""
        if self.balanced:
            return step, step
        photos, labels = self.selection.unpaired_photos, self.selection.unpaired_labels
        lengths = len(self.selection.pairs), max(len(photos), len(labels))
        longest = max(lengths)
        counts = [(step * length // longest, (step + 1) * length // longest) for length in lengths]
        paired, unpaired = (before if before < after else None for before, after in counts)
        return paired, unpaired

    def _tensors(
        self, stream: "_Stream", *, size: tuple[int, int], step: int, filled: int | None
    ) -> list[LabelMap | Photo]:
        """The crops of one stream in this step: a tensor for each side. `filled` is how often its half was before."""
        height, width = size
        crops = []
        for index in range(self._length if stream.samples and filled is not None else 0):
            sample = stream.samples[self._place(stream, step=step, filled=filled or 0, index=index)]
            arrays = [self._enlarged(stream, sample, side, size=size) for side in stream.sides]
            rng = random(self.seed, step, f"augment {stream.name}", index)
            top = int(rng.integers(arrays[0].shape[0] - height + 1))
            left = int(rng.integers(arrays[0].shape[1] - width + 1))
            flip = -1 if rng.random() < 0.5 and stream.dataset.flips else 1
            crops.append(tuple(array[top : top + height, left : left + width][:, ::flip] for array in arrays))
        if crops:
            return [_tensor(np.stack(arrays)) for arrays in zip(*crops, strict=True)]
        pictures = {"photo": True, "label": self.dataset.label_domain.kind == "picture"}
        pictures |= {name: kind == "picture" for name, kind in self.dataset.sides.items()}
        return [
            torch.zeros(0, 3, *size) if pictures[side] else torch.zeros(0, *size, dtype=torch.long)
            for side in stream.sides
        ]

    def _place(self, stream: "_Stream", *, step: int, filled: int, index: int) -> int:
        """The sample at one position of a batch."""
        if stream is self._pairs and self.weights is not None and step // self._world in self.weights.steps:
            return self.weights.draw(random(self.seed, step, "draw pairs", index))
        count = len(stream.samples)
        epoch, place = divmod((filled * self._world + self._rank) * self._length + index, count)
        return _permutation(self.seed, epoch, stream.name, count)[place]

    def _enlarged(self, stream: "_Stream", sample: Sample, side: str, *, size: tuple[int, int]) -> np.ndarray:
        """One side of a sample at the size that crops are cut from, from the cache if it is there."""
        key = (side, f"{stream.dataset.place}: {sample.path(side)}")
        cached = self._cache.get(key)
        enlarged = (round(self.enlarged * size[0]), round(self.enlarged * size[1]))
        if cached is not None and cached.shape[:2] == enlarged:
            return cached
        array = resized(_read(stream.dataset, sample, side), enlarged)
        with self._lock:
            cached = self._cache.pop(key, None)  # of another size, of an earlier stage
            self._room += 0 if cached is None else cached.nbytes
            if array.nbytes <= self._room:
                self._cache[key] = array
                self._room -= array.nbytes
        return array


def prepared(picture: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Picture uint8[H,W,3] -> Float[3,*size] in [-1,1], resized as the server does; indices [H,W] -> Long[*size]."""
    return _tensor(resized(picture, size)[None])[0]


def photo_to_uint8(photo: Tensor) -> np.ndarray:
    """Float[...,3,H,W] in [-1,1] -> uint8[...,H,W,3], rounded and clamped."""
    levels = photo.detach().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.movedim(-3, -1).contiguous().cpu().numpy()


def _tensor(arrays: np.ndarray) -> LabelMap | Photo:
    """Pictures uint8[B,H,W,3] -> Float[B,3,H,W] in [-1,1]; ids [B,H,W] -> Long[B,H,W]."""
    if arrays.ndim == 3:
        return torch.from_numpy(np.ascontiguousarray(arrays)).long()
    return torch.from_numpy(np.ascontiguousarray(arrays.transpose(0, 3, 1, 2))).float().div_(127.5).sub_(1)


def _read(dataset: Dataset, sample: Sample, side: str) -> np.ndarray:
    if side == "photo":
        return dataset.read_photo(sample)
    return dataset.read_label(sample) if side == "label" else dataset.read_side(sample, side)


@lru_cache(maxsize=64)
def _permutation(seed: int, epoch: int, stream: str, length: int) -> tuple[int, ...]:
    return tuple(random(seed, epoch, f"order {stream}").permutation(length).tolist())
