"""What a worker is given, as a JSON file, and the claim that keeps two of them from the same run."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BUSY = 75
"""A worker's exit code that says: another experiment is at this very run."""


@dataclass(frozen=True)
class Job:
    """One run to train, or to go on with, and to judge."""

    run: dict[str, Any]
    """The Run, as config.json holds it."""
    selection: str
    """The text of its pairs.json."""
    folder: str
    """The run's folder."""
    answer: str
    """Where the answer goes: a file outside the run's folder, so that the folder may be removed."""
    splits: tuple[str, ...]
    device: str
    threads: int
    judge: str | None = None
    """An ONNX segmenter that judges photos made from label maps."""
    features: str | None = None
    """A feature extractor for the distances between sets of photos."""
    skip_broken: bool = False

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Job":
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**(values | {"splits": tuple(values["splits"])}))


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether the run in this folder is ours alone; the claim ends with the process that holds it, however that ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
