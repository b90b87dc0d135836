"""The table of jobs: one SQLite file in the folder of the jobs, which outlives the server."""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter

from serving.errors import Refusal, ServingError, disk_full
from serving.inference.archive import Entry
from serving.inference.parameters import ErrorBody

State = Literal["queued", "running", "done", "failed", "cancelled"]
_ENTRY = TypeAdapter(Entry)
Moment = Annotated[datetime, BeforeValidator(int)]
_FULL = "DELETE jobs whose results you have, or have the operator raise FEWPAIR_JOBS_MAX_BYTES_IN_ALL."
_TIMEOUT = 20.0  # seconds that a statement waits for another process
_TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, operation TEXT NOT NULL, options TEXT NOT NULL, state TEXT NOT NULL, bytes INTEGER NOT NULL,
    created REAL NOT NULL, started REAL, finished REAL, error TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE TABLE IF NOT EXISTS pictures (
    job TEXT NOT NULL REFERENCES jobs ON DELETE CASCADE, number INTEGER NOT NULL,
    name TEXT NOT NULL, source TEXT NOT NULL, member INTEGER,
    state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, seconds REAL, result TEXT,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""
_STATUS = """
SELECT job.id AS id, operation, job.state AS state, created, started, finished, job.error AS error,
    count(number) AS total,
    coalesce(sum(picture.state = 'done'), 0) AS done, coalesce(sum(picture.state = 'failed'), 0) AS failed,
    total(seconds) AS spent,
    (SELECT count(*) FROM jobs AS other WHERE job.state = 'queued'
        AND (other.state = 'running' OR other.state = 'queued' AND other.created < job.created)) AS before
FROM jobs AS job LEFT JOIN pictures AS picture ON picture.job = job.id
WHERE job.id = ? AND job.state != 'uploading' GROUP BY job.id
"""


@dataclass(frozen=True)
class Task:
    """The operation of a job and its parameters."""

    id: str
    operation: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Input:
    """A picture of a job: the file that holds it, and its index there if that is a ZIP."""

    number: int
    name: str
    source: str
    member: int | None
    attempts: int = 0  # with this one, without those of servers that were stopped in order


class Failure(BaseModel):
    """A picture that was refused."""

    name: str
    error: ErrorBody


class Tiles(BaseModel):
    """How many tiles of the present picture are finished."""

    total: int
    done: int


class Pictures(Tiles):
    """How many pictures of the job are finished."""

    failed: int


class Job(BaseModel):
    """A job."""

    id: str = Field(description="Anyone who knows the id can see, fetch and cancel the job.")
    operation: str
    state: State = Field(description="`done`: at least one picture was answered.")
    created: Moment
    started: Moment | None
    finished: Moment | None
    expires: Moment | None = Field(default=None, description="When the job and its result are removed.")
    pictures: Pictures
    tiles: Tiles | None = Field(default=None, description="Null where the present picture is run in one piece.")
    progress: float = Field(ge=0, le=1, description="Of pictures, and of tiles of the present picture.")
    seconds_left: float | None = Field(default=None, description="An estimate from what was done so far.")
    before: int = Field(description="Jobs that are started earlier.")
    failures: list[Failure] = Field(description="The first 100; `index.json` of the result has them all.")
    error: ErrorBody | None = Field(description="Why the job failed.")
    result: str | None = Field(description="Where the ZIP of the answers is.")

    @property
    def ended(self) -> bool:
        return self.state not in ("queued", "running")


def open_store(folder: Path) -> Store:
    """Open the jobs of a folder, making it where there is none. Raises ServingError where it cannot be used."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (lock := try_lock(folder)) is not None:
            lock.close()
        return Store(folder / "jobs.db")
    except (OSError, sqlite3.Error) as error:
        hint = "FEWPAIR_JOBS names a folder on a local disk that can be written to."
        raise ServingError(f"the folder of the jobs {folder} cannot be used: {error}.", hint=hint) from None


def try_lock(folder: Path) -> IO[bytes] | None:
    """Lock the folder until the file is closed or the process ends; None where another process holds the lock."""
    file = (folder / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


class Store:
    """The table. Only the process that holds the lock of the folder runs jobs; others may add and read them."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, timeout=_TIMEOUT, isolation_level="IMMEDIATE", check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        self._database.executescript(_TABLES)

    def reserve(self, job: str, *, size: int, queue: int, bytes_in_all: int) -> None:
        """Reserve a queue entry and room for an upload that begins. Raises Refusal where there is none."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO jobs (id, operation, options, state, bytes, created)"
                " VALUES (?, '', '', 'uploading', ?, ?)",
                (job, size, time.time()),
            )
            unfinished = "count(*) FILTER (WHERE state IN ('uploading', 'queued', 'running'))"
            waiting, used = database.execute(f"SELECT {unfinished}, sum(bytes) FROM jobs").fetchone()
            if waiting > queue:
                message = f"{queue} jobs wait or run already, which is as many as the server takes."
                hint = "Try again when one has ended, or have the operator raise FEWPAIR_JOBS_QUEUE."
                raise Refusal(429, "too_many_jobs", message, hint=hint, headers={"Retry-After": "60"})
            if used > bytes_in_all:
                others, most, this = ((used - size) / 2**20, bytes_in_all / 2**20, size / 2**20)
                message = f"the jobs use {others:.4g} of their {most:.4g} MiB, and this one may take {this:.4g}."
                raise Refusal(507, "jobs_full", message, hint=_FULL)

    def refuse_over(self, bytes_in_all: int) -> None:
        """Raise Refusal where the jobs already have more bytes than that."""
        ((used,),) = self._execute("SELECT coalesce(sum(bytes), 0) FROM jobs")
        if used > bytes_in_all:
            message = f"the jobs use {used / 2**20:.4g} of their {bytes_in_all / 2**20:.4g} MiB."
            raise Refusal(507, "jobs_full", message, hint=_FULL)

    def add(self, job: Task, inputs: Sequence[Input], *, size: int) -> None:
        """Queue a job whose upload of `size` bytes is complete."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET operation = ?, options = ?, state = 'queued', bytes = ?, created = ? WHERE id = ?",
                (job.operation, json.dumps(job.options), size, time.time(), job.id),
            )
            database.executemany(
                "INSERT INTO pictures (job, number, name, source, member, state) VALUES (?, ?, ?, ?, ?, 'waiting')",
                [(job.id, one.number, one.name, one.source, one.member) for one in inputs],
            )

    def take(self) -> Task | None:
        """Start the oldest queued job; return None where there is none."""
        rows = self._execute(
            "UPDATE jobs SET state = 'running', started = coalesce(started, ?) WHERE id ="
            " (SELECT id FROM jobs WHERE state = 'queued' ORDER BY created LIMIT 1) RETURNING id, operation, options",
            time.time(),
        )
        return Task(rows[0][0], rows[0][1], json.loads(rows[0][2])) if rows else None

    def requeue(self) -> None:
        """Queue the jobs that a process ran which has ended."""
        self._execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def release(self, job: str) -> None:
        """Queue a running job again because the server stops, which is no failed attempt."""
        self._execute("UPDATE pictures SET attempts = 0 WHERE job = ? AND state = 'waiting'", job)
        self.requeue()

    def next_input(self, job: str) -> Input | None:
        """Return the next picture of a running job; None after the last one, or where the job was cancelled."""
        rows = self._execute(
            "UPDATE pictures SET attempts = attempts + 1 WHERE job = ? AND number ="
            " (SELECT min(number) FROM pictures JOIN jobs ON id = job"
            " WHERE job = ? AND pictures.state = 'waiting' AND jobs.state = 'running')"
            " RETURNING number, name, source, member, attempts",
            *(job, job),
        )
        return Input(*rows[0]) if rows else None

    def keep(self, job: str, number: int, result: Entry, *, seconds: float, size: int) -> None:
        """Record the result of a picture: its error, or answers of `size` bytes under the names of their files."""
        state = "failed" if result.error else "done"
        with self._transaction() as database:
            database.execute(
                "UPDATE pictures SET state = ?, result = ?, seconds = ? WHERE job = ? AND number = ?",
                (state, _ENTRY.dump_json(result).decode(), seconds, job, number),
            )
            database.execute("UPDATE jobs SET bytes = bytes + ? WHERE id = ? AND state = 'running'", (size, job))

    def results(self, job: str) -> list[Entry]:
        """Return the results that `keep` recorded, in the order in which the pictures were sent."""
        query = "SELECT result FROM pictures WHERE job = ? AND state != 'waiting' ORDER BY number"
        return [_ENTRY.validate_json(text) for (text,) in self._execute(query, job)]

    def finish(self, job: str, *, size: int, refusal: Refusal | None) -> None:
        """End a running job that keeps `size` bytes on the disk."""
        state, error = ("done", None) if refusal is None else ("failed", json.dumps(refusal.error))
        self._execute(
            "UPDATE jobs SET state = ?, finished = ?, error = ?, bytes = ? WHERE id = ? AND state = 'running'",
            *(state, time.time(), error, size, job),
        )

    def cancel(self, job: str) -> bool:
        """Cancel a job that waits or runs; return whether it did."""
        cancelled = self._execute(
            "UPDATE jobs SET state = 'cancelled', finished = ?, bytes = 0"
            " WHERE id = ? AND state IN ('queued', 'running') RETURNING id",
            *(time.time(), job),
        )
        return bool(cancelled)

    def remove(self, job: str) -> None:
        """Delete a job from the table."""
        self._execute("DELETE FROM jobs WHERE id = ?", job)

    def expired(self, *, ended_before: float, begun_before: float) -> list[str]:
        """Return the jobs that ended before a time, and the uploads that began before another and never ended."""
        query = "SELECT id FROM jobs WHERE finished < ? OR (state = 'uploading' AND created < ?)"
        return [id for (id,) in self._execute(query, ended_before, begun_before)]

    def ids(self) -> list[str]:
        """Return the ids of all jobs, the oldest first."""
        return [id for (id,) in self._execute("SELECT id FROM jobs WHERE state != 'uploading' ORDER BY created")]

    def find(self, job: str) -> tuple[Job, float] | None:
        """Return a job with its first 100 refused pictures and the seconds spent; None for an unknown id."""
        rows = self._execute(_STATUS, job)
        if not rows:
            return None
        query = "SELECT result FROM pictures WHERE job = ? AND state = 'failed' ORDER BY number LIMIT 100"
        row = dict(rows[0])
        total, done, failed = row.pop("total"), row.pop("done"), row.pop("failed")
        found = Job(
            **{**row, "error": row["error"] and json.loads(row["error"])},
            pictures=Pictures(total=total, done=done, failed=failed),
            progress=round((done + failed) / max(1, total), 6),
            failures=[Failure.model_validate_json(text) for (text,) in self._execute(query, job)],
            result=f"/v1/jobs/{job}/result" if done and row["state"] in ("done", "failed") else None,
        )
        return found, row["spent"]

    def _execute(self, statement: str, *values: object) -> list[Any]:
        with self._transaction() as database:
            return database.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock, self._database as database:  # commits, or rolls back after an exception
                yield database
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise disk_full() from None
            raise
