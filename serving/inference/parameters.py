"""The parameters of segmentation and synthesis, the same for forms and queries."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from serving.errors import Refusal
from serving.imaging.decode import PhotoFormat
from serving.imaging.tiling import Tiles

SegmentOutput = Literal["colours", "ids", "overlay", "confidence", "polygons", "json"]
P = TypeVar("P", bound=BaseModel)
SEEDS = 2**32
_NUMBER = r"-?[0-9]{1,4}(\.[0-9]{1,9})?(e-[0-9]{1,2})?"


class ErrorBody(BaseModel):
    """One error."""

    code: str = Field(description="For programs; does not change with the wording.")
    message: str = Field(description="For people: what is wrong, with the value.")
    hint: str = Field(description="For people: what to do about it. May be empty.")


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: Annotated[str | None, BeforeValidator(lambda value: value or None)] = Field(default=None, max_length=200)
    """A name of `GET /v1/models`; the default model of the direction if absent."""


class _Tiled(_Parameters):
    tiles: Tiles = "auto"
    """Whether a picture larger than the model's scale is run in overlapping tiles at its own size. `auto`: only where
    the model was trained at the pictures' own size, and over 4 megapixels; `always`: wherever the model allows it,
    otherwise 400. `X-Tiling` names the tiles that were run.
    """


class SegmentParameters(_Tiled):
    """How a photo is segmented, and how the label map is encoded."""

    output: SegmentOutput = "colours"
    """`colours`: a palette PNG whose indices are the class ids and whose palette is the class colours; `ids`: the ids
    as a grey 8-bit PNG; `overlay`: the colours laid over the photo, JPEG; `confidence`: per pixel, 0 to 255, grey PNG;
    `polygons`: the outlines of the regions as COCO-style JSON; `json`: class shares, mean confidence and the boxes of
    the regions.
    """
    opacity: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False)
    """Of the colours in `output=overlay`."""
    min_area: int = Field(default=1, ge=1, le=2**31)
    """In pixels: smaller regions are left out of `output=polygons` and of the boxes of `output=json`."""


class StyleParameters(_Parameters):
    """How the style of a photo is read."""


class RankParameters(_Tiled):
    """How photos are ranked."""


class SynthesizeParameters(_Tiled):
    """How photos are made from a label map."""

    seed: int | None = Field(default=None, ge=0, lt=SEEDS)
    """Random if absent; comes back in `X-Seed`."""
    style: str | None = Field(default=None, max_length=2**14, pattern=rf"^{_NUMBER}(,{_NUMBER})*$")
    """The look of a photo in place of a seed: numbers of `POST /v1/style`, comma-separated."""
    count: int = Field(default=1, ge=1, le=16)
    """Photos from as many seeds, counted up from `seed`; over 1 they come as a ZIP. Each counts as pixels."""
    format: PhotoFormat = "jpeg"
    """WebP and PNG are lossless."""
    snap: bool = False
    """Take the nearest class for colours that belong to none, instead of refusing them."""


Parameters = RankParameters | SegmentParameters | StyleParameters | SynthesizeParameters


def draw_seeds(seed: int | None, count: int) -> tuple[int, ...]:
    """Return `count` seeds from `seed` on, or from a random one."""
    first = secrets.randbelow(SEEDS) if seed is None else seed
    return tuple((first + offset) % SEEDS for offset in range(count))


def invalid_fields(problems: Sequence[Mapping[str, Any]], fields: Iterable[str] = ()) -> Refusal:
    """Return the refusal for pydantic's `ValidationError.errors()`; `fields` are the valid names."""
    unknown = next((problem["loc"][-1] for problem in problems if problem["type"] == "extra_forbidden"), None)
    hint = f"Fields: {', '.join(['image', *sorted(fields)])}." if fields else "GET /v1/docs shows the fields."
    if unknown is not None:
        return Refusal(400, "unknown_field", f"there is no field {str(unknown)[:80]!r}.", hint=hint)
    message = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'] if part != 'query')}: {problem['msg']}"
        for problem in problems[:5]
    )
    return Refusal(400, "bad_request", f"{message[:1000]}.", hint="GET /v1/docs shows the fields and their ranges.")


def validated(kind: type[P], given: Mapping[str, str]) -> P:
    """Return the parameters of that kind. Raises Refusal that names the field."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise invalid_fields(error.errors(), kind.model_fields) from None


def once_each(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the text fields of a form or a query by name. Raises Refusal where one is repeated."""
    texts: dict[str, str] = {}
    for name, value in pairs:
        if name in texts:
            message = f"the field {name[:80]!r} is given more than once."
            raise Refusal(400, "repeated_field", message, hint="Give each field once.")
        texts[name] = value
    return texts
