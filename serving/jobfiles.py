"""The files of a job: its form is read into its folder as it arrives, and its answers are packed into one ZIP."""

from __future__ import annotations

import asyncio
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from serving.answers import ENDINGS, Answer
from serving.batch import INDEX, Entry, Picture, clean_name, filed, is_zip, too_many_pictures, zipped
from serving.errors import Refusal
from serving.filefields import check_charset
from serving.jobstore import Kept, Sent, disk_full
from serving.noroom import is_full
from serving.settings import Settings

T = TypeVar("T")
RESULT = "result.zip"
_MOST_FIELDS = 32
_LONGEST_FIELD = 2**16
_HINT = "Send a form: curl -F operation=segment -F image=@photos.zip"


@dataclass(frozen=True)
class Form:
    """What was sent: the text fields, and the files as they lie in the folder with the names their sender gave them."""

    texts: tuple[tuple[str, str], ...]
    files: tuple[tuple[Path, str], ...]


async def read_form(request: Request, folder: Path, settings: Settings) -> Form:
    """Read a multipart form; its files go to `folder` as they arrive, so that neither the memory nor /tmp holds them."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refusal(415, "not_multipart", "a job is sent as a multipart form.", hint=_HINT)
    check_charset(options)
    form = _Parts(options[b"boundary"], folder, most=settings.jobs_max_pictures)
    try:
        async for chunk in request.stream():
            await asyncio.to_thread(form.write, chunk)
        await asyncio.to_thread(form.finish)
    except ClientDisconnect:
        raise Refusal(400, "cut_short", "the request ended before its body did.", hint=_HINT) from None
    except FormParserError:
        raise Refusal(400, "broken_form", "the multipart form is broken or cut short.", hint=_HINT) from None
    finally:
        form.close()
    return Form(tuple(form.texts), tuple(form.files))


def pictures_of(form: Form, settings: Settings) -> list[Sent]:
    """The pictures of a form, those in its ZIPs one by one; Refusal where there are none, or too many."""
    found: list[Sent] = []
    for path, name in form.files:
        with path.open("rb") as file:
            inside: list[tuple[str, int | None]]
            if is_zip(file.read(4)):
                inside = [(picture.name, member) for member, picture in enumerate(_zipped(file, settings))]
            else:
                inside = [(name, None)]
        found += [Sent(len(found) + number, inner, path.name, member) for number, (inner, member) in enumerate(inside)]
        if len(found) > settings.jobs_max_pictures:
            raise too_many_pictures(settings.jobs_max_pictures)
    if not found:
        raise Refusal(400, "no_image", "the form holds no picture." if not form.files else "the ZIP holds no file.", hint=_HINT)
    return found


def picture_of(sent: Sent, folder: Path, settings: Settings) -> Picture:
    """A picture of a job, to be read when its turn comes."""
    path = folder / sent.source
    if sent.member is None:
        return Picture(sent.name, path.read_bytes)
    member = sent.member

    def read() -> bytes:
        with path.open("rb") as file:
            return _zipped(file, settings)[member].read()

    return Picture(sent.name, read)


def write_answers(number: int, answers: tuple[Answer, ...], folder: Path) -> tuple[tuple[str, str, dict[str, str]], ...]:
    """Write the answers to a picture, and say where each lies."""
    written = []
    for position, answer in enumerate(answers):
        name = f"{number:06d}-{position:02d}{ENDINGS[answer.media_type]}"
        on_disk(lambda name=name, answer=answer: (folder / name).write_bytes(answer.body))  # type: ignore[misc]
        written.append((name, answer.media_type, answer.headers))
    return tuple(written)


def pack(kept: list[Kept], folder: Path, target: Path) -> None:
    """All answers of a job as a ZIP, with the `index.json` of an answer to several pictures."""
    places: dict[int, Path] = {}
    entries = []
    for one in kept:
        answers = tuple(Answer(b"", kind, headers) for _, kind, headers in one.answers)
        places |= {id(answer): folder / name for answer, (name, _, _) in zip(answers, one.answers, strict=True)}
        entries.append(Entry(one.name, answers, None if one.error is None else _refusal(one.error)))
    index, files = filed(entries)
    half = target.with_suffix(".half")

    def write() -> None:
        with zipfile.ZipFile(half, "w", zipfile.ZIP_STORED) as archive:
            for name, answer in files.items():
                with places[id(answer)].open("rb") as read, archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as written:
                    shutil.copyfileobj(read, written, 2**20)
            archive.writestr(zipfile.ZipInfo(INDEX), json.dumps({"answers": index}, indent=1))
        half.replace(target)

    on_disk(write)


def on_disk(write: Callable[[], T]) -> T:
    """Write; Refusal (507) where the disk is full."""
    try:
        return write()
    except OSError as error:
        if is_full(error):
            raise disk_full() from None
        raise


def size_of(folder: Path) -> int:
    """The bytes of all files under a folder; of one that is gone, none."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size


def _zipped(file: IO[bytes], settings: Settings) -> list[Picture]:
    return zipped(file, max_pictures=settings.jobs_max_pictures, max_bytes=settings.jobs_max_bytes)[0]


def _refusal(error: dict[str, str]) -> Refusal:
    return Refusal(400, error["code"], error["message"], hint=error["hint"])


class _Parts:
    """Follows a form with the parser that Starlette uses, and writes its files where they are to stay."""

    def __init__(self, boundary: bytes, folder: Path, *, most: int) -> None:
        self.texts: list[tuple[str, str]] = []
        self.files: list[tuple[Path, str]] = []
        self._folder = folder
        self._most = most
        self._file: IO[bytes] | None = None
        self._text = bytearray()
        self._field = ""
        self._header = self._value = b""
        self._disposition = b""
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._complete,
            },
        )

    def write(self, chunk: bytes) -> None:
        on_disk(lambda: self._parser.write(chunk))

    def finish(self) -> None:
        self._parser.finalize()
        if not self._ended:  # the parser does not mind, and the last file is cut short
            raise FormParserError("the closing boundary is missing")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _complete(self) -> None:
        self._ended = True

    def _begin(self) -> None:
        self._disposition = b""
        self._text = bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            if len(self.texts) >= _MOST_FIELDS:
                raise Refusal(400, "broken_form", f"the form holds more than {_MOST_FIELDS} fields.", hint=_HINT)
            return
        if self._field != "image":
            raise Refusal(400, "unknown_field", f"files are expected in the field image; there is one in {self._field[:80]!r}.", hint=_HINT)
        if len(self.files) >= self._most:
            raise too_many_pictures(self._most)
        path = self._folder / f"{len(self.files):06d}"
        self._file = path.open("wb")
        self.files.append((path, clean_name(options[b"filename"].decode("utf-8", "replace"))))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif len(self._text) + end - start > _LONGEST_FIELD:
            raise Refusal(400, "broken_form", f"a field of the form is longer than {_LONGEST_FIELD} bytes.", hint=_HINT)
        else:
            self._text += data[start:end]

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self._field == "image":
            raise Refusal(400, "not_a_file", "the field image holds text, not a file.", hint=_HINT)
        else:
            self.texts.append((self._field, self._text.decode("utf-8", "replace")))
