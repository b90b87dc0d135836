"""How the workers of one server tell one another to look into the models folder, and when they have: a folder of small files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

BOARD = "_FEWPAIR_BOARD"  # the variable that leads the workers to the folder; set by the server, not by its operator
_EACH = 0.05  # seconds between two looks at a lock


class Board:
    """The folder: `asked` holds how many reloads there were, `PID.json` what the worker PID made of the last, `PID.here` is locked by it.

    A worker that is killed lets go of its lock, so that nobody waits for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._here: IO[bytes] | None = None

    @staticmethod
    def make() -> Path:
        """A folder for the workers of one server."""
        return Path(tempfile.mkdtemp(prefix="fewpair-workers-"))

    def join(self) -> None:
        """Be one of the workers from now on, until `leave` or the end of this process."""
        import fcntl

        path = self._folder / f"{os.getpid()}.here"
        while self._here is None:
            opened = path.open("wb")
            fcntl.flock(opened, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):  # somebody may have taken it for a dead worker's before it was locked
                if path.stat().st_ino == os.fstat(opened.fileno()).st_ino:
                    self._here = opened

    def leave(self) -> None:
        """Be waited for no longer."""
        if self._here is not None:
            self._here.close()
            self._here = None

    def asked(self) -> int:
        """How many reloads were asked for so far."""
        with contextlib.suppress(FileNotFoundError):
            return int((self._folder / "asked").read_text())
        return 0

    def ask(self) -> int:
        """Ask every worker for one more reload; which it is."""
        number = self.asked() + 1
        self._write("asked", str(number))
        return number

    def tell(self, number: int, outcome: dict[str, Any]) -> None:
        """Let the others know what this worker made of reload `number`."""
        self._write(f"{os.getpid()}.json", json.dumps({**outcome, "number": number}))

    def others(self) -> dict[int, dict[str, Any] | None]:
        """The other workers that live, and what each told last."""
        told: dict[int, dict[str, Any] | None] = {}
        for path in self._folder.glob("*.here"):
            number = int(path.stem)
            if number == os.getpid():
                continue
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                if _locked(file):
                    path.unlink()
                    path.with_suffix(".json").unlink(missing_ok=True)
                    continue
                told[number] = None
                with contextlib.suppress(FileNotFoundError):
                    told[number] = json.loads(path.with_suffix(".json").read_text())
        return told

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be the only worker that asks."""
        with (self._folder / "lock").open("wb") as file:
            while not _locked(file):
                await asyncio.sleep(_EACH)
            yield

    def _write(self, name: str, text: str) -> None:
        """So that who reads meanwhile sees all of it or nothing."""
        unready = self._folder / f".{name}.{os.getpid()}"
        unready.write_text(text)
        unready.replace(self._folder / name)


def _locked(file: IO[bytes]) -> bool:
    """Lock an open file until it is closed; False where another process holds it."""
    import fcntl  # here and above: not on Windows, where a server has one worker

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
