"""The files of a job: the upload, written to its folder as it arrives, and the ZIP of its answers."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from serving.errors import Refusal
from serving.inference.archive import INDEX, ZIP_MAGIC, Entry, Picture, by_number, filed, too_many_pictures, zipped
from serving.inference.outputs import ENDINGS, Answer
from serving.jobs.store import Input
from serving.settings import Settings

RESULT = "result.zip"
_HINT = "Send a form: curl -F operation=segment -F image=@photos.zip"


def store(pictures: Sequence[tuple[str, IO[bytes]]], folder: Path, settings: Settings) -> list[Input]:
    """Copy the pictures of a form to `folder`; return them, those in ZIPs one by one in the order of their names.

    Raises Refusal where there are none, or too many.
    """
    found: list[Input] = []
    for number, (name, file) in enumerate(pictures):
        source = f"{number:06d}"
        members: list[tuple[str, int | None]] = [(name, None)]
        with (folder / source).open("wb+") as copy:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            if copy.read(4).startswith(ZIP_MAGIC):
                members = [(picture.name, member) for member, picture in enumerate(_members(copy, settings))]
                members.sort(key=lambda member: by_number(member[0]))
        for name, member in members:
            found.append(Input(len(found), name, source, member))
        if len(found) > settings.jobs_max_pictures:
            raise too_many_pictures(settings.jobs_max_pictures)
    if not found:
        what = "the ZIP holds no file." if pictures else "the form holds no picture."
        raise Refusal(400, "no_image", what, hint=_HINT)
    return found


def picture_of(one: Input, folder: Path, settings: Settings) -> Picture:
    """Return a picture of a job, whose file is read when it is needed."""
    path, member = folder / one.source, one.member

    def read() -> bytes:
        if member is None:
            return path.read_bytes()
        with path.open("rb") as file:
            return _members(file, settings)[member].read()

    return Picture(one.name, read)


def write_answers(number: int, answers: Sequence[Answer], folder: Path) -> tuple[Answer, ...]:
    """Write the answers to a picture; return them with the names of their files as bodies."""
    written = []
    for position, answer in enumerate(answers):
        name = f"{number:06d}-{position:02d}{ENDINGS[answer.media_type]}"
        (folder / name).write_bytes(answer.body)
        written.append(Answer(name.encode(), answer.media_type, answer.headers))
    return tuple(written)


def pack(results: list[Entry], folder: Path, target: Path) -> None:
    """Write the answers of `write_answers` as a ZIP with the `index.json` of an answer to several pictures."""
    index, files = filed(results)
    part = folder / target.name  # below `folder`, which is removed whatever happens
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, answer in files.items():
            archive.write(folder / answer.body.decode(), name)
        archive.writestr(INDEX, json.dumps({"answers": index}, indent=1))
    part.replace(target)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; 0 where there is none."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _members(file: IO[bytes], settings: Settings) -> list[Picture]:
    return zipped(file, max_pictures=settings.jobs_max_pictures, max_bytes=settings.jobs_max_bytes)
