"""What a caller may ask for beside the picture: the options of segment and synthesize, the same for forms, queries and JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from serving.imaging import PhotoFormat
from serving.tiles import Tiles

SegmentOutput = Literal["colours", "ids", "overlay", "confidence", "polygons", "json"]
SEGMENT_OUTPUTS: tuple[SegmentOutput, ...] = ("colours", "ids", "overlay", "confidence", "polygons", "json")
PHOTO_FORMATS: tuple[PhotoFormat, ...] = ("jpeg", "webp", "png")
Packing = Literal["zip", "json"]
SEEDS = 2**32
MOST_PHOTOS = 16
MOST_AREA = 2**31

MODEL = "A name of `GET /v1/models`; the default model of the direction if absent."
OUTPUT = (
    "`colours`: a palette PNG whose indices are the class ids and whose palette is the class colours; "
    "`ids`: the ids as a grey 8-bit PNG; "
    "`overlay`: the colours laid over the photo, JPEG; `confidence`: per pixel, 0 to 255, grey PNG; "
    "`polygons`: the outlines of the regions as COCO-style JSON; "
    "`json`: class shares, mean confidence and the boxes of the regions."
)
OPACITY = "Of the colours in `output=overlay`."
MIN_AREA = "In pixels: smaller regions are left out of `output=polygons` and of the boxes of `output=json`."
SEED = "Random if absent; comes back in `X-Seed`."
COUNT = (
    "Photos from as many seeds, counted up from `seed`; over 1 they come as a ZIP, or as JSON where `answers=json`. Each counts as pixels."
)
FORMAT = "WebP and PNG are lossless."
SNAP = "Take the nearest class for colours that belong to none, instead of refusing them."
ANSWERS = (
    "How several answers come: in a ZIP with an `index.json`, or as a JSON list with the files in base64. "
    "If absent: as JSON where several pictures came as JSON, otherwise as a ZIP; one answer to one picture comes as it is."
)
TILES = (
    "Whether a picture larger than the model's scale is run in overlapping tiles at its own size. `auto`: only where the model was trained "
    "at the pictures' own size, and over 4 megapixels; `always`: wherever the model allows it, otherwise 400. `X-Tiling` tells what was."
)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str | None, BeforeValidator(lambda value: None if value == "" else value)] = Field(
        default=None, description=MODEL, max_length=200
    )
    tiles: Tiles = Field(default="auto", description=TILES)
    answers: Packing | None = Field(default=None, description=ANSWERS)


class SegmentOptions(_Options):
    """How a photo is to be segmented and answered."""

    output: SegmentOutput = Field(default="colours", description=OUTPUT)
    opacity: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False, description=OPACITY)
    min_area: int = Field(default=1, ge=1, le=MOST_AREA, description=MIN_AREA)


class SynthesizeOptions(_Options):
    """How photos are to be made from a label map."""

    seed: int | None = Field(default=None, ge=0, lt=SEEDS, description=SEED)
    count: int = Field(default=1, ge=1, le=MOST_PHOTOS, description=COUNT)
    format: PhotoFormat = Field(default="jpeg", description=FORMAT)
    snap: bool = Field(default=False, description=SNAP)
