"""The translation of a picture as plain functions: decode, prepare, run (in tiles), restore, encode.

Everything but `translate` is synchronous: the server calls it in worker threads, `fewpair predict` in its own.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from serving.errors import Refusal, disk_full
from serving.imaging.decode import MEDIA_TYPES, Bytes, Limits, PixelBudget, encode_photo, read_photo
from serving.imaging.labels import read_label
from serving.imaging.resize import Scaled, padded
from serving.imaging.tiling import BATCH_PIXELS, Grid, Mosaic, Tiles
from serving.inference.archive import ZIP_MAGIC, Entry, Picture, packed, unpacked
from serving.inference.outputs import Answer, Segmentation, check_output, encode_segmentation, photos_of_one
from serving.inference.parameters import (
    Parameters,
    RankParameters,
    SegmentParameters,
    StyleParameters,
    SynthesizeParameters,
    draw_seeds,
)
from serving.inference.scheduler import Scheduler, Task
from serving.models.manifest import DirectionName
from serving.models.model import RUN_FAILURES, ExportedModel, Frames, Noise
from serving.models.repository import EMPTY, Repository
from serving.models.session import largest_batch
from serving.settings import Settings
from serving.telemetry.metrics import current_trace

logger = logging.getLogger("fewpair.serving")
PICTURE_FAILURES: tuple[type[Exception], ...] = (Refusal, OSError, *RUN_FAILURES)
Outputs = dict[str, Bytes]


@dataclass(frozen=True)
class Execution:
    """How a picture is translated. `progress` is called before each run with the tiles done and in all."""

    limits: Limits
    task: Task | None = None  # None: the model is run in the calling thread
    batch: int = 1  # images in a shared run at most
    progress: Callable[[int, int], None] = lambda done, tiles: None
    frames: Frames | None = None  # of the row that the picture is part of

    def run(
        self,
        model: ExportedModel,
        direction: DirectionName,
        pixels: Bytes,
        seeds: Sequence[int | Noise],
        *,
        tiled: bool = False,
    ) -> Outputs:
        """Run a model on [N,H,W] or [N,H,W,3] with a seed or noise each; tiles in one run, others with equal sizes."""
        if self.task is None:
            return model.run_batch(direction, pixels, seeds=seeds, frames=self.frames)
        most = max(1, min(self.batch, BATCH_PIXELS // (pixels.shape[1] * pixels.shape[2]))) if model.batches else 1
        size, key = (len(seeds), None) if tiled else (most, (model, direction, pixels.shape[1:]))
        work, found = partial(model.run_shared, direction, self.frames), []
        for first in range(0, len(seeds), size):
            item = (pixels[first : first + size], seeds[first : first + size])
            found.append(self.task.run(work, item, images=len(item[1]), most=size, key=key))
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


Translate = Callable[[Picture, Execution], tuple[Answer, ...]]


@dataclass(frozen=True)
class Prepared:
    """A picture ready to run: at the model's scale, or at its own size with the grid of its tiles."""

    pixels: Bytes
    scaled: Scaled | None
    grid: Grid | None


def translator(models: Repository, parameters: Parameters) -> Translate:
    """Return the function that answers one picture. Raises Refusal where the parameters are wrong for every picture."""
    if isinstance(parameters, RankParameters):
        check_output(models.choose(parameters.model, "to_label"), SegmentParameters(output="confidence"))
        parameters = SegmentParameters(model=parameters.model, tiles=parameters.tiles, output="json", min_area=2**31)
    if isinstance(parameters, SegmentParameters):
        model = models.choose(parameters.model, "to_label")
        check_output(model, parameters)
        model.check_tiles(parameters.tiles)
        return partial(_segment, model, parameters)
    model = models.choose(parameters.model, "to_photo")
    if isinstance(parameters, StyleParameters):
        if model.manifest.style is None:
            message = f"model {model.name} does not read the style of photos."
            raise Refusal(400, "no_style", message, hint="`style` in GET /v1/models says which models do.")
        return partial(_read_style, model)
    model.check_noise(parameters.seed, parameters.count, parameters.style)
    model.check_tiles(parameters.tiles)
    return partial(_synthesize, model, parameters)


def _segment(
    model: ExportedModel, parameters: SegmentParameters, picture: Picture, execution: Execution
) -> tuple[Answer, ...]:
    found = segmented(model, parameters.tiles, picture, execution)
    with current_trace().stage("encode"):
        return (encode_segmentation(found, parameters, name=picture.name),)


def segmented(model: ExportedModel, tiles: Tiles, picture: Picture, execution: Execution) -> Segmentation:
    """Segment one photo, without encoding the answer."""
    trace = current_trace()
    trace.model = model.name
    with trace.stage("decode"):
        photo = prepare(model, read_photo(picture.read(), execution.limits), execution.limits, tiles=tiles)
    ((answer, confidence),) = run_prepared(model, "to_label", photo, execution, seeds=(0,))
    return Segmentation(model, photo.pixels, answer, confidence, str(photo.grid or "none"))


def _synthesize(
    model: ExportedModel, parameters: SynthesizeParameters, picture: Picture, execution: Execution
) -> tuple[Answer, ...]:
    trace = current_trace()
    trace.model = model.name
    domain, limits, file = model.manifest.label, execution.limits, picture.read()
    with trace.stage("decode"):
        label = None if domain.kind == "picture" else read_label(file, domain, limits, snap=parameters.snap)
        pixels = read_photo(file, limits) if label is None else label.ids
        prepared = prepare(model, pixels, limits, tiles=parameters.tiles)
    spelling = "picture" if label is None else label.spelling
    headers = {"X-Model": model.name, "X-Tiling": str(prepared.grid or "none"), "X-Label-Spelling": spelling}
    seeds: Sequence[int | Noise]
    if parameters.style is None:
        seeds = draw_seeds(parameters.seed, parameters.count)
        named = [{**headers, "X-Seed": str(seed)} for seed in seeds]
    else:
        seeds, named = [np.array(parameters.style.split(","), np.float32)], [headers]
    made = []
    for (photo, _), one in zip(run_prepared(model, "to_photo", prepared, execution, seeds=seeds), named, strict=True):
        with trace.stage("encode"):
            made.append(Answer(encode_photo(photo, parameters.format), MEDIA_TYPES[parameters.format], one))
    return tuple(made)


def _read_style(model: ExportedModel, picture: Picture, execution: Execution) -> tuple[Answer, ...]:
    trace = current_trace()
    trace.model = model.name
    with trace.stage("decode"):
        photo = read_photo(picture.read(), execution.limits)
    if execution.task is None:
        noise = model.read_style(photo)
    else:
        noise = execution.task.run(lambda items, _: [model.read_style(one) for one in items], photo)
    body = json.dumps({"model": model.name, "style": [round(float(value), 5) for value in noise.ravel()]})
    return (Answer(body.encode(), "application/json", {"X-Model": model.name, "X-Tiling": "none"}),)


def prepare(model: ExportedModel, pixels: Bytes, limits: Limits, *, tiles: Tiles) -> Prepared:
    """Scale a decoded picture for the model, or plan its tiles. Raises Refusal where it is too large for one piece."""
    height, width = pixels.shape[:2]
    manifest = model.manifest
    if (grid := model.plan((height, width), tiles)) is not None:
        ready = padded(pixels, multiple_of=manifest.multiple_of, void=manifest.label.void)
        return Prepared(ready, None, grid)
    if manifest.resize.rule == "none" and limits.max_whole is not None and height * width > limits.max_whole:
        most = limits.max_whole / 1e6
        message = f"{width}x{height} pixels are over the limit of {most:.4g} megapixels for a run in one piece."
        hint = "Set tiles to auto and choose a model that allows tiling, or use a smaller image."
        raise Refusal(413, "too_large_without_tiles", message, hint=hint)
    return Prepared(pixels, model.prepare(pixels), None)


def run_prepared(
    model: ExportedModel,
    direction: DirectionName,
    prepared: Prepared,
    execution: Execution,
    *,
    seeds: Sequence[int | Noise],
) -> Iterator[tuple[Bytes, Bytes | None]]:
    """Run a prepared picture once for each seed or noise: main output and confidence, at the picture's own size.

    One after another, as photos of 100 megapixels take 300 MB each.
    """
    grid, scaled = prepared.grid, prepared.scaled
    found: Iterable[Outputs]
    if scaled is not None:
        execution.progress(0, 1)
        together = execution.run(model, direction, np.repeat(scaled.pixels[None], len(seeds), axis=0), seeds)
        found = ({name: value[index] for name, value in together.items()} for index in range(len(seeds)))
    else:
        assert grid is not None
        found = (_run_tiles(model, direction, prepared.pixels, grid, execution, seed) for seed in seeds)
    for outputs in found:
        with current_trace().stage("encode"):
            answer = model.answers(direction, outputs, scaled)
        yield answer


def _run_tiles(
    model: ExportedModel, direction: DirectionName, pixels: Bytes, grid: Grid, execution: Execution, seed: int | Noise
) -> Outputs:
    """Run a picture tile by tile: output name -> [H,W] or [H,W,3] at the picture's own size."""
    mosaic, done = Mosaic(grid), 0
    for row, columns in grid.batches():
        execution.progress(done, len(grid))
        found = execution.run(model, direction, grid.cut(pixels, row, columns), [seed] * len(columns), tiled=True)
        with current_trace().stage("encode"):
            mosaic.add(row, columns, found)
        done += len(columns)
    return mosaic.answers


class Backend:
    """The loaded models behind a scheduler, which `scheduler.close()` ends.

    A reload replaces `models`; requests under way keep their model.
    """

    def __init__(self, settings: Settings, models: Repository = EMPTY) -> None:
        self.settings = settings
        self.models = models
        self.not_ready_reason: str | None = None  # why the server is not ready
        self.scheduler = Scheduler(
            runs_at_once=settings.runs_at_once,
            batch=largest_batch(settings),
            queue=settings.queue,
            timeout=settings.timeout,
            queue_wait=settings.queue_wait / 1000,
        )

    def limits(self, spend: Callable[[int], None] | None = None) -> Limits:
        """Return the limits of one picture; `spend` counts the pixels of all pictures of a request."""
        return Limits(max_bytes=self.settings.max_bytes, max_pixels=self.settings.max_pixels, spend=spend)


async def translate(
    pictures: Sequence[Picture],
    one: Translate,
    backend: Backend,
    *,
    count: int = 1,
    pack: Callable[[Sequence[Entry]], Answer] = packed,
) -> Answer:
    """Answer a request: one picture as a file, several pictures, or a ZIP of them, as a ZIP or as `pack` makes it.

    `count` is the number of answers to each picture. A picture that is refused among several has its error in
    `index.json`.
    """
    settings, scheduler = backend.settings, backend.scheduler
    limits = backend.limits(PixelBudget(settings.max_pixels_in_all, answers=count).spend)

    def answer(picture: Picture, task: Task) -> tuple[Answer, ...]:
        return one(picture, Execution(limits, task, scheduler.batch))

    async with scheduler.admit() as admission:
        opened, archived = list(pictures), any(picture.head.startswith(ZIP_MAGIC) for picture in pictures)
        if archived:
            opened = await admission.work(lambda _: unpacked(pictures, settings))
        if len(opened) == 1 and not archived and pack is packed:
            return photos_of_one(await admission.work(partial(answer, opened[0])))
        entries = []
        for picture in opened:
            try:
                entries.append(Entry(picture.name, await admission.work(partial(answer, picture))))
            except PICTURE_FAILURES as error:
                refusal = refusal_of(error)
                if refusal.code == "waited_too_long":  # for the first picture: nothing of the request is done
                    raise
                entries.append(Entry(picture.name, error=refusal.error))
        return await asyncio.to_thread(pack, entries)


def refusal_of(error: Exception) -> Refusal:
    """Return the refusal for an error, which is logged with its traceback unless it is a refusal or a full disk."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full()
    logger.error("the work for %s failed", current_trace().request_id or "a job", exc_info=error)
    if isinstance(error, RUN_FAILURES):
        return Refusal(500, "internal", "the model could not be run on it.", hint="Send a smaller picture.")
    hint = "Tell the operator the X-Request-ID: the log says more."
    return Refusal(500, "internal", "the server failed to answer.", hint=hint)
