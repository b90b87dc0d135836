"""Several pictures in one request: ZIPs are opened within bounds, and each picture's answer or refusal is packed."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import PurePosixPath
from typing import IO, Any

from serving.answers import ENDINGS, Answer, pack_zip
from serving.asked import Packing
from serving.errors import Refusal
from serving.imaging import too_many_bytes
from serving.settings import Settings

Upload = Callable[[], bytes]
INDEX = "index.json"
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_END = b"PK\x05\x06"
_END_SIZE = 22
_LOCATOR64 = b"PK\x06\x07"
_LOCATOR64_SIZE = 20
_LONGEST_COMMENT = 2**16
_DIRECTORY_BYTES = 2**16
_DIRECTORY_BYTES_A_PICTURE = 1024  # an entry of the directory takes 46 bytes and its names
_LONGEST_HEADER = 4096  # common clients and proxies end at 8 KiB for all headers; each entry tells its seed anyway
_READABLE_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may ask for gigabytes before they unpack a byte
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError, IndexError)


@dataclass(frozen=True)
class Picture:
    """One file that was sent: what its sender calls it, and its bytes, read when its turn comes."""

    name: str
    read: Upload
    head: bytes = b""  # the first bytes, where they are known
    url: str | None = None  # where it is to be fetched from, instead of being read


@dataclass(frozen=True)
class Entry:
    """What became of one picture among several: its answers, or why there are none."""

    name: str
    answers: tuple[Answer, ...]
    refusal: Refusal | None


def clean_name(path: str) -> str:
    """A file's name or path as its sender wrote it, so that it leads nowhere else when an answer is written under it."""
    readable = "".join(letter for letter in path.replace("\\", "/") if letter.isprintable())
    parts = [part[-80:] for part in PurePosixPath(readable).parts if part not in ("/", "//", "..", ".")]
    return "/".join(parts[-8:]) or "picture"


class PixelBudget:
    """The pixels that the pictures of one request may have in all; a picture counts once for each of its `answers`."""

    def __init__(self, most: int, *, answers: int = 1) -> None:
        self._most = most
        self._answers = answers
        self._spent = 0

    def spend(self, pixels: int) -> None:
        """Count a picture before it is decoded; Refusal where it goes over the budget. One answer to the first one is always given."""
        area = pixels * self._answers
        if self._spent + area > self._most and (self._spent or self._answers > 1):
            raise Refusal(
                413,
                "too_many_pixels_in_all",
                f"with this picture the request is over the limit of {self._most / 1e6:.4g} megapixels in all.",
                hint="Ask for the rest in another request, or have the operator raise FEWPAIR_MAX_PIXELS_IN_ALL.",
            )
        self._spent += area


class AnswerBudget:
    """The bytes that the answers to one request may have in all: they are held until the last is made."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._spent = 0

    def check(self) -> None:
        """Refusal where nothing more fits, before anybody works for it."""
        if self._spent >= self._most:
            raise self._refusal()

    def spend(self, answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
        """The answers to one picture, where they fit; what went over the budget ends it for the rest."""
        self._spent += sum(len(answer.body) for answer in answers)
        if self._spent > self._most:
            raise self._refusal()
        return answers

    def _refusal(self) -> Refusal:
        return Refusal(
            413,
            "too_many_answer_bytes",
            f"the answers are over the limit of {self._most / 2**20:.4g} MiB in all.",
            hint="Ask for the rest in another request, or have the operator raise FEWPAIR_MAX_ANSWER_BYTES.",
        )


def unpacked(pictures: Sequence[Picture], settings: Settings) -> tuple[list[Picture], bool]:
    """The pictures with every ZIP among them replaced by what it holds, and whether there was one."""
    found: list[Picture] = []
    archives, bytes_left = False, settings.max_unpacked_bytes
    for picture in pictures:
        if not is_zip(picture.head):
            found.append(picture)
            continue
        archives = True
        inside, size = zipped(io.BytesIO(picture.read()), max_pictures=settings.max_pictures, max_bytes=settings.max_bytes)
        bytes_left -= size
        if bytes_left < 0:
            raise Refusal(
                413,
                "too_many_unpacked_bytes",
                f"the ZIP unpacks to over the limit of {settings.max_unpacked_bytes / 2**20:.4g} MiB.",
                hint="Send fewer pictures a ZIP, or have the operator raise FEWPAIR_MAX_UNPACKED_BYTES.",
            )
        found.extend(inside)
    if len(found) > settings.max_pictures:
        raise too_many_pictures(settings.max_pictures)
    if not found:
        raise Refusal(400, "no_image", "the ZIP holds no file.", hint="Put pictures into it.")
    return found, archives


def packed(entries: Sequence[Entry], packing: Packing) -> Answer:
    """All answers in one: a JSON list with the files in base64, or a ZIP of the files with the same list as its `index.json`."""
    headers = _headers(entries)
    if packing == "json":
        listed = [told for entry in entries for told in _told(entry)]
        return Answer(b'{"answers": [' + b", ".join(listed) + b"]}", "application/json", headers)
    index, files = filed(entries)
    told = json.dumps({"answers": index}, indent=1).encode()
    return Answer(pack_zip({**{name: answer.body for name, answer in files.items()}, INDEX: told}), "application/zip", headers)


def filed(entries: Sequence[Entry]) -> tuple[list[dict[str, Any]], dict[str, Answer]]:
    """What `index.json` says of each picture, and the answers by the names of their files, of which no two are the same."""
    index: list[dict[str, Any]] = []
    files: dict[str, Answer] = {}
    for entry in entries:
        for answer, name in zip(entry.answers, _names(entry), strict=True):
            name = _unused(name, files)
            files[name] = answer
            index.append({"name": entry.name, "file": name, **_made_by(answer)})
        if entry.refusal is not None:
            index.append({"name": entry.name, **entry.refusal.body()})
    return index, files


def is_zip(head: bytes) -> bool:
    """Whether a file that begins like this is a ZIP."""
    return head.startswith(_ZIP_MAGIC)


def zipped(file: IO[bytes], *, max_pictures: int, max_bytes: int) -> tuple[list[Picture], int]:
    """The files in a ZIP, to be unpacked each in its turn, and the bytes that they say they unpack to."""
    _check_directory(file, max_pictures)
    try:
        archive = zipfile.ZipFile(file)
    except _BROKEN:
        raise _broken_zip() from None
    members = [member for member in archive.infolist() if not (member.filename.endswith("/") or _is_litter(member.filename))]
    if len(members) > max_pictures:
        raise too_many_pictures(max_pictures)
    pictures = [Picture(clean_name(member.filename), partial(_unpack, archive, member, max_bytes=max_bytes)) for member in members]
    return pictures, sum(member.file_size for member in members)


def _check_directory(file: IO[bytes], max_pictures: int) -> None:
    """Refuse a directory of a million entries before it is read into the memory, and the form for files over 4 GiB."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END_SIZE - _LONGEST_COMMENT - _LOCATOR64_SIZE))
    tail = file.read()
    file.seek(0)
    end = tail.rfind(_END)
    if end < 0 or end + _END_SIZE > len(tail):
        raise _broken_zip()
    if tail[max(0, end - _LOCATOR64_SIZE) : end].startswith(_LOCATOR64):
        raise Refusal(400, "zip64", "the ZIP is in the form for files over 4 GiB (ZIP64).", hint="Pack it as a plain ZIP.")
    (directory,) = struct.unpack_from("<I", tail, end + 12)
    if directory > _DIRECTORY_BYTES + _DIRECTORY_BYTES_A_PICTURE * max_pictures:
        raise too_many_pictures(max_pictures)


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, max_bytes: int) -> bytes:
    if member.file_size > max_bytes:
        raise too_many_bytes(max_bytes)
    if member.flag_bits & 1 or member.compress_type not in _READABLE_METHODS:
        raise Refusal(400, "unusual_zip", "the file is encrypted or packed in an unusual way.", hint="Pack it as a plain ZIP (deflate).")
    try:
        with archive.open(member) as file:
            return file.read(
                member.file_size
            )  # archive.read would unpack all there is before it cuts off what the entry does not own up to
    except _BROKEN:
        raise Refusal(400, "broken_zip", "the file in the ZIP is broken or cut short.", hint="Pack it again.") from None


def _is_litter(path: str) -> bool:
    """What macOS and Windows put into every ZIP."""
    parts = PurePosixPath(path).parts
    return "__MACOSX" in parts or parts[-1:] in ((".DS_Store",), ("Thumbs.db",), ("desktop.ini",))


def _told(entry: Entry) -> list[bytes]:
    """An entry in a JSON list: one object an answer, or the error."""
    if entry.refusal is not None:
        return [json.dumps({"name": entry.name, **entry.refusal.body()}).encode()]
    return [
        _with_content({"name": entry.name, **_made_by(answer)}, answer, file=file)
        for answer, file in zip(entry.answers, _names(entry), strict=True)
    ]


def _with_content(told: dict[str, Any], answer: Answer, *, file: str) -> bytes:
    """An answer as JSON; figures go in as they are, because outlines that are read again take many times their size."""
    if answer.media_type == "application/json":
        return json.dumps(told).encode()[:-1] + b', "result": ' + answer.body + b"}"
    content = {"file": file, "media_type": answer.media_type, "data": base64.b64encode(answer.body).decode()}
    return json.dumps({**told, **content}).encode()


def _made_by(answer: Answer) -> dict[str, Any]:
    told: dict[str, Any] = {"model": answer.headers["X-Model"], "tiling": answer.headers["X-Tiling"]}
    if "X-Seed" in answer.headers:
        told |= {"seed": int(answer.headers["X-Seed"]), "spelling": answer.headers["X-Label-Spelling"]}
    return told


def _names(entry: Entry) -> list[str]:
    """What the files of an entry are called: as the picture, with their own ending, and their seed where there are several."""
    stem = str(PurePosixPath(entry.name).with_suffix(""))
    several = len(entry.answers) > 1
    return [
        f"{stem}-seed-{answer.headers['X-Seed']}{ENDINGS[answer.media_type]}" if several else stem + ENDINGS[answer.media_type]
        for answer in entry.answers
    ]


def _unused(name: str, taken: Container[str]) -> str:
    """The name, or where another file has it already: a.png, a-2.png, a-3.png."""
    stem, dot, ending = name.rpartition(".")
    numbered = (f"{stem}-{number}{dot}{ending}" for number in count(2))
    return next(candidate for candidate in chain([name], numbered) if candidate not in taken and candidate != INDEX)


def _headers(entries: Sequence[Entry]) -> dict[str, str]:
    answers = [answer for entry in entries for answer in entry.answers]
    headers = {"X-Failed": str(sum(entry.refusal is not None for entry in entries))}
    if answers:
        headers["X-Model"] = answers[0].headers["X-Model"]
    seeds = ",".join(answer.headers["X-Seed"] for answer in answers if "X-Seed" in answer.headers)
    return {**headers, "X-Seed": seeds} if 0 < len(seeds) <= _LONGEST_HEADER else headers


def too_many_pictures(most: int) -> Refusal:
    """The refusal of a request that is over the limit in pictures."""
    return Refusal(
        413,
        "too_many_pictures",
        f"the request holds more than {most} pictures.",
        hint="Send several requests, or have the operator raise FEWPAIR_MAX_PICTURES (for jobs FEWPAIR_JOBS_MAX_PICTURES).",
    )


def _broken_zip() -> Refusal:
    return Refusal(400, "broken_zip", "the uploaded ZIP is broken or cut short.", hint="Pack it again and send the whole file.")
