"""What a request to /v1 holds: the pictures and the options, sent as a form, as the bare file, or as JSON."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import string
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from tempfile import SpooledTemporaryFile
from time import perf_counter
from typing import IO, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from serving.batch import Picture, clean_name, too_many_pictures
from serving.errors import Refusal
from serving.filefields import check_charset
from serving.gate import Gate
from serving.metrics import current_trace
from serving.settings import Settings

Options = TypeVar("Options", bound=BaseModel)
T = TypeVar("T")
RAW_KINDS = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff", "image/gif", "application/zip", "application/octet-stream")
_IN_MEMORY = 2**20  # what is larger waits for its turn on the disk
_MOST_FIELDS = 32
_LONGEST_FIELD = 2**16
_VALUES_BESIDE_PICTURES = 1000
_BLANKS = string.whitespace.encode()
_HINT = "Send a form (curl -F image=@street.jpg), the file itself with its Content-Type, or JSON with the file in base64."


@dataclass(frozen=True)
class Asked(Generic[Options]):
    """What was asked for; `listed` says that the pictures came as a list."""

    pictures: tuple[Picture, ...]
    options: Options
    listed: bool


@asynccontextmanager
async def read_request(
    request: Request, kind: type[Options], *, settings: Settings, gate: Gate | None = None
) -> AsyncIterator[Asked[Options]]:
    """Read a request to its end; its files stay open as long as the context. Options of the query are overruled by those of the body.

    JSON, which takes several times its size while it is read, is read in a turn of the gate where there is one.
    """
    query = read_options(kind, _texts(request.query_params.multi_items()))
    content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    async with AsyncExitStack() as files:
        try:
            if content == "multipart/form-data":
                pictures, options = await _form(request, files, settings=settings)
                listed = False
            elif content == "application/json":
                body = await _spooled(request, files)
                pictures, options, listed = await _in_turn(partial(_json, body, files, settings), gate)
            elif content.startswith("image/") or content in RAW_KINDS:
                pictures, options, listed = [_picture("image", await _spooled(request, files))], {}, False
            else:
                why = f"a body of the type {content[:80]!r} is not read." if content else "the body's Content-Type is not named."
                raise Refusal(415, "unsupported_media_type", why, hint=_HINT)
        except ClientDisconnect:
            raise Refusal(400, "cut_short", "the request ended before its body did.", hint=_HINT) from None
        beside = read_options(kind, options, strict=content == "application/json")  # JSON has types of its own, a form has only text
        chosen = query.model_copy(update=beside.model_dump(exclude_unset=True))
        if not pictures:
            raise Refusal(400, "no_image", "the form holds no picture.", hint=_HINT)
        yield Asked(tuple(pictures), chosen, listed)


async def _in_turn(work: Callable[[], T], gate: Gate | None) -> T:
    if gate is None:
        return await asyncio.to_thread(work)
    trace, asked = current_trace(), perf_counter()
    async with gate.in_time(), gate.turn():
        trace.stages["wait"] = perf_counter() - asked
        with trace.stage("decode"):
            return await gate.off_loop(work)


async def _form(request: Request, files: AsyncExitStack, *, settings: Settings) -> tuple[list[Picture], dict[str, str]]:
    check_charset(parse_options_header(request.headers["content-type"])[1])
    reading = request.form(max_files=settings.max_pictures, max_fields=_MOST_FIELDS, max_part_size=_LONGEST_FIELD)
    try:
        form = await files.enter_async_context(reading)
    except HTTPException as error:  # all that Starlette says of a form it does not take
        if error.detail.startswith("Too many files"):
            raise too_many_pictures(settings.max_pictures) from None
        raise Refusal(400, "broken_form", f"the form cannot be read: {error.detail}", hint=_HINT) from None
    pictures, texts = [], []
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            if name == "image":
                raise Refusal(400, "not_a_file", "the field image holds text, not a file.", hint=_HINT)
            texts.append((name, value))
        elif name != "image":
            raise Refusal(400, "unknown_field", f"a file stands in the field {name[:80]!r}; the field is called image.", hint=_HINT)
        else:
            pictures.append(_picture(clean_name(value.filename or ""), value.file))
    return pictures, _texts(texts)


async def _spooled(request: Request, files: AsyncExitStack) -> IO[bytes]:
    """The body, on the disk where it is large. The middleware ends a body that is over the limit."""
    body = files.enter_context(SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - the stack closes it
    async for chunk in request.stream():
        body.write(chunk)
    if not body.tell():
        raise Refusal(400, "empty_upload", "the body is empty.", hint=_HINT)
    return body


def _json(body: IO[bytes], files: AsyncExitStack, settings: Settings) -> tuple[list[Picture], dict[str, Any], bool]:
    body.seek(0)
    text = body.read()
    # base64 holds none of these, so that this bounds what the text can grow to when it is read
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > _VALUES_BESIDE_PICTURES + 4 * settings.max_pictures:
        raise Refusal(400, "bad_json", "the JSON holds too many values.", hint='Send {"image": "..."} with the file in base64.')
    try:
        sent = json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal(400, "bad_json", "the body is no JSON that can be read.", hint='Send {"image": "..."}.') from None
    if not isinstance(sent, dict) or ("image" in sent) == ("images" in sent):
        raise Refusal(
            400, "no_image", "the JSON needs either image or images.", hint='Send {"image": "..."} or {"images": ["...", "..."]}.'
        )
    if "image" in sent:
        return [_from_text(sent.pop("image"), "image", files)], sent, False
    images = sent.pop("images")
    if not isinstance(images, list) or not images:
        raise Refusal(400, "no_image", "images is no list of pictures.", hint='Send {"images": ["...", "..."]}.')
    if len(images) > settings.max_pictures:
        raise too_many_pictures(settings.max_pictures)
    return [_from_list(image, number + 1, files) for number, image in enumerate(images)], sent, True


def _from_list(image: Any, number: int, files: AsyncExitStack) -> Picture:
    name = f"image-{number}"
    if isinstance(image, str):
        return _from_text(image, name, files)
    spelled = isinstance(image, dict) and set(image) <= {"image", "name"} and isinstance(image.get("name", ""), str)
    if not spelled or not isinstance(image.get("image"), str):
        raise Refusal(
            400,
            "no_image",
            f"number {number} of the images is no picture.",
            hint='Send each as a text in base64, or as {"image": "...", "name": "..."}.',
        )
    return _from_text(image["image"], clean_name(image.get("name") or name), files)


def _from_text(text: Any, name: str, files: AsyncExitStack) -> Picture:
    """A picture from base64, a data: URL, or an http(s) address, which is not fetched here."""
    if not isinstance(text, str):
        return Picture(name, partial(_not_base64, name))
    if text[:8].lower().startswith(("http://", "https://")):
        return Picture(name, partial(_not_base64, name), url=text)
    if text[:5].lower() == "data:":
        kind, _, text = text.partition(",")
        if not kind.lower().endswith(";base64"):
            return Picture(name, partial(_not_base64, name))
    try:
        decoded = base64.b64decode(text.encode("ascii").translate(None, _BLANKS), validate=True)
    except (binascii.Error, ValueError):
        return Picture(name, partial(_not_base64, name))
    file = files.enter_context(SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - the stack closes it
    file.write(decoded)
    return _picture(name, file)


def _not_base64(name: str) -> bytes:
    raise Refusal(
        400,
        "bad_base64",
        f"{name} is no base64 of a file.",
        hint="Send the file in base64, as it is or as a data:image/png;base64,... URL.",
    )


def _picture(name: str, file: IO[bytes]) -> Picture:
    file.seek(0)
    return Picture(name, partial(_whole, file), head=file.read(4))


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _texts(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Text fields by name."""
    texts: dict[str, str] = {}
    for name, value in pairs:
        if name in texts:
            raise Refusal(400, "repeated_field", f"the field {name[:80]!r} is given more than once.", hint="Give each field once.")
        texts[name] = value
    return texts


def read_options(kind: type[Options], given: Mapping[str, Any], *, strict: bool = False) -> Options:
    """The options of that kind, from texts or (strict) from JSON; Refusal names the field that is wrong."""
    strange = next((name for name in given if name not in kind.model_fields), None)
    if strange is not None:
        fields = ", ".join(["image", *sorted(kind.model_fields)])
        raise Refusal(400, "unknown_field", f"there is no field {strange[:80]!r}.", hint=f"Fields: {fields}.")
    try:
        return kind.model_validate(given, strict=strict)
    except ValidationError as error:
        told = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors(include_url=False, include_input=False))
        raise Refusal(400, "bad_request", f"{told}.", hint="GET /v1/docs shows the fields and their ranges.") from None
