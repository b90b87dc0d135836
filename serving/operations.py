"""What the server does for a caller: segment and synthesize, the same for both HTTP faces and for the page."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from time import perf_counter
from typing import Literal

from serving.answers import Answer, Segmentation, Synthesis, check_output, encode_photos, encode_segmentation, photos_of_one, see
from serving.asked import MOST_PHOTOS, SEEDS, Packing, SegmentOptions, SynthesizeOptions
from serving.batch import Entry, Picture, PixelBudget, Upload, packed, unpacked
from serving.errors import Refusal
from serving.fetch import Fetcher
from serving.gate import Gate
from serving.imaging import Bytes, Limits, read_photo
from serving.metrics import current_trace
from serving.palette import Spelling, read_label
from serving.scale import Scaled
from serving.settings import Settings
from serving.shelf import Shelf
from serving.translator import RUN_FAILURES, ExportedModel

logger = logging.getLogger("fewpair.serving")


class Operations:
    """The models on the shelf behind the gate."""

    def __init__(self, shelf: Shelf, settings: Settings) -> None:
        self.shelf = shelf
        self.settings = settings
        self.limits = Limits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)
        self.gate = Gate(runs_at_once=settings.runs_at_once, queue=settings.queue, timeout=settings.timeout)
        self._fetcher = Fetcher(settings.url_hosts, max_bytes=settings.max_bytes)

    async def segment(self, pictures: Sequence[Picture], options: SegmentOptions, *, listed: bool = False) -> Answer:
        """The label map of a photo as the file that was asked for; of several photos, a ZIP or a JSON list of them.

        `listed` says that the caller sent a list, and gets one even where it holds one photo.
        """
        chosen = self.shelf.choose(options.model, "to_label")
        check_output(chosen, options)

        async def one(picture: Picture, limits: Limits) -> tuple[Answer, ...]:
            found = await self._segment(picture.read, chosen, limits)
            with current_trace().stage("encode"):
                return (await self.gate.off_loop(lambda: encode_segmentation(found, options, name=picture.name)),)

        return await self._each(pictures, one, packing=options.answers, listed=listed)

    async def synthesize(self, pictures: Sequence[Picture], options: SynthesizeOptions, *, listed: bool = False) -> Answer:
        """A photo made from a label map, or `count` of them; of several label maps, a ZIP or a JSON list. `X-Seed` tells the seeds."""
        chosen = self.shelf.choose(options.model, "to_photo")
        noisy = chosen.manifest.directions["to_photo"].noise is not None

        async def one(picture: Picture, limits: Limits) -> tuple[Answer, ...]:
            seeds = _seeds(options.seed, options.count, noisy=noisy)
            made = await self._synthesize(picture.read, chosen, limits, seeds=seeds, snap=options.snap)
            with current_trace().stage("encode"):
                return await self.gate.off_loop(lambda: encode_photos(made, options.format))

        _seeds(options.seed, options.count, noisy=noisy)  # what is wrong for every picture is refused once
        return await self._each(pictures, one, packing=options.answers, listed=listed, count=options.count)

    async def segmentation(self, upload: Upload, *, model: str | None) -> Segmentation:
        """A photo's label map as arrays."""
        chosen = self.shelf.choose(model, "to_label")
        async with self._timed(self.gate.place()):
            return await self._segment(upload, chosen, self.limits)

    async def synthesis(self, upload: Upload, *, model: str | None, seed: int | None, snap: bool) -> Synthesis:
        """A photo made from a label map, as arrays."""
        chosen = self.shelf.choose(model, "to_photo")
        async with self._timed(self.gate.place()):
            return await self._synthesize(upload, chosen, self.limits, seeds=_seeds(seed, 1, noisy=True), snap=snap)

    async def _each(
        self,
        pictures: Sequence[Picture],
        translate: Callable[[Picture, Limits], Awaitable[tuple[Answer, ...]]],
        *,
        packing: Packing | None,
        listed: bool,
        count: int = 1,
    ) -> Answer:
        """Translate every picture in a turn of its own; one that is refused among several costs the others nothing."""
        limits = replace(self.limits, spend=PixelBudget(self.settings.max_pixels_in_all, answers=count).spend)
        async with self.gate.admitted():
            here = await self._fetcher.fetched(pictures)
            async with self._timed(self.gate.turn()):
                opened, archive = await self.gate.off_loop(lambda: unpacked(here, self.settings))
                if not (listed or archive or packing) and len(opened) == 1:
                    return photos_of_one(await translate(opened[0], limits))
            entries = [await self._entry(picture, lambda one: translate(one, limits)) for picture in opened]
            return await self.gate.off_loop(lambda: packed(entries, packing or ("json" if listed else "zip")))

    async def _entry(self, picture: Picture, translate: Callable[[Picture], Awaitable[tuple[Answer, ...]]]) -> Entry:
        try:
            async with self._timed(self.gate.turn()):
                return Entry(picture.name, await translate(picture), None)
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

    async def _segment(self, upload: Upload, chosen: ExportedModel, limits: Limits) -> Segmentation:
        trace = current_trace()
        trace.model = chosen.name

        def decode() -> tuple[Bytes, Scaled]:
            photo = read_photo(upload(), limits)
            return photo, chosen.prepare(photo)

        with trace.stage("decode"):
            photo, scaled = await self.gate.off_loop(decode)
        found = await self._run(lambda: chosen.run("to_label", scaled))

        def restore() -> Segmentation:
            return see(chosen, photo, chosen.restore("to_label", found, scaled), confidence=chosen.confidence(found, scaled))

        with trace.stage("encode"):
            return await self.gate.off_loop(restore)

    async def _synthesize(self, upload: Upload, chosen: ExportedModel, limits: Limits, *, seeds: tuple[int, ...], snap: bool) -> Synthesis:
        trace = current_trace()
        trace.model = chosen.name

        def decode() -> tuple[Scaled, Spelling | Literal["picture"]]:
            if chosen.manifest.label.kind == "picture":
                return chosen.prepare(read_photo(upload(), limits)), "picture"
            label = read_label(upload(), limits, domain=chosen.manifest.label, snap=snap)
            return chosen.prepare(label.ids), label.spelling

        with trace.stage("decode"):
            scaled, spelling = await self.gate.off_loop(decode)
        photos = [await self._photo(chosen, scaled, one) for one in seeds]
        return Synthesis(chosen, tuple(photos), seeds, spelling)

    async def _photo(self, chosen: ExportedModel, scaled: Scaled, seed: int) -> Bytes:
        found = await self._run(lambda: chosen.run("to_photo", scaled, seed=seed))
        with current_trace().stage("encode"):
            return await self.gate.off_loop(lambda: chosen.restore("to_photo", found, scaled))

    async def _run(self, work: Callable[[], dict[str, Bytes]]) -> dict[str, Bytes]:
        trace = current_trace()

        def timed() -> dict[str, Bytes]:
            with trace.stage("run"):
                return work()

        before = trace.stages.get("run", 0.0)
        with trace.stage("wait"):
            found = await self.gate.run(timed)
        trace.stages["wait"] -= trace.stages.get("run", 0.0) - before
        return found


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
