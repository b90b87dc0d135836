"""The pictures and parameters of a request, sent as a form or as the bare file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serving.errors import Refusal
from serving.inference.archive import Picture, packed, ranked, too_many_pictures
from serving.inference.outputs import clean_name
from serving.inference.parameters import Parameters, RankParameters, once_each, validated
from serving.inference.pipeline import Backend, translate, translator
from serving.settings import Settings

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
MOST_JSON_VALUES = 2_000_000  # parsed, they may take half a gigabyte
_IMAGES = ("jpeg", "png", "webp", "avif", "bmp", "tiff", "gif")
RAW_KINDS = (*(f"image/{kind}" for kind in _IMAGES), "application/zip", "application/octet-stream")
_IN_MEMORY = 2**20  # a larger body is kept on disk until it is decoded
_MAX_FIELDS = 32
_MAX_FIELD_BYTES = 2**16
_HINT = "Send a form (curl -F image=@street.jpg), or the file with its Content-Type."


def ready(request: Request) -> Backend:
    """The backend; Refusal (503) while it has no model."""
    backend: Backend = request.app.state.backend
    if backend.not_ready_reason is not None:
        raise Refusal(503, "not_ready", backend.not_ready_reason, headers={"Retry-After": "5"})
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


@asynccontextmanager
async def spooled(request: Request) -> AsyncIterator[IO[bytes]]:
    """Read the body, to the disk where it is large. Raises Refusal where it is empty."""
    with SpooledTemporaryFile(_IN_MEMORY) as body:
        async for chunk in request.stream():
            body.write(chunk)
        if not body.tell():
            raise Refusal(400, "empty_upload", "the body is empty.", hint=_HINT)
        body.seek(0)
        yield body


def parse_json(schema: type[Model], text: bytes, code: str, hint: str) -> Model:
    """Return a body of JSON as a model. Raises Refusal with the code where it is none, or holds too many values."""
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > MOST_JSON_VALUES:
        message = f"the JSON holds more than {MOST_JSON_VALUES} values."
        raise Refusal(413, "too_many_values", message, hint="Send less at once, and tensors as binary data.")
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the body"
        raise Refusal(400, code, f"{where[:80]}: {problem['msg']}.", hint=hint) from None


@asynccontextmanager
async def read_form(
    request: Request, *, max_pictures: int
) -> AsyncIterator[tuple[list[tuple[str, IO[bytes]]], dict[str, str]]]:
    """Yield the pictures and the text fields of a form. Raises Refusal where it is broken or holds anything else."""
    limits = {"max_files": max_pictures, "max_fields": _MAX_FIELDS, "max_part_size": _MAX_FIELD_BYTES}
    parser = _FormParser(request.headers, request.stream(), **limits)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise too_many_pictures(max_pictures) from None
        if error.message.startswith("Part exceeded"):
            message = f"a field without a file name is over {_MAX_FIELD_BYTES // 1024} KiB."
            raise Refusal(400, "field_too_long", message, hint=_HINT) from None
        raise _broken(error.message.rstrip(".")) from None
    except UnicodeError:
        raise _broken("its names are not in the charset that its Content-Type gives") from None
    try:
        if not parser.complete:
            raise _broken("it ends before its closing boundary")
        pictures: list[tuple[str, IO[bytes]]] = []
        texts = []
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) != (name == "image"):
                holds = "a file; the field is called image" if isinstance(value, UploadFile) else "no file"
                raise Refusal(400, "unknown_field", f"the field {name[:80]!r} holds {holds}.", hint=_HINT)
            if isinstance(value, UploadFile):
                pictures.append((clean_name(value.filename or ""), value.file))
            else:
                texts.append((name, value))
        yield pictures, once_each(texts)
    finally:
        await form.close()


class _FormParser(MultiPartParser):
    """Starlette's, which does not distinguish a whole form from one that was cut off."""

    complete = False
    spool_max_size = 2**15  # of a file in memory; a form may hold many

    def on_end(self) -> None:
        """Called at the closing boundary."""
        self.complete = True


async def _read(request: Request, files: AsyncExitStack, settings: Settings) -> tuple[list[Picture], dict[str, str]]:
    """The pictures, and the parameters that are sent with them."""
    content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content == "multipart/form-data":
        form = read_form(request, max_pictures=settings.max_pictures)
        pictures, texts = await files.enter_async_context(form)
        return [_picture(name, file) for name, file in pictures], texts
    if content.startswith("image/") or content in RAW_KINDS:
        return [_picture("image", await files.enter_async_context(spooled(request)))], {}
    why = f"a body of the type {content[:80]!r} is not read." if content else "the body has no Content-Type."
    raise Refusal(415, "unsupported_media_type", why, hint=_HINT)


def _picture(name: str, file: IO[bytes]) -> Picture:
    def read(size: int = -1) -> bytes:
        file.seek(0)
        return file.read(size)

    return Picture(name, read, head=read(4))


def _broken(why: str) -> Refusal:
    return Refusal(400, "broken_form", f"the multipart form cannot be read: {why}.", hint=_HINT)
