"""Jobs: pictures that are translated while nobody waits, kept in a folder so that they outlive the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from starlette.requests import Request

from serving import jobfiles
from serving.asked import SegmentOptions, SynthesizeOptions
from serving.errors import Refusal
from serving.gate import Gate
from serving.imaging import Bytes, Limits
from serving.intake import read_options
from serving.jobstore import LEASE, Kept, NotMine, Sent, Store, Task, Told, disk_full, open_store
from serving.manifest import DirectionName
from serving.operations import Found, Operations, Translate
from serving.settings import Settings
from serving.translator import RUN_FAILURES, Brake, ExportedModel

logger = logging.getLogger("fewpair.serving")
Operation = Literal["segment", "synthesize"]
OPTIONS: dict[str, type[SegmentOptions] | type[SynthesizeOptions]] = {"segment": SegmentOptions, "synthesize": SynthesizeOptions}
_LOOK_EVERY = 1.0  # seconds; a job that this worker was sent itself is seen at once
_SWEEP_EVERY = 60.0
_ABANDONED = 3600.0  # seconds, at least, after which a folder without a job is an upload that never ended
_PATIENCE = 5.0  # seconds that a run of a job lets every request pass before it queues like them
_GLANCE = 0.01


class Jobs:
    """The jobs of one folder, shared by all workers; each works on one at a time."""

    def __init__(self, folder: Path, settings: Settings, operations: Callable[[], Operations | None]) -> None:
        """ServingError where the folder cannot be used."""
        self._folder = folder
        self._settings = settings
        self._operations = operations
        self._me = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._new = asyncio.Event()
        self._store = open_store(folder)

    async def submit(self, request: Request) -> Told:
        """Take a job in; Refusal where it makes no sense, or there is no room for it."""
        await asyncio.to_thread(self._check_room, request.headers.get("content-length", ""))
        id = secrets.token_urlsafe(18)
        sent = self._folder / id / "in"
        try:
            await asyncio.to_thread(jobfiles.on_disk, lambda: sent.mkdir(mode=0o700, parents=True))
            form = await jobfiles.read_form(request, sent, self._settings)
            job = self._task(id, (*request.query_params.multi_items(), *form.texts))
            await _to_its_end(asyncio.to_thread(self._add, job, form, sent))
        except BaseException as error:
            shutil.rmtree(sent.parent, ignore_errors=True)
            if isinstance(error, asyncio.CancelledError):  # whoever has gone does not know the id, and could not cancel it
                self._store.remove(id)
            raise
        self._new.set()
        return await self.find(id)

    async def find(self, id: str) -> Told:
        """A job; Refusal where there is none of that id."""
        told = await asyncio.to_thread(self._store.find, id)
        if told is None:
            raise Refusal(
                404,
                "unknown_job",
                f"there is no job {id[:80]!r}.",
                hint="Jobs are removed some time after they end.",
            )
        return told

    async def result(self, id: str) -> Path:
        """The ZIP of a job that has ended; Refusal where it has not, or has none."""
        told = await self.find(id)
        if told.state in ("queued", "running"):
            raise Refusal(
                409,
                "not_finished",
                f"the job is {told.state}.",
                hint=f"GET /v1/jobs/{id} tells more.",
                headers={"Retry-After": "5"},
            )
        path = self._folder / id / jobfiles.RESULT
        if not (told.done and path.is_file()):
            why = "it was cancelled" if told.state == "cancelled" else (told.error or {}).get("message", "it failed")
            raise Refusal(
                409, "no_result", f"the job has no result: {why.rstrip('.')}.", hint=f"GET /v1/jobs/{id} says what became of each picture."
            )
        return path

    async def cancel(self, id: str) -> Told:
        """Cancel a job that waits or runs; remove one that has ended. Its files are gone either way."""
        told = await self.find(id)
        if await asyncio.to_thread(self._store.cancel, id):
            told = await self.find(id)
        else:
            await asyncio.to_thread(self._store.remove, id)
        await asyncio.to_thread(shutil.rmtree, self._folder / id, ignore_errors=True)
        return told

    async def all(self) -> list[Told]:
        """Every job, the oldest first."""
        found = [await asyncio.to_thread(self._store.find, id) for id in await asyncio.to_thread(self._store.ids)]
        return [told for told in found if told is not None]

    def expires(self, told: Told) -> float | None:
        """When the job is removed; None while it has not ended."""
        return None if told.finished is None else told.finished + 3600 * self._settings.jobs_hours

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Work on jobs, give signs of life, and clean up; on the way out, let others take up what is not finished."""
        tasks = [asyncio.create_task(forever()) for forever in (self._work, self._live, self._sweep)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self._store.give_back, self._me)

    def _check_room(self, declared: str) -> None:
        size = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
        settings = self._settings
        self._store.check_room(size=size, queue=settings.jobs_queue, bytes_in_all=settings.jobs_max_bytes_in_all)
        if size > shutil.disk_usage(self._folder).free:
            raise disk_full()

    def _task(self, id: str, texts: Sequence[tuple[str, str]]) -> Task:
        given: dict[str, str] = {}
        for name, value in texts:
            if name in given:
                raise Refusal(400, "repeated_field", f"the field {name[:80]!r} is given more than once.", hint="Give each field once.")
            given[name] = value
        operation = given.pop("operation", "")
        if operation not in OPTIONS:
            what = f"operation {operation[:80]!r} is none of" if operation else "the field operation is missing:"
            raise Refusal(400, "unknown_operation", f"{what} {', '.join(OPTIONS)}.", hint="Name one, as in: curl -F operation=segment")
        if "answers" in given:
            raise Refusal(400, "unknown_field", "the answers of a job come as a ZIP; there is no field answers.", hint="Leave it out.")
        options = read_options(OPTIONS[operation], given)
        operations = self._operations()
        if operations is not None:
            _translate(operations, operation, options, None)  # what is wrong for every picture is refused before anybody waits
        return Task(id, operation, options.model_dump(mode="json"))

    def _add(self, job: Task, form: jobfiles.Form, folder: Path) -> None:
        pictures = jobfiles.pictures_of(form, self._settings)
        jobfiles.on_disk(lambda: (folder.parent / "out").mkdir(mode=0o700))
        settings, size = self._settings, jobfiles.size_of(folder)
        self._store.add(job, pictures, size=size, queue=settings.jobs_queue, bytes_in_all=settings.jobs_max_bytes_in_all)

    async def _work(self) -> None:
        while True:
            self._new.clear()
            operations = self._operations()
            try:
                job = None if operations is None else await asyncio.to_thread(self._store.claim, self._me)
                if job is not None and operations is not None:
                    await self._do(job, operations)
                    continue
            except NotMine:  # cancelled
                continue
            except Exception:  # whatever befalls one job, the others are worked on
                logger.exception("a job could not be worked on")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._new.wait(), _LOOK_EVERY)

    async def _do(self, job: Task, operations: Operations) -> None:
        way = _Patient(operations.gate, self._store, job.id, self._me)
        try:
            translate = _translate(operations, job.operation, OPTIONS[job.operation].model_validate(job.options), way)
            limits = Limits(
                max_bytes=self._settings.jobs_max_bytes,
                max_pixels=self._settings.jobs_max_pixels,
                max_whole=self._settings.max_pixels,
            )
            while (sent := await asyncio.to_thread(self._store.next_picture, job.id, self._me)) is not None:
                await self._picture(job, sent, translate, limits)
            await asyncio.to_thread(self._end, job, None)
        except Refusal as refusal:  # the model is gone, or the disk is full
            await asyncio.to_thread(self._end, job, refusal)
        except NotMine:
            told = await asyncio.to_thread(self._store.find, job.id)
            if told is None or told.state == "cancelled":  # an answer may have been written after its folder was emptied
                await asyncio.to_thread(shutil.rmtree, self._folder / job.id, ignore_errors=True)
            raise
        except asyncio.CancelledError:
            with contextlib.suppress(NotMine):
                self._store.put_off(job.id, self._me)
            raise
        except Exception:
            logger.exception("job %s could not be worked on", job.id)
            await asyncio.to_thread(self._end, job, _failed("the server failed to work on it.", hint="Its log says more."))

    async def _picture(self, job: Task, sent: Sent, translate: Translate, limits: Limits) -> None:
        folder, started = self._folder / job.id, perf_counter()
        picture = jobfiles.picture_of(sent, folder / "in", self._settings)
        try:
            answers = await translate(picture, limits)
            written = await asyncio.to_thread(jobfiles.write_answers, sent.number, answers, folder / "out")
            kept, size = Kept(sent.name, written, None), sum(len(answer.body) for answer in answers)
        except Refusal as refusal:
            kept, size = Kept(sent.name, (), refusal.body()["error"]), 0
        except RUN_FAILURES as error:
            logger.error("the model could not be run on a picture of job %s: %s: %s", job.id, type(error).__name__, error)
            failed = _failed("the model could not be run on it.", hint="Send a smaller picture.")
            kept, size = Kept(sent.name, (), failed.body()["error"]), 0
        except OSError as error:  # NotMine, where the files are gone because the job was cancelled
            await asyncio.to_thread(lambda: self._store.progress(job.id, self._me, done=0, tiles=0))
            logger.error("a picture of job %s cannot be read or its answer not be written: %s", job.id, error)
            failed = _failed("it could not be read, or its answer not be written.", hint="The server's log says more.")
            kept, size = Kept(sent.name, (), failed.body()["error"]), 0
        spent = perf_counter() - started
        await asyncio.to_thread(lambda: self._store.keep(job.id, self._me, sent.number, kept, seconds=spent, size=size))

    def _end(self, job: Task, refusal: Refusal | None) -> None:
        """Pack what was finished and note how the job ended."""
        folder, kept = self._folder / job.id, self._store.kept(job.id)
        try:
            jobfiles.pack(kept, folder / "out", folder / jobfiles.RESULT)
        except (Refusal, OSError) as error:
            self._store.progress(job.id, self._me, done=0, tiles=0)  # NotMine, where the folder is gone because the job was cancelled
            logger.error("the result of job %s could not be packed: %s", job.id, error)
            refusal = error if isinstance(error, Refusal) else _failed("its result could not be packed.", hint="The log says more.")
        if refusal is None and all(one.error is not None for one in kept):
            refusal = Refusal(400, "all_refused", "every picture was refused.", hint="The list of failures says why.")
        for former in ("in", "out"):
            shutil.rmtree(folder / former, ignore_errors=True)
        error_body = None if refusal is None else refusal.body()["error"]
        self._store.finish(job.id, self._me, "done" if refusal is None else "failed", size=jobfiles.size_of(folder), error=error_body)

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 4)
            try:
                await asyncio.to_thread(self._store.give_sign, self._me)
            except Exception:
                logger.exception("the jobs' file could not be written")

    async def _sweep(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._clean)
            except Exception:
                logger.exception("old jobs could not be removed")
            await asyncio.sleep(_SWEEP_EVERY)

    def _clean(self) -> None:
        for id in self._store.finished_before(time.time() - 3600 * self._settings.jobs_hours):
            shutil.rmtree(self._folder / id, ignore_errors=True)
            self._store.remove(id)
        abandoned = time.time() - max(_ABANDONED, 2 * self._settings.longest())
        known = set(self._store.ids())
        for path in self._folder.iterdir():
            if path.is_dir() and path.name not in known and path.stat().st_mtime < abandoned:
                shutil.rmtree(path, ignore_errors=True)


class _Patient:
    """The way of a job's picture to the device: behind those who wait for an answer, and as long as it takes."""

    def __init__(self, gate: Gate, store: Store, job: str, worker: str) -> None:
        self._gate = gate
        self._store = store
        self._job = job
        self._worker = worker
        self._at = (0, 0)

    def progress(self, done: int, tiles: int) -> None:
        self._at = (done, tiles)

    async def whole(self, chosen: ExportedModel, direction: DirectionName, pixels: Bytes, *, seeds: Sequence[int]) -> list[Found]:
        found = []
        for seed in seeds:
            answer = await self.run(partial(_run_one, chosen, direction, pixels, seed), images=1)
            found.append({name: value[0] for name, value in answer.items()})
        return found

    async def run(self, work: Callable[[Brake], Found], *, images: int) -> Found:
        done, tiles = self._at
        await asyncio.to_thread(lambda: self._store.progress(self._job, self._worker, done=done, tiles=tiles))
        while True:
            await self._let_others_pass()
            brake = Brake()
            try:
                return await self._gate.run(partial(work, brake), images=images, abandon=brake.pull)
            except Refusal as refusal:
                if refusal.code != "waited_too_long":
                    raise

    async def _let_others_pass(self) -> None:
        until = time.monotonic() + _PATIENCE
        while self._gate.inside and time.monotonic() < until:
            await asyncio.sleep(_GLANCE)


def _run_one(chosen: ExportedModel, direction: DirectionName, pixels: Bytes, seed: int, brake: Brake) -> Found:
    return chosen.run_batch(direction, pixels[None], seeds=[seed], brake=brake)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await what must not go on when its caller, who may be cancelled, believes it over."""
    begun = asyncio.ensure_future(work)
    try:
        await asyncio.shield(begun)
    finally:
        await asyncio.wait({begun})


def _failed(message: str, *, hint: str) -> Refusal:
    return Refusal(500, "internal", message, hint=hint)


def _translate(operations: Operations, operation: str, options: SegmentOptions | SynthesizeOptions, way: _Patient | None) -> Translate:
    if isinstance(options, SegmentOptions):
        return operations.segmenter(options, way=way)
    return operations.synthesizer(options, way=way)
