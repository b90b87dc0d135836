"""What the server knows of its jobs, in one SQLite file that its workers share and that outlives them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from serving.errors import Refusal, ServingError

State = Literal["queued", "running", "done", "failed", "cancelled"]
LEASE = 6.0  # seconds after its last sign of life that a worker's job is another's to take up
_ATTEMPTS = 3  # at one picture, by workers that end while they work on it
_BUSY = 20.0  # seconds that a statement waits for another worker's
_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, operation TEXT NOT NULL, options TEXT NOT NULL, state TEXT NOT NULL, bytes INTEGER NOT NULL,
    created REAL NOT NULL, started REAL, finished REAL, worker TEXT, seen REAL, error TEXT,
    tiles_done INTEGER NOT NULL DEFAULT 0, tiles INTEGER NOT NULL DEFAULT 0, picture_started REAL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE TABLE IF NOT EXISTS pictures (
    job TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, source TEXT NOT NULL, member INTEGER, state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, seconds REAL, answers TEXT, error TEXT, PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""


class NotMine(Exception):
    """The job was cancelled, or another worker has taken it up."""


@dataclass(frozen=True)
class Task:
    """A job as a worker takes it up."""

    id: str
    operation: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """A picture of a job: the file it came in, and where in it, if that is a ZIP."""

    number: int
    name: str
    source: str
    member: int | None


@dataclass(frozen=True)
class Kept:
    """What became of a picture: its answers as (file, media type, headers), or why there are none."""

    name: str
    answers: tuple[tuple[str, str, dict[str, str]], ...]
    error: dict[str, str] | None


@dataclass(frozen=True)
class Told:
    """A job as its sender sees it. Times are seconds since 1970."""

    id: str
    operation: str
    state: State
    created: float
    started: float | None
    finished: float | None
    error: dict[str, str] | None
    pictures: int
    done: int
    failed: int
    tiles_done: int
    tiles: int
    seconds_left: float | None
    before: int  # jobs that are taken up earlier
    failures: tuple[Kept, ...]


def open_store(folder: Path) -> Store:
    """The jobs of a folder, which is made where there is none; ServingError where it cannot be written to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return Store(folder / "jobs.sqlite3")
    except (OSError, sqlite3.Error) as error:
        raise ServingError(
            f"the folder of the jobs {folder} cannot be used: {error}.", hint="FEWPAIR_JOBS names a folder that can be written to."
        ) from None


class Store:
    """The table of jobs. A running job belongs to the worker that claimed it as long as that gives signs of life."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Held open, unused: the last connection to leave would tidy the log away, and each call be the last.
        self._held = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        self._held.execute("PRAGMA journal_mode = WAL")
        self._held.executescript(_TABLES)

    def add(self, job: Task, pictures: Sequence[Sent], *, size: int, queue: int, bytes_in_all: int) -> None:
        """Queue a job; Refusal where as many wait, or as many bytes are kept, as may."""
        with self._open(write=True, lasting=True) as database:
            (waiting,) = database.execute("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')").fetchone()
            if waiting >= queue:
                raise too_many_jobs(queue)
            if self._bytes(database) + size > bytes_in_all:
                raise folder_full(bytes_in_all)
            row = (job.id, job.operation, json.dumps(job.options), size, time.time())
            database.execute("INSERT INTO jobs (id, operation, options, state, bytes, created) VALUES (?, ?, ?, 'queued', ?, ?)", row)
            database.executemany(
                "INSERT INTO pictures (job, number, name, source, member, state) VALUES (?, ?, ?, ?, ?, 'waiting')",
                [(job.id, one.number, one.name, one.source, one.member) for one in pictures],
            )

    def check_room(self, *, size: int, queue: int, bytes_in_all: int) -> None:
        """The refusals of `add`, before an upload of that size is read."""
        with self._open() as database:
            (waiting,) = database.execute("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')").fetchone()
            if waiting >= queue:
                raise too_many_jobs(queue)
            if self._bytes(database) + size > bytes_in_all:
                raise folder_full(bytes_in_all)

    def claim(self, worker: str) -> Task | None:
        """The oldest job that waits, or whose worker gives no more signs of life: from now on this worker's."""
        now = time.time()
        with self._open() as database:  # most looks find nothing, and need not lock the others out
            if database.execute(f"SELECT 1 FROM jobs WHERE {_CLAIMABLE} LIMIT 1", (now - LEASE,)).fetchone() is None:
                return None
        with self._open(write=True) as database:
            row = database.execute(
                f"UPDATE jobs SET state = 'running', worker = ?, seen = ?, started = coalesce(started, ?), tiles = 0, tiles_done = 0"
                f" WHERE id = (SELECT id FROM jobs WHERE {_CLAIMABLE} ORDER BY created LIMIT 1) RETURNING id, operation, options",
                (worker, now, now, now - LEASE),
            ).fetchone()
        return None if row is None else Task(row[0], row[1], json.loads(row[2]))

    def give_sign(self, worker: str) -> None:
        """Say that this worker lives."""
        with self._open(write=True) as database:
            database.execute("UPDATE jobs SET seen = ? WHERE worker = ? AND state = 'running'", (time.time(), worker))

    def give_back(self, worker: str) -> None:
        """Let others take up what this worker has not finished."""
        with self._open(write=True) as database:
            database.execute("UPDATE jobs SET state = 'queued', worker = NULL WHERE worker = ? AND state = 'running'", (worker,))

    def next_picture(self, job: str, worker: str) -> Sent | None:
        """The next picture to work on; None after the last. One whose workers all ended over it is given up."""
        with self._owned(job, worker) as database:
            given_up = json.dumps(_gave_up().body()["error"])
            database.execute(
                "UPDATE pictures SET state = 'failed', error = ? WHERE job = ? AND state = 'waiting' AND attempts >= ?",
                (given_up, job, _ATTEMPTS),
            )
            row = database.execute(
                "SELECT number, name, source, member FROM pictures WHERE job = ? AND state = 'waiting' ORDER BY number LIMIT 1", (job,)
            ).fetchone()
            if row is None:
                return None
            database.execute("UPDATE pictures SET attempts = attempts + 1 WHERE job = ? AND number = ?", (job, row[0]))
            database.execute("UPDATE jobs SET tiles = 0, tiles_done = 0, picture_started = ? WHERE id = ?", (time.time(), job))
        return Sent(*row)

    def progress(self, job: str, worker: str, *, done: int, tiles: int) -> None:
        """Note how many tiles of the picture are done; NotMine tells its worker to stop."""
        with self._owned(job, worker) as database:
            database.execute("UPDATE jobs SET tiles_done = ?, tiles = ? WHERE id = ?", (done, tiles, job))

    def keep(self, job: str, worker: str, number: int, kept: Kept, *, seconds: float, size: int) -> None:
        """Note what became of a picture; it is not worked on again."""
        answers, error = json.dumps(kept.answers), None if kept.error is None else json.dumps(kept.error)
        with self._owned(job, worker) as database:
            database.execute(
                "UPDATE pictures SET state = ?, answers = ?, error = ?, seconds = ? WHERE job = ? AND number = ?",
                ("done" if kept.error is None else "failed", answers, error, seconds, job, number),
            )
            database.execute("UPDATE jobs SET bytes = bytes + ? WHERE id = ?", (size, job))

    def put_off(self, job: str, worker: str) -> None:
        """A worker that stops in good order was no attempt."""
        with self._owned(job, worker) as database:
            database.execute("UPDATE pictures SET attempts = 0 WHERE job = ? AND state = 'waiting'", (job,))

    def kept(self, job: str) -> list[Kept]:
        """What became of each finished picture, in the order they were sent."""
        with self._open() as database:
            rows = database.execute(
                "SELECT name, answers, error FROM pictures WHERE job = ? AND state != 'waiting' ORDER BY number", (job,)
            ).fetchall()
        return [_kept(*row) for row in rows]

    def finish(self, job: str, worker: str, state: State, *, size: int, error: dict[str, str] | None = None) -> None:
        """End a job; what it keeps on the disk is `size` bytes."""
        with self._owned(job, worker) as database:
            told = None if error is None else json.dumps(error)
            database.execute(
                "UPDATE jobs SET state = ?, finished = ?, error = ?, bytes = ?, worker = NULL, tiles = 0, tiles_done = 0 WHERE id = ?",
                (state, time.time(), told, size, job),
            )

    def cancel(self, job: str) -> bool:
        """Cancel a job that waits or runs; whether it did."""
        with self._open(write=True) as database:
            changed = database.execute(
                "UPDATE jobs SET state = 'cancelled', finished = ?, worker = NULL, bytes = 0, tiles = 0, tiles_done = 0"
                " WHERE id = ? AND state IN ('queued', 'running')",
                (time.time(), job),
            )
            return changed.rowcount == 1

    def remove(self, job: str) -> None:
        """Forget a job."""
        with self._open(write=True) as database:
            database.execute("DELETE FROM pictures WHERE job = ?", (job,))
            database.execute("DELETE FROM jobs WHERE id = ?", (job,))

    def finished_before(self, moment: float) -> list[str]:
        """The jobs that ended before."""
        with self._open() as database:
            return [row[0] for row in database.execute("SELECT id FROM jobs WHERE finished < ?", (moment,))]

    def ids(self) -> list[str]:
        """All jobs, the oldest first."""
        with self._open() as database:
            return [row[0] for row in database.execute("SELECT id FROM jobs ORDER BY created")]

    def find(self, job: str, *, failures: int = 100) -> Told | None:
        """A job with its first `failures` refused pictures; None where there is none of that id."""
        with self._open() as database:
            row = database.execute(
                "SELECT id, operation, state, created, started, finished, error, tiles_done, tiles, picture_started FROM jobs WHERE id = ?",
                (job,),
            ).fetchone()
            if row is None:
                return None
            counts = {
                state: (number, seconds or 0.0)
                for state, number, seconds in database.execute(
                    "SELECT state, count(*), sum(seconds) FROM pictures WHERE job = ? GROUP BY state", (job,)
                )
            }
            before = 0
            if row[2] == "queued":
                (before,) = database.execute(
                    "SELECT count(*) FROM jobs WHERE state = 'running' OR (state = 'queued' AND created < ?)", (row[3],)
                ).fetchone()
            refused = database.execute(
                "SELECT name, answers, error FROM pictures WHERE job = ? AND state = 'failed' ORDER BY number LIMIT ?", (job, failures)
            ).fetchall()
        done, failed = counts.get("done", (0, 0.0)), counts.get("failed", (0, 0.0))
        waiting = counts.get("waiting", (0, 0.0))[0]
        left = None
        if row[2] == "running":
            left = _seconds_left(waiting, done[0] + failed[0], done[1] + failed[1], tiles_done=row[7], tiles=row[8], since=row[9])
        return Told(
            id=row[0],
            operation=row[1],
            state=row[2],
            created=row[3],
            started=row[4],
            finished=row[5],
            error=None if row[6] is None else json.loads(row[6]),
            pictures=done[0] + failed[0] + waiting,
            done=done[0],
            failed=failed[0],
            tiles_done=row[7],
            tiles=row[8],
            seconds_left=left,
            before=before,
            failures=tuple(_kept(*one) for one in refused),
        )

    @contextlib.contextmanager
    def _owned(self, job: str, worker: str) -> Iterator[sqlite3.Connection]:
        """A change to a running job; NotMine where it does not run, or by another."""
        with self._open(write=True) as database:
            mine = "UPDATE jobs SET seen = ? WHERE id = ? AND worker = ? AND state = 'running'"
            if database.execute(mine, (time.time(), job, worker)).rowcount == 0:
                raise NotMine(job)
            yield database

    @contextlib.contextmanager
    def _open(self, *, write: bool = False, lasting: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection of this call's own, for threads share none; what is `lasting` survives a power cut, the rest a killed process."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None)) as database:
            database.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
            if not write:
                yield database
                return
            try:
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
            except sqlite3.OperationalError as error:  # closing the connection rolls back what was begun
                if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise disk_full() from None
                raise

    @staticmethod
    def _bytes(database: sqlite3.Connection) -> int:
        (size,) = database.execute("SELECT coalesce(sum(bytes), 0) FROM jobs").fetchone()
        return int(size)


_CLAIMABLE = "(state = 'queued' OR (state = 'running' AND seen < ?))"


def too_many_jobs(most: int) -> Refusal:
    """The refusal of a job where as many wait as may."""
    return Refusal(
        429,
        "too_many_jobs",
        f"{most} jobs wait or run already, which is as many as the server takes.",
        hint="Try again when one has ended, or have the operator raise FEWPAIR_JOBS_QUEUE.",
        headers={"Retry-After": "60"},
    )


def folder_full(most: int) -> Refusal:
    """The refusal of a job whose files would be over what all jobs may keep."""
    return Refusal(
        507,
        "jobs_full",
        f"the jobs that are kept fill their {most / 2**20:.4g} MiB.",
        hint="DELETE jobs whose results you have fetched, or have the operator raise FEWPAIR_JOBS_MAX_BYTES_IN_ALL.",
    )


def disk_full() -> Refusal:
    """The refusal of what the disk has no room for."""
    return Refusal(
        507,
        "disk_full",
        "the disk that the jobs are kept on is full.",
        hint="DELETE jobs whose results you have fetched, or tell the operator.",
    )


def _gave_up() -> Refusal:
    return Refusal(
        500, "gave_up", f"the server ended {_ATTEMPTS} times while it worked on it.", hint="It may be too large: send a smaller picture."
    )


def _kept(name: str, answers: str | None, error: str | None) -> Kept:
    listed = [] if answers is None else json.loads(answers)
    return Kept(name, tuple((one[0], one[1], one[2]) for one in listed), None if error is None else json.loads(error))


def _seconds_left(waiting: int, finished: int, spent: float, *, tiles_done: int, tiles: int, since: float | None) -> float | None:
    """By the pictures that are finished, and within a large one by its tiles; None while there is nothing to go by."""
    elapsed = 0.0 if since is None else max(0.0, time.time() - since)
    whole = elapsed * tiles / tiles_done if tiles_done else None  # seconds for the picture that is worked on
    average = spent / finished if finished else whole
    if average is None or waiting == 0:
        return None if waiting else 0.0
    current = average if whole is None else whole
    return max(0.0, current - elapsed) + average * (waiting - 1)
