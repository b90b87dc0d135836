"""The temporary files of one server: a folder of its own, in it one for each worker, and what a killed worker left is removed."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from serving.errors import ServingError

FOLDER = "_FEWPAIR_TEMPORARY"  # the variable that leads the workers to the folder; set by the server, not by its operator


@contextlib.contextmanager
def folder_of_its_own() -> Iterator[Path]:
    """A folder that is gone afterwards, whatever became of those who wrote into it; ServingError where there is no place for one."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="fewpair-server-"))
    except OSError as error:
        raise ServingError(
            f"there is no place for temporary files: {error.strerror or error}.",
            hint="Say TMPDIR with a folder that can be written to; in a container with a read-only root, mount a tmpfs at /tmp.",
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def share() -> None:
    """Make the folder that the workers started from here on share, until the end of this process."""
    if sys.platform == "win32":  # locks of folders are not Windows', where a server has one worker
        return
    folder = Path(tempfile.mkdtemp(prefix="fewpair-files-"))
    os.environ[FOLDER] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def move_in() -> None:
    """Be one of these workers: remove what dead ones left, and write into a folder of one's own; elsewhere, nothing.

    BentoML would have all servers of one user write their metrics into one folder, which each of them empties when it starts.
    """
    if FOLDER not in os.environ:
        return
    shared = Path(os.environ[FOLDER])
    own, metrics = shared / f"worker-{os.getpid()}", shared / "metrics"
    metrics.mkdir(parents=True, exist_ok=True)  # somebody may tidy up what is temporary
    with _open(shared) as alone:
        _lock(alone, wait=True)  # who has made his folder has it locked too before anybody else looks
        for folder in shared.glob("worker-*"):
            with _open(folder) as dead:
                if _lock(dead):
                    shutil.rmtree(folder, ignore_errors=True)
        own.mkdir(exist_ok=True)
        _lock(os.open(own, os.O_RDONLY), wait=True)  # until this process is no more
    tempfile.tempdir = os.environ["TMPDIR"] = str(own)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)


@contextlib.contextmanager
def _open(folder: Path) -> Iterator[int]:
    opened = os.open(folder, os.O_RDONLY)
    try:
        yield opened
    finally:
        os.close(opened)


def _lock(opened: int, *, wait: bool = False) -> bool:
    """Lock an open folder until it is closed. False where another process holds it, or the file system knows no locks of folders (NFS)."""
    import fcntl

    try:
        fcntl.flock(opened, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
