"""Several pictures in one request: open ZIPs within limits, and pack the answers into a ZIP, or rank the photos."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np

from serving.errors import Refusal
from serving.imaging.decode import too_many_bytes
from serving.imaging.ranking import rank
from serving.inference.outputs import ENDINGS, Answer, clean_name, pack_zip
from serving.settings import Settings

INDEX = "index.json"
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # the first bytes of a ZIP
_END, _END_BYTES = b"PK\x05\x06", 22  # the end record of a ZIP's directory
_LOCATOR64, _LOCATOR64_BYTES = b"PK\x06\x07", 20
_COMMENT_BYTES = 2**16  # the longest comment behind the directory
_DIRECTORY_BYTES = 2**16
_DIRECTORY_BYTES_A_PICTURE = 1024  # an entry of the directory takes 46 bytes and its names
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may need gigabytes before they unpack a byte
_SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, IndexError)


@dataclass(frozen=True)
class Picture:
    """One uploaded file: its name and a function that reads its content."""

    name: str
    read: Callable[[], bytes]
    head: bytes = b""  # the first bytes, where they are known


@dataclass(frozen=True)
class Entry:
    """The result for one picture of several: its answers, or the error."""

    name: str
    answers: tuple[Answer, ...] = ()
    error: dict[str, str] | None = None


def unpacked(pictures: Sequence[Picture], settings: Settings) -> list[Picture]:
    """Return the pictures with each ZIP replaced by its files. Raises Refusal where they are too many."""
    found: list[Picture] = []
    for picture in pictures:
        if picture.head.startswith(ZIP_MAGIC):
            file = io.BytesIO(picture.read())
            found += zipped(file, max_pictures=settings.max_pictures, max_bytes=settings.max_bytes)
        else:
            found.append(picture)
    if len(found) > settings.max_pictures:
        raise too_many_pictures(settings.max_pictures)
    if not found:
        raise Refusal(400, "no_image", "the ZIP holds no file.", hint="Put pictures into it.")
    return found


def by_number(name: object) -> str:
    """Sort key for names of files: frame9 before frame10."""
    return re.sub(r"\d+", lambda number: number[0].zfill(12), str(name))


def packed(entries: Sequence[Entry]) -> Answer:
    """Pack all answers as a ZIP with an `index.json`."""
    index, answers = filed(entries)
    files = {name: answer.body for name, answer in answers.items()}
    files[INDEX] = json.dumps({"answers": index}, indent=1).encode()
    headers = {"X-Failed": str(sum(entry.error is not None for entry in entries))}
    for answer in answers.values():  # all of one model
        headers["X-Model"] = answer.headers["X-Model"]
    return Answer(pack_zip(files), "application/zip", headers)


def ranked(entries: Sequence[Entry]) -> Answer:
    """Rank photos whose answers are those of `output=json`. Photos are alike where the same classes cover them."""
    reports = [json.loads(entry.answers[0].body) for entry in entries if entry.answers]
    names = [entry.name for entry in entries if entry.answers]
    features, uncertainty, reasons = np.zeros((len(names), 256)), np.zeros(len(names)), []
    for row, report in enumerate(reports):
        doubts = {part["name"]: part["share"] * (1 - part["mean_confidence"]) for part in report["classes"]}
        uncertainty[row] = sum(doubts.values())
        features[row, [part["id"] for part in report["classes"]]] = [part["share"] for part in report["classes"]]
        doubted = max(doubts, key=doubts.__getitem__, default="void")
        reasons.append(f"mean confidence {1 - uncertainty[row]:.2f}, least sure of {doubted}")
    order, near = rank(features, uncertainty, len(names))
    photos = [
        {
            "name": names[row],
            "uncertainty": round(uncertainty[row], 4),
            "reason": f"similar class shares to {names[near[row]]}" if row in near else reasons[row],
        }
        for row in [*order, *near]
    ]
    failed = [{"name": entry.name, "error": entry.error} for entry in entries if entry.error is not None]
    model = reports[0]["model"] if reports else None
    return Answer(json.dumps({"model": model, "photos": photos, "failed": failed}).encode(), "application/json")


def filed(entries: Sequence[Entry]) -> tuple[list[dict[str, Any]], dict[str, Answer]]:
    """Return the entries of `index.json`, and the answers by unique names: the picture's, or its seed."""
    index: list[dict[str, Any]] = []
    files: dict[str, Answer] = {}
    for entry in entries:
        for answer in entry.answers:
            seed = f"-seed-{answer.headers['X-Seed']}" if len(entry.answers) > 1 else ""
            stem, ending = str(PurePosixPath(entry.name).with_suffix("")) + seed, ENDINGS[answer.media_type]
            names = chain([stem + ending], (f"{stem}-{number}{ending}" for number in count(2)))
            name = next(name for name in names if name not in files and name != INDEX)
            files[name] = answer
            origin: dict[str, Any] = {"model": answer.headers["X-Model"], "tiling": answer.headers["X-Tiling"]}
            if "X-Seed" in answer.headers:
                origin |= {"seed": int(answer.headers["X-Seed"]), "spelling": answer.headers["X-Label-Spelling"]}
            index.append({"name": entry.name, "file": name, **origin})
        if entry.error is not None:
            index.append({"name": entry.name, "error": entry.error})
    return index, files


def zipped(file: IO[bytes], *, max_pictures: int, max_bytes: int) -> list[Picture]:
    """Return the files in a ZIP, each unpacked when it is read."""
    try:
        _check_directory(file, max_pictures)
        archive = _opened(file)
    except _BROKEN:
        hint = "Pack it again and send the whole file."
        raise Refusal(400, "broken_zip", "the uploaded ZIP is broken or cut short.", hint=hint) from None
    members = [member for member in archive.infolist() if not _is_left_out(member.filename)]
    if len(members) > max_pictures:
        raise too_many_pictures(max_pictures)
    return [
        Picture(clean_name(member.filename), partial(_unpack, archive, member, max_bytes=max_bytes))
        for member in members
    ]


def too_many_pictures(most: int) -> Refusal:
    """Return the error for a request over the limit of pictures."""
    hint = "Send several requests, or raise the server's FEWPAIR_MAX_PICTURES (for jobs FEWPAIR_JOBS_MAX_PICTURES)."
    return Refusal(413, "too_many_pictures", f"the request holds more than {most} pictures.", hint=hint)


def _check_directory(file: IO[bytes], max_pictures: int) -> None:
    """Refuse a directory of a million entries before it is read into memory, and ZIP64."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END_BYTES - _COMMENT_BYTES - _LOCATOR64_BYTES))
    tail = file.read()
    file.seek(0)
    end = tail.rindex(_END)  # ValueError where there is none
    if tail[max(0, end - _LOCATOR64_BYTES) : end].startswith(_LOCATOR64):
        message = "the ZIP is in the form for files over 4 GiB (ZIP64)."
        raise Refusal(400, "zip64", message, hint="Pack it as a plain ZIP.")
    (directory,) = struct.unpack_from("<I", tail, end + 12)
    if directory > _DIRECTORY_BYTES + _DIRECTORY_BYTES_A_PICTURE * max_pictures:
        raise too_many_pictures(max_pictures)


def _opened(file: IO[bytes]) -> zipfile.ZipFile:
    """Open a ZIP whose names without UTF-8 flag are all UTF-8 (macOS), CP949 (Korean Windows) or CP437."""
    for encoding in ("utf-8", "cp949"):
        with suppress(UnicodeDecodeError):
            archive = zipfile.ZipFile(file, metadata_encoding=encoding)
            letters = [letter for letter in "".join(archive.namelist()) if not letter.isascii()]
            # Many CP437 names are valid CP949, but of rare letters; most letters of Korean names are in EUC-KR.
            korean = [letter for letter in letters if "가" <= letter <= "힣" and letter.encode("euc_kr", "ignore")]
            if encoding == "utf-8" or 2 * len(korean) > len(letters):
                return archive
    return zipfile.ZipFile(file)


def _is_left_out(path: str) -> bool:
    """Return whether a member of a ZIP is a folder, or a file that a system adds."""
    return path.endswith("/") or "__MACOSX" in PurePosixPath(path).parts or PurePosixPath(path).name in _SYSTEM_FILES


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, max_bytes: int) -> bytes:
    if member.file_size > max_bytes:
        raise too_many_bytes(max_bytes)
    if member.flag_bits & 1 or member.compress_type not in _METHODS:
        message = "the file is encrypted or packed in an unusual way."
        raise Refusal(400, "unusual_zip", message, hint="Pack it as a plain ZIP (deflate).")
    try:
        with archive.open(member) as file:
            return file.read(member.file_size)  # archive.read would unpack more than the directory says
    except _BROKEN:
        raise Refusal(400, "broken_zip", "the file in the ZIP is broken or cut short.", hint="Pack it again.") from None
