"""The files that workers count in, one of each kind for each worker: room for those of the living, and no more than needed for the dead."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # one of BentoML's own dependencies
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from serving.errors import ServingError

_ROOM = 2**20  # bytes, as prometheus_client begins its files, which are sparse then; all series there are take less than half
_KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemostrecent")
_USED = struct.Struct("i")  # a file of prometheus_client begins with how many of its bytes are used
_HEAD = 8  # bytes, this number among them


def folder_of_counts() -> Path | None:
    """Where the workers of this server count together; None where there is one that counts for itself."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return None if folder is None else Path(folder)


def reserve(folder: Path) -> None:
    """Take the room of this worker's files: they are mapped, and a page that finds no room on the disk ends the process.

    What dead workers do not need is given back before. Raises ServingError where there is no room.
    """
    try:
        with _alone(folder):
            _bury(folder)
            for kind in _KINDS:
                _grow(folder / f"{kind}_{os.getpid()}.db")
    except OSError as error:
        raise ServingError(
            f"there is no room for temporary files: {error.strerror or error}.",
            hint="Make room in the folder that TMPDIR names; in a container, make /tmp larger.",
        ) from None


def sum_up(folder: Path) -> bytes:
    """The text that Prometheus reads, of all workers there are, and with the counts of those there were."""
    together = CollectorRegistry()
    with _alone(folder):
        _bury(folder)
        MultiProcessCollector(together, str(folder))  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _bury(folder: Path) -> None:
    """Forget the gauges of workers that were killed, which nobody else takes back, and cut what they counted to what is used of it."""
    dead: set[int] = set()
    for file in folder.glob("*_*.db"):
        number = file.stem.rpartition("_")[2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            dead.add(int(number))
            _cut(file, _used(file))
    for pid in dead:
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _grow(file: Path) -> None:
    size = file.stat().st_size if file.exists() else 0  # of a dead worker that had this number, or of this one
    try:
        with file.open("ab") as growing:
            growing.write(bytes(max(0, _ROOM - size)))
    except OSError:
        _cut(file, size)
        raise


def _used(file: Path) -> int:
    with file.open("rb") as counted:
        head = counted.read(_HEAD)
    if len(head) < _HEAD:  # ended before it counted anything: no reader could read this
        return 0
    (used,) = _USED.unpack_from(head)
    return max(_HEAD, int(used))


def _cut(file: Path, size: int) -> None:
    if not file.exists():
        return
    if size == 0:
        file.unlink()
    elif size < file.stat().st_size:
        os.truncate(file, size)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other worker begin, bury or read meanwhile: one that begins may have the number of a dead one."""
    if sys.platform == "win32":  # where a server has one worker
        yield
        return
    import fcntl

    opened = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that knows no locks of folders (NFS)
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
