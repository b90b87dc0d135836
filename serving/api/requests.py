"""The pictures and parameters of a request, sent as a form or as the bare file."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any, TypeVar

from fastapi import Depends
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serving.errors import Refusal
from serving.inference.archive import Picture, packed, too_many_pictures
from serving.inference.outputs import clean_name
from serving.inference.parameters import Parameters, RankParameters, once_each, validated
from serving.inference.pipeline import Backend, translate, translator
from serving.inference.ranking import ranked
from serving.settings import Settings

T = TypeVar("T")
_IMAGES = ("jpeg", "png", "webp", "bmp", "tiff", "gif")
RAW_KINDS = (*(f"image/{kind}" for kind in _IMAGES), "application/zip", "application/octet-stream")
_IN_MEMORY = 2**20  # a larger body is kept on disk until it is decoded
_MAX_FIELDS = 32
_MAX_FIELD_BYTES = 2**16
_HINT = "Send a form (curl -F image=@street.jpg), or the file with its Content-Type."


def ready(request: Request) -> Backend:
    """The backend; Refusal (503) while it has no model."""
    backend: Backend = request.app.state.backend
    if backend.trouble is not None:
        raise Refusal(503, "not_ready", backend.trouble, headers={"Retry-After": "5"})
    return backend


Ready = Annotated[Backend, Depends(ready)]


async def answer(request: Request, query: Parameters, backend: Backend) -> Response:
    """Read a request, translate its pictures and answer it. Parameters of the body overrule those of the query.

    Refusal (503) before the body is read where no further request would be admitted.
    """
    backend.scheduler.check_capacity()
    once_each(request.query_params.multi_items())
    async with AsyncExitStack() as files:
        pictures, given = await _read(request, files, backend.settings)
        body = validated(type(query), given)
        if not pictures:
            raise Refusal(400, "no_image", "the form holds no picture.", hint=_HINT)
        parameters = query.model_copy(update=body.model_dump(exclude_unset=True))
        one, count = translator(backend.models, parameters), getattr(parameters, "count", 1)
        pack = ranked if isinstance(parameters, RankParameters) else packed
        made = await while_connected(request, translate(pictures, one, backend, count=count, pack=pack))
        return Response(made.body, media_type=made.media_type, headers=made.headers)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of the work; without a client, cancel it and raise ClientDisconnect."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    tasks: set[asyncio.Future[Any]] = {working, asyncio.ensure_future(disconnected())}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def spooled(request: Request, files: AsyncExitStack) -> IO[bytes]:
    """Read the body, to the disk where it is large. Raises Refusal where it is empty."""
    body = _temporary(files)
    async for chunk in request.stream():
        body.write(chunk)
    if not body.tell():
        raise Refusal(400, "empty_upload", "the body is empty.", hint=_HINT)
    body.seek(0)
    return body


async def read_form(
    request: Request, open_part: Callable[[], IO[bytes]], *, max_pictures: int
) -> tuple[list[tuple[str, IO[bytes]]], dict[str, str]]:
    """Return the pictures and the text fields of a form. Raises Refusal where it is broken or holds anything else.

    `open_part` opens the file for the content of the next part, which is complete when the following one is opened.
    """
    boundary = parse_options_header(request.headers.get("content-type"))[1].get(b"boundary")
    if not boundary:
        raise _broken("its Content-Type names no boundary")
    reader = _FormReader(boundary, open_part, max_pictures)
    try:
        async for chunk in request.stream():
            writing = asyncio.ensure_future(asyncio.to_thread(reader.parser.write, chunk))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:  # the thread goes on, and must open no file once the caller has left
                await asyncio.wait([writing])
                raise
    except FormParserError as error:
        raise _broken(f"{error}") from None
    if not reader.complete:
        raise _broken("it ends before its closing boundary")
    return reader.pictures, once_each(reader.texts)


async def _read(request: Request, files: AsyncExitStack, settings: Settings) -> tuple[list[Picture], dict[str, str]]:
    """The pictures, and the parameters that are sent with them."""
    content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content == "multipart/form-data":
        pictures, texts = await read_form(request, partial(_temporary, files), max_pictures=settings.max_pictures)
        return [_picture(name, file) for name, file in pictures], texts
    if content.startswith("image/") or content in RAW_KINDS:
        return [_picture("image", await spooled(request, files))], {}
    why = f"a body of the type {content[:80]!r} is not read." if content else "the body has no Content-Type."
    raise Refusal(415, "unsupported_media_type", why, hint=_HINT)


def _picture(name: str, file: IO[bytes]) -> Picture:
    file.seek(0)
    return Picture(name, partial(_whole, file), head=file.read(4))


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _temporary(files: AsyncExitStack) -> IO[bytes]:
    return files.enter_context(SpooledTemporaryFile(_IN_MEMORY))


class _FormReader:
    """The callbacks of the parser. (Starlette's reader takes a part without a file name for a text in memory.)"""

    def __init__(self, boundary: bytes, open_part: Callable[[], IO[bytes]], max_pictures: int) -> None:
        self.pictures: list[tuple[str, IO[bytes]]] = []
        self.texts: list[tuple[str, str]] = []
        self.complete = False
        self._open_part, self._max_pictures = open_part, max_pictures
        self._header = self._value = self._disposition = b""
        self._text: str | None = None  # the name of the present part, if it is a text field
        self._file: IO[bytes] = io.BytesIO()
        callbacks: Any = {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}
        self.parser = MultipartParser(boundary, callbacks)

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        options = parse_options_header(self._disposition)[1]
        self._disposition = b""
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._text = None if name == "image" else name
        if self._text is None and len(self.pictures) >= self._max_pictures:
            raise too_many_pictures(self._max_pictures)
        if self._text is not None and b"filename" in options:
            message = f"the field {name[:80]!r} holds a file; the field is called image."
            raise Refusal(400, "unknown_field", message, hint=_HINT)
        if len(self.texts) >= _MAX_FIELDS:
            raise _broken(f"it has more than {_MAX_FIELDS} text fields")
        self._file = self._open_part()
        if self._text is None:
            file_name = options.get(b"filename", b"").decode("utf-8", "replace")
            self.pictures.append((clean_name(file_name), self._file))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._file.write(data[start:end])

    def on_part_end(self) -> None:
        if self._text is None:
            return
        if self._file.tell() > _MAX_FIELD_BYTES:
            raise _broken(f"the field {self._text[:80]!r} is longer than {_MAX_FIELD_BYTES} bytes")
        self._file.seek(0)
        self.texts.append((self._text, self._file.read().decode("utf-8", "replace")))

    def on_end(self) -> None:
        self.complete = True


def _broken(why: str) -> Refusal:
    return Refusal(400, "broken_form", f"the multipart form cannot be read: {why}.", hint=_HINT)
