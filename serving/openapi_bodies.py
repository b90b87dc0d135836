"""What the OpenAPI document of /v1 says of requests: a form, the bare file with its options in the query, or JSON."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from serving.asked import SegmentOptions, SynthesizeOptions
from serving.intake import RAW_KINDS
from serving.openapi import LABEL, PHOTO, PICTURE

_TEXT = "The file in base64, bare or as a `data:` URL; or an http(s) address, where the operator allows its host."
_NAMED = "NamedPicture"


def segment_request() -> dict[str, Any]:
    """How photos and their options are sent."""
    return _request(SegmentOptions, PHOTO, "Photo")


def synthesize_request() -> dict[str, Any]:
    """How label maps and their options are sent."""
    return _request(SynthesizeOptions, LABEL, "LabelMap")


def schemas() -> dict[str, Any]:
    """The schemas of the JSON bodies by their names. Generated clients make a type of each; of a `oneOf` over the fields of one object they
    make none that can be sent."""
    named = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": _text(), "name": {"type": "string"}},
        "additionalProperties": False,
    }
    return {_NAMED: named, **_bodies(SegmentOptions, "Photo"), **_bodies(SynthesizeOptions, "LabelMap")}


def _bodies(options: type[BaseModel], noun: str) -> dict[str, Any]:
    listed = {
        "type": "array",
        "items": {"anyOf": [_text(), _reference(_NAMED)]},
        "minItems": 1,
        "description": "Several pictures, each bare or with a name; answered as a list.",
    }
    properties = options.model_json_schema()["properties"]
    return {
        name: {"type": "object", "required": [field], "properties": {field: schema, **properties}, "additionalProperties": False}
        for name, field, schema in ((f"One{noun}", "image", _text()), (f"Several{noun}s", "images", listed))
    }


def _text() -> dict[str, Any]:
    return {"type": "string", "description": _TEXT}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _request(options: type[BaseModel], picture: str, noun: str) -> dict[str, Any]:
    fields = form_fields(options)
    file = {"type": "string", "format": "binary", "description": picture}
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "array", "items": file, "minItems": 1}, **fields},
        "additionalProperties": False,
    }
    json = {"oneOf": [_reference(f"One{noun}"), _reference(f"Several{noun}s")]}
    examples = {
        "one": {"summary": "one picture, answered as a file", "value": {"image": PICTURE}},
        "several": {
            "summary": "several pictures, answered as a list",
            "value": {"images": [{"name": "one.png", "image": PICTURE}, f"data:image/png;base64,{PICTURE}"]},
        },
    }
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "description": schema["description"], "schema": schema}
            for name, schema in fields.items()
        ],
        "requestBody": {
            "required": True,
            "description": f"{picture} Options in the body overrule those in the query.",
            "content": {
                "multipart/form-data": {"schema": form},
                "application/json": {"schema": json, "examples": examples},
                **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in RAW_KINDS},
            },
        },
    }


def form_fields(options: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """The schemas of the options as fields of a form or a query."""
    return {name: _without_null(schema) for name, schema in options.model_json_schema()["properties"].items()}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field that may be left out: absence is not null."""
    kept = {name: value for name, value in schema.items() if name not in ("anyOf", "title", "default")}
    if schema.get("default") is not None:
        kept["default"] = schema["default"]
    for choice in schema.get("anyOf", ()):
        if choice != {"type": "null"}:
            kept |= choice
    return kept
