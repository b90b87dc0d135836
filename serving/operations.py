"""What the server does for a caller: segment and synthesize, the same for both HTTP faces and for the page."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Literal, Protocol

from serving.answers import Answer, Segmentation, Synthesis, check_output, encode_photos, encode_segmentation, photos_of_one, see
from serving.asked import MOST_PHOTOS, SEEDS, Packing, SegmentOptions, SynthesizeOptions
from serving.batch import AnswerBudget, Entry, Picture, PixelBudget, Upload, packed, unpacked
from serving.errors import Refusal
from serving.fetch import Fetcher
from serving.gate import Gate
from serving.imaging import Bytes, Limits, read_photo
from serving.manifest import DirectionName
from serving.metrics import current_trace
from serving.microbatch import MicroBatches
from serving.palette import Spelling, read_label
from serving.scale import Scaled
from serving.session import pictures_a_run
from serving.settings import Settings
from serving.shelf import Shelf
from serving.tiles import Grid, Mosaic, Tiles, check_tiles, cut, plan
from serving.translator import RUN_FAILURES, Brake, ExportedModel

logger = logging.getLogger("fewpair.serving")
Found = dict[str, Bytes]
Translate = Callable[[Picture, Limits], Awaitable[tuple[Answer, ...]]]


class Way(Protocol):
    """How a picture gets to the device: at once, in its sender's turn, or whenever there is room (a job)."""

    async def whole(self, chosen: ExportedModel, direction: DirectionName, pixels: Bytes, *, seeds: Sequence[int]) -> list[Found]:
        """Run a model on a picture at its scale, once for each seed."""

    async def run(self, work: Callable[[Brake], Found], *, images: int) -> Found:
        """Run a model; the brake is pulled where nobody waits for it any more."""

    def progress(self, done: int, tiles: int) -> None:
        """Be told how many tiles of a picture are done, before each run."""


@dataclass(frozen=True)
class _Prepared:
    """A picture ready to run: at the model's scale, or as it is with the grid of its tiles."""

    pixels: Bytes
    scaled: Scaled | None
    grid: Grid | None

    @property
    def tiling(self) -> str:
        return str(self.grid or "none")


class Operations:
    """The models on the shelf behind the gate."""

    def __init__(self, shelf: Shelf, settings: Settings) -> None:
        self.shelf = shelf
        self.settings = settings
        self.limits = Limits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)
        batch = pictures_a_run(settings)
        self.gate = Gate(
            runs_at_once=settings.runs_at_once,
            batch=batch,
            queue=settings.queue,
            timeout=settings.timeout,
            queue_wait=settings.queue_wait / 1000,
        )
        self._shared = MicroBatches(self.gate, most=batch, wait=settings.batch_wait / 1000)
        self._fetcher = Fetcher(settings.url_hosts, max_bytes=settings.max_bytes)

    async def segment(self, pictures: Sequence[Picture], options: SegmentOptions, *, listed: bool = False) -> Answer:
        """The label map of a photo as the file that was asked for; of several photos, a ZIP or a JSON list of them.

        `listed` says that the caller sent a list, and gets one even where it holds one photo.
        """
        return await self._each(pictures, self.segmenter(options), packing=options.answers, listed=listed)

    async def synthesize(self, pictures: Sequence[Picture], options: SynthesizeOptions, *, listed: bool = False) -> Answer:
        """A photo made from a label map, or `count` of them; of several label maps, a ZIP or a JSON list. `X-Seed` tells the seeds."""
        return await self._each(pictures, self.synthesizer(options), packing=options.answers, listed=listed, count=options.count)

    def segmenter(self, options: SegmentOptions, *, way: Way | None = None) -> Translate:
        """What makes the answer of one photo; Refusal where the options are wrong for every photo."""
        chosen = self.shelf.choose(options.model, "to_label")
        check_output(chosen, options)
        check_tiles(chosen.manifest, options.tiles)

        async def one(picture: Picture, limits: Limits) -> tuple[Answer, ...]:
            found, tiling = await self._segment(picture.read, chosen, limits, tiles=options.tiles, way=way or self)
            with current_trace().stage("encode"):
                return (await self.gate.off_loop(lambda: _tiled(encode_segmentation(found, options, name=picture.name), tiling)),)

        return one

    def synthesizer(self, options: SynthesizeOptions, *, way: Way | None = None) -> Translate:
        """What makes the answers of one label map; Refusal where the options are wrong for every label map."""
        chosen = self.shelf.choose(options.model, "to_photo")
        noisy = chosen.manifest.directions["to_photo"].noise is not None
        _seeds(options.seed, options.count, noisy=noisy)
        check_tiles(chosen.manifest, options.tiles)

        async def one(picture: Picture, limits: Limits) -> tuple[Answer, ...]:
            seeds = _seeds(options.seed, options.count, noisy=noisy)
            made, tiling = await self._synthesize(
                picture.read, chosen, limits, seeds=seeds, snap=options.snap, tiles=options.tiles, way=way or self
            )
            with current_trace().stage("encode"):
                return await self.gate.off_loop(lambda: tuple(_tiled(answer, tiling) for answer in encode_photos(made, options.format)))

        return one

    async def segmentation(self, upload: Upload, *, model: str | None) -> Segmentation:
        """A photo's label map as arrays."""
        chosen = self.shelf.choose(model, "to_label")
        async with self._timed(self.gate.place()):
            return (await self._segment(upload, chosen, self.limits, tiles="auto", way=self))[0]

    async def synthesis(self, upload: Upload, *, model: str | None, seed: int | None, snap: bool) -> Synthesis:
        """A photo made from a label map, as arrays."""
        chosen = self.shelf.choose(model, "to_photo")
        async with self._timed(self.gate.place()):
            seeds = _seeds(seed, 1, noisy=True)
            return (await self._synthesize(upload, chosen, self.limits, seeds=seeds, snap=snap, tiles="auto", way=self))[0]

    async def _each(
        self,
        pictures: Sequence[Picture],
        translate: Translate,
        *,
        packing: Packing | None,
        listed: bool,
        count: int = 1,
    ) -> Answer:
        """Translate every picture in a turn of its own; one that is refused among several costs the others nothing."""
        limits = replace(self.limits, spend=PixelBudget(self.settings.max_pixels_in_all, answers=count).spend)
        room = AnswerBudget(self.settings.max_answer_bytes)
        async with self.gate.admitted():
            async with self.gate.in_time():
                here = await self._fetcher.fetched(pictures)
                async with self._timed(self.gate.turn()):
                    opened, archive = await self.gate.off_loop(lambda: unpacked(here, self.settings))
                    if not (listed or archive or packing) and len(opened) == 1:
                        return photos_of_one(room.spend(await translate(opened[0], limits)))
            # Where the time runs out, what is finished is answered, and the rest says that there was no time for it.
            entries = [await self._entry(picture, lambda one: translate(one, limits), room) for picture in opened]
            return await self.gate.off_loop(lambda: packed(entries, packing or ("json" if listed else "zip")))

    async def _entry(self, picture: Picture, translate: Callable[[Picture], Awaitable[tuple[Answer, ...]]], room: AnswerBudget) -> Entry:
        try:
            room.check()
            async with self.gate.in_time(), self._timed(self.gate.turn()):
                return Entry(picture.name, room.spend(await translate(picture)), None)
        except Refusal as refusal:
            return Entry(picture.name, (), refusal)
        except RUN_FAILURES as error:  # a picture too large for the machine, for one
            logger.error("the model could not be run on one picture of several: %s: %s", type(error).__name__, error)
            return Entry(picture.name, (), Refusal(500, "internal", "the model could not be run on it.", hint="Send a smaller picture."))

    @asynccontextmanager
    async def _timed(self, turn: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
        trace, asked = current_trace(), perf_counter()
        async with turn:
            trace.stages["wait"] = trace.stages.get("wait", 0.0) + perf_counter() - asked
            yield

    async def _segment(self, upload: Upload, chosen: ExportedModel, limits: Limits, *, tiles: Tiles, way: Way) -> tuple[Segmentation, str]:
        trace = current_trace()
        trace.model = chosen.name
        with trace.stage("decode"):
            photo = await self.gate.off_loop(lambda: _prepare(chosen, read_photo(upload(), limits), limits, tiles=tiles))
        ((answer, confidence),) = await self._translate(chosen, "to_label", photo, seeds=(0,), way=way)
        return see(chosen, photo.pixels, answer, confidence=confidence), photo.tiling

    async def _synthesize(
        self, upload: Upload, chosen: ExportedModel, limits: Limits, *, seeds: tuple[int, ...], snap: bool, tiles: Tiles, way: Way
    ) -> tuple[Synthesis, str]:
        trace = current_trace()
        trace.model = chosen.name

        def decode() -> tuple[_Prepared, Spelling | Literal["picture"]]:
            if chosen.manifest.label.kind == "picture":
                return _prepare(chosen, read_photo(upload(), limits), limits, tiles=tiles), "picture"
            label = read_label(upload(), limits, domain=chosen.manifest.label, snap=snap)
            return _prepare(chosen, label.ids, limits, tiles=tiles), label.spelling

        with trace.stage("decode"):
            label, spelling = await self.gate.off_loop(decode)
        photos = await self._translate(chosen, "to_photo", label, seeds=seeds, way=way)
        return Synthesis(chosen, tuple(photo for photo, _ in photos), seeds, spelling), label.tiling

    async def _translate(
        self, chosen: ExportedModel, direction: DirectionName, prepared: _Prepared, *, seeds: tuple[int, ...], way: Way
    ) -> list[tuple[Bytes, Bytes | None]]:
        """For each seed the main answer and the confidence at the upload's size."""
        scaled = prepared.scaled
        if scaled is None:
            each = [await self._in_tiles(chosen, direction, prepared, seed=seed, way=way) for seed in seeds]
        else:
            way.progress(0, 1)
            each = await way.whole(chosen, direction, scaled.pixels, seeds=seeds)
        with current_trace().stage("encode"):
            return [await self.gate.off_loop(partial(chosen.answers, direction, found, scaled)) for found in each]

    async def _in_tiles(self, chosen: ExportedModel, direction: DirectionName, prepared: _Prepared, *, seed: int, way: Way) -> Found:
        grid = prepared.grid
        assert grid is not None
        mosaic = Mosaic(grid, chosen.manifest.directions[direction].outputs)
        trace, void, done = current_trace(), chosen.manifest.label.void, 0
        for row, columns in grid.batches():
            way.progress(done, len(grid))

            def ran(brake: Brake, row: int = row, columns: Sequence[int] = columns) -> Found:
                pixels = cut(prepared.pixels, grid, row, columns, void=void)
                return chosen.run_batch(direction, pixels, seeds=[seed] * len(columns), brake=brake)

            found = await way.run(ran, images=len(columns))
            with trace.stage("encode"):
                await self.gate.off_loop(partial(mosaic.add, row, columns, found))
            done += len(columns)
        return mosaic.answers()

    def progress(self, done: int, tiles: int) -> None:
        """Nobody asks how far a request is that waits for its answer."""

    async def whole(self, chosen: ExportedModel, direction: DirectionName, pixels: Bytes, *, seeds: Sequence[int]) -> list[Found]:
        """Run a model on a picture at its scale, in company where there is some."""
        return await self._shared.run(chosen, direction, pixels, seeds=seeds)

    async def run(self, work: Callable[[Brake], Found], *, images: int) -> Found:
        """Run a model in the turn of the request that is being answered."""
        trace, brake = current_trace(), Brake()

        def timed() -> Found:
            with trace.stage("run"):
                return work(brake)

        before = trace.stages.get("run", 0.0)
        with trace.stage("wait"):
            found = await self.gate.run(timed, images=images, abandon=brake.pull)
        trace.stages["wait"] -= trace.stages.get("run", 0.0) - before
        return found


def _prepare(chosen: ExportedModel, pixels: Bytes, limits: Limits, *, tiles: Tiles) -> _Prepared:
    size = (pixels.shape[0], pixels.shape[1])
    grid = plan(chosen.manifest, size, tiles)
    if grid is not None:
        return _Prepared(pixels, None, grid)
    if chosen.manifest.resize.rule == "none":
        limits.check_whole(*size)
    return _Prepared(pixels, chosen.prepare(pixels), None)


def _tiled(answer: Answer, tiling: str) -> Answer:
    return replace(answer, headers={**answer.headers, "X-Tiling": tiling})


def _seeds(seed: int | None, count: int, *, noisy: bool) -> tuple[int, ...]:
    if seed is not None and not 0 <= seed < SEEDS:
        raise Refusal(
            400, "bad_seed", f"seed {seed} lies outside 0 to {SEEDS - 1}.", hint="Leave it out for a random one; X-Seed tells which."
        )
    if not 1 <= count <= MOST_PHOTOS:
        raise Refusal(400, "bad_count", f"count {count} lies outside 1 to {MOST_PHOTOS}.", hint="Ask for fewer photos, several times.")
    if count > 1 and not noisy:
        raise Refusal(400, "no_noise", "this model takes no noise, so every seed gives the same photo.", hint="Leave count out.")
    first = secrets.randbelow(SEEDS) if seed is None else seed
    return tuple((first + offset) % SEEDS for offset in range(count))
