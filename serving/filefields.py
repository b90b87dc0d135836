"""Guards the forms: BentoML would download a text where a file belongs as a URL, and FastAPI would pass over a misspelt field."""

from __future__ import annotations

from collections.abc import Mapping

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import Refusal
from serving.middleware import answer_refusals, refuse

_HINT = 'Send multipart/form-data with the file in the field "image", for example: curl -F image=@street.jpg'
_SEVERAL = "POST /v1/segment and /v1/synthesize take several files, each in a field image."
_LONGEST_NAME = 240  # bytes: file systems take 255, BentoML puts some before it


class FileFields:
    """Reads the form along as it streams in, with the parser Starlette uses, and refuses it at the first wrong part.

    `fields` maps the guarded paths to the names of their text fields; the only file field is `image`.
    """

    def __init__(self, app: ASGIApp, fields: Mapping[str, frozenset[str]]) -> None:
        self._app = app
        self._fields = fields

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._fields:
            await self._app(scope, receive, send)
            return
        kind, options = parse_options_header(Headers(scope=scope).get("content-type", ""))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            refusal = Refusal(415, "not_multipart", "the picture is expected in a multipart form.", hint=_HINT)
            await refuse(refusal, scope=scope, receive=receive, send=send)
            return
        try:
            check_charset(options)
        except Refusal as refusal:
            await refuse(refusal, scope=scope, receive=receive, send=send)
            return
        form = _Form(options[b"boundary"], self._fields[scope["path"]])

        async def along() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "cut_short", "the request ended before its body did.", hint="Send it again.")
            form.read(message.get("body", b""), last=not message.get("more_body", False))
            return message

        await answer_refusals(self._app, scope, along, send=send)


def _is_awkward(name: bytes) -> bool:
    """Whether BentoML, which keeps the file under its name, would fail to."""
    try:
        stored = len(name)
        name.decode()
    except UnicodeDecodeError:  # Starlette takes it for Latin-1
        stored = 2 * len(name)
    return stored > _LONGEST_NAME or b"\0" in name


def check_charset(options: Mapping[bytes, bytes]) -> None:
    """Refuse a form that names an encoding of its own: Python knows some that fail on any text, and some that take long."""
    charset = options.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in ("utf-8", "utf8"):
        raise Refusal(415, "unsupported_charset", f"a form in {charset[:80]!r} is not read.", hint="Send it in UTF-8, and name no charset.")


class _Form:
    def __init__(self, boundary: bytes, text_fields: frozenset[str]) -> None:
        self._text_fields = text_fields
        self._name = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._texts = 0
        self._files = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._check,
            },
        )

    def read(self, chunk: bytes, *, last: bool) -> None:
        try:
            self._parser.write(chunk)
            if last:
                self._parser.finalize()
        except FormParserError:
            raise Refusal(400, "broken_form", "the multipart form is broken or cut short.", hint=_HINT) from None
        if last and not self._files:
            raise Refusal(400, "no_image", "the form holds no picture.", hint=_HINT)

    def _begin(self) -> None:
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _check(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("latin-1")
        if b"filename" in options:
            self._files += 1
            if name != "image":
                why = f"a file stands in the field {name[:80]!r}; the field is called image."
                raise Refusal(400, "unknown_field", why, hint=_HINT)
            if self._files > 1:
                raise Refusal(400, "unknown_field", "one file is expected, in the field image; there is another.", hint=_SEVERAL)
            if _is_awkward(options[b"filename"]):
                raise Refusal(
                    400,
                    "bad_file_name",
                    "the file's name is too long, or holds a zero byte.",
                    hint="Send it under a name of less than 200 letters.",
                )
        elif name == "image":
            raise Refusal(400, "not_a_file", "the field image holds text, not a file.", hint=_HINT)
        elif name not in self._text_fields:
            raise Refusal(
                400, "unknown_field", f"there is no field {name[:80]!r}.", hint=f"Fields: image, {', '.join(sorted(self._text_fields))}."
            )
        else:
            self._texts += 1
            if self._texts > len(self._text_fields):
                raise Refusal(400, "repeated_field", "a field is given more than once.", hint="Give each field once.")
