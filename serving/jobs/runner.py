"""Jobs: pictures that are translated in the background, kept in a folder so that they outlive the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from serving.errors import Refusal, disk_full
from serving.imaging.decode import Limits
from serving.inference import scheduler as scheduling
from serving.inference.archive import Entry
from serving.inference.outputs import Answer
from serving.inference.parameters import SegmentParameters, SynthesizeParameters, once_each, validated
from serving.inference.pipeline import PICTURE_FAILURES, Backend, Execution, Translate, refusal_of, translator
from serving.jobs import files
from serving.jobs.store import Input, Job, Task, Tiles, open_store, try_lock
from serving.models.model import Frames
from serving.settings import Settings

logger = logging.getLogger("fewpair.serving")
Form = contextlib.AbstractAsyncContextManager[tuple[list[tuple[str, IO[bytes]]], dict[str, str]]]
PARAMETERS: dict[str, type[SegmentParameters] | type[SynthesizeParameters]] = {
    "segment": SegmentParameters,
    "synthesize": SynthesizeParameters,
}
_ATTEMPTS = 3  # at one picture, by servers that die while they work on it
_POLL = 1.0  # seconds between checks for jobs of other servers that share the folder
_CLEAN_EVERY = 60.0  # seconds


class Jobs:
    """The jobs of one folder. They run one at a time, in the process that holds the lock of the folder."""

    def __init__(self, folder: Path, settings: Settings, backend: Backend) -> None:
        """Raises ServingError where the folder cannot be used."""
        self._folder = folder
        self.settings = settings
        self._backend = backend
        self._store = open_store(folder)
        self._submitted = asyncio.Event()
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._tiles = (0, 0)  # of the present picture: done, in all
        self._picture_began = 0.0

    async def submit(self, form: Form, *, size: int, query: Sequence[tuple[str, str]]) -> Job:
        """Read the upload of a job and queue it. Raises Refusal where it is wrong, or there is no room for it.

        `size` is the number of bytes that it may have; the parameters stand in the form or the query.
        """
        job, settings = secrets.token_urlsafe(18), self.settings
        if 2 * size > shutil.disk_usage(self._folder).free:  # the upload is copied out of its form
            raise disk_full()
        limits = {"queue": settings.jobs_queue, "bytes_in_all": settings.jobs_max_bytes_in_all}
        await asyncio.to_thread(self._store.reserve, job, size=size, **limits)
        folder = self._folder / job
        try:
            for name in ("in", "out"):
                (folder / name).mkdir(mode=0o700, parents=True)
            async with form as (pictures, texts):
                inputs = await asyncio.to_thread(files.store, pictures, folder / "in", settings)
            task = self._task(job, once_each((*query, *texts.items())))
            await asyncio.to_thread(self._store.add, task, inputs, size=files.size_of(folder))
        except BaseException:
            self._remove(job)
            raise
        self._submitted.set()
        return await self.find(job)

    async def find(self, id: str) -> Job:
        """Return a job. Raises Refusal where there is none of that id."""
        found = await asyncio.to_thread(self._store.find, id)
        if found is None:
            hint = "Jobs are removed some time after they end."
            raise Refusal(404, "unknown_job", f"there is no job {id[:80]!r}.", hint=hint)
        job, spent = found
        if job.finished is not None:
            job.expires = job.finished + timedelta(hours=self.settings.jobs_hours)
        if job.state == "running" and self._running is not None and self._running[0] == id:
            done, tiles = self._tiles
            if tiles > 1:
                job.tiles = Tiles(total=tiles, done=done)
                job.progress = min(1.0, round(job.progress + done / tiles / job.pictures.total, 6))
            if job.progress:
                seconds = spent + time.monotonic() - self._picture_began
                job.seconds_left = round(seconds / job.progress - seconds, 1)
        return job

    async def result(self, id: str) -> Path:
        """Return the ZIP of a job that has ended. Raises Refusal where it has not, or has none."""
        job, hint = await self.find(id), f"GET /v1/jobs/{id} shows its state."
        if not job.ended:
            headers = {"Retry-After": "5"}
            raise Refusal(409, "not_finished", f"the job is {job.state}.", hint=hint, headers=headers)
        path = self._folder / id / files.RESULT
        if job.result is None or not path.is_file():
            why = "it was cancelled" if job.error is None else job.error.message.rstrip(".")
            raise Refusal(409, "no_result", f"the job has no result: {why}.", hint=hint)
        return path

    async def cancel(self, id: str) -> Job:
        """Cancel a job that waits or runs, or remove one that has ended; remove its files."""
        job = await self.find(id)
        if await asyncio.to_thread(self._store.cancel, id):
            if self._running is not None and self._running[0] == id:
                self._running[1].cancel()
                await asyncio.wait({self._running[1]})
            await asyncio.to_thread(shutil.rmtree, self._folder / id, ignore_errors=True)
            return await self.find(id)
        await asyncio.to_thread(self._remove, id)
        return job

    async def all(self) -> list[Job]:
        """Return every job, the oldest first."""
        found = []
        for id in await asyncio.to_thread(self._store.ids):
            with contextlib.suppress(Refusal):  # removed meanwhile
                found.append(await self.find(id))
        return found

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Run jobs in the background; on the way out, queue the present one again."""
        tasks = [
            asyncio.create_task(_forever(self._run_all, _POLL)),
            asyncio.create_task(_forever(partial(asyncio.to_thread, self._remove_expired), _CLEAN_EVERY)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, job: str, given: dict[str, str]) -> Task:
        operation = given.pop("operation", "")
        if operation not in PARAMETERS:
            message = f"operation {operation[:80]!r} is none of {', '.join(PARAMETERS)}."
            raise Refusal(400, "unknown_operation", message, hint="Name one, as in: curl -F operation=segment")
        parameters = validated(PARAMETERS[operation], given)
        translator(self._backend.models, parameters)  # refuses what is wrong for every picture
        return Task(job, operation, parameters.model_dump(mode="json"))

    async def _run_all(self) -> None:
        while (lock := try_lock(self._folder)) is None:
            await asyncio.sleep(_POLL)
        with lock:
            await asyncio.to_thread(self._store.requeue)
            while True:
                self._submitted.clear()
                task = await asyncio.to_thread(self._store.take) if self._backend.models.models else None
                if task is None:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._submitted.wait(), _POLL)
                    continue
                async with asyncio.TaskGroup() as group:  # of one task, which `cancel` ends
                    self._running = (task.id, group.create_task(self._translate_all(task)))

    async def _translate_all(self, task: Task) -> None:
        refusal: Refusal | None = None
        try:
            translate = translator(self._backend.models, validated(PARAMETERS[task.operation], task.options))
            frames: defaultdict[tuple[str, PurePosixPath], Frames] = defaultdict(Frames)  # a clip: a folder of a ZIP
            while (one := await asyncio.to_thread(self._store.next_input, task.id)) is not None:
                clip = ("" if one.member is None else one.source, PurePosixPath(one.name).parent)
                await self._translate_one(task.id, one, translate, frames[clip])
        except asyncio.CancelledError:
            self._store.release(task.id)
            raise
        except Refusal as error:  # the model is gone, or another version of the server wrote the options
            refusal = error
        await asyncio.to_thread(self._end, task.id, refusal)

    async def _translate_one(self, job: str, one: Input, translate: Translate, frames: Frames) -> None:
        settings, scheduler, folder = self.settings, self._backend.scheduler, self._folder / job
        limits = Limits(settings.jobs_max_bytes, settings.jobs_max_pixels, max_whole=settings.max_pixels)
        picture = files.picture_of(one, folder / "in", settings)
        self._tiles, self._picture_began = (0, 0), time.monotonic()

        def progress(done: int, tiles: int) -> None:
            self._tiles = (done, tiles)

        def work(task: scheduling.Task) -> tuple[tuple[Answer, ...], int]:
            answers = translate(picture, Execution(limits, task, scheduler.batch, progress, frames))
            return files.write_answers(one.number, answers, folder / "out"), sum(len(answer.body) for answer in answers)

        size = 0
        try:
            if one.attempts > _ATTEMPTS:
                message, hint = f"the server ended {_ATTEMPTS} times while it worked on it.", "Send a smaller picture."
                raise Refusal(500, "gave_up", message, hint=hint)
            await asyncio.to_thread(self._store.refuse_over, settings.jobs_max_bytes_in_all)
            written, size = await scheduler.background(work)
            result = Entry(one.name, written)
        except PICTURE_FAILURES as error:
            result = Entry(one.name, error=refusal_of(error).error)
        seconds = time.monotonic() - self._picture_began
        await asyncio.to_thread(self._store.keep, job, one.number, result, seconds=seconds, size=size)

    def _end(self, job: str, refusal: Refusal | None) -> None:
        """Pack the answers that there are and record how the job ended."""
        folder, results = self._folder / job, self._store.results(job)
        try:
            files.pack(results, folder / "out", folder / files.RESULT)
        except OSError as error:
            refusal = refusal_of(error)
        if refusal is None and all(one.error is not None for one in results):
            refusal = Refusal(400, "all_refused", "every picture was refused.", hint="The list of failures says why.")
        self._store.finish(job, size=files.size_of(folder / files.RESULT), refusal=refusal)
        for name in ("in", "out"):
            shutil.rmtree(folder / name, ignore_errors=True)

    def _remove(self, job: str) -> None:
        shutil.rmtree(self._folder / job, ignore_errors=True)
        self._store.remove(job)

    def _remove_expired(self) -> None:
        now = time.time()
        ended, begun = now - 3600 * self.settings.jobs_hours, now - 2 * self.settings.longest()
        for job in self._store.expired(ended_before=ended, begun_before=begun):
            self._remove(job)


async def _forever(work: Callable[[], Awaitable[None]], pause: float) -> None:
    """Repeat the work, `pause` seconds after it returns or fails (for example because the table is locked)."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("the work on jobs was interrupted and goes on in %g s", pause)
        await asyncio.sleep(pause)
