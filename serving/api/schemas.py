"""What the API reads and answers with, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from serving.imaging.domain import ClassRow, Resize
from serving.inference.outputs import Share
from serving.inference.parameters import ErrorBody
from serving.models.manifest import DirectionName

_ANNOTATIONS = "The regions. `segmentation`: one polygon x1, y1, ... along the pixels' edges, its holes joined by cuts."
Box = Annotated[list[int], Field(min_length=4, max_length=4, description="x, y, width, height.")]


class Error(BaseModel):
    """The one shape of every 4xx and 5xx."""

    error: ErrorBody


class ModelEntry(BaseModel):
    """One model that answers."""

    name: str
    description: str
    directions: list[str] = Field(description="Of `to_label` and `to_photo`.", examples=[["to_label", "to_photo"]])
    default_for: list[str] = Field(description="The directions in which it answers when no model is named.")
    provider: str = Field(description="Where it runs.", examples=["CPUExecutionProvider"])
    int8: bool = Field(description="Whether its graphs run in 8 bits here.")
    label_kind: str = Field(description="`classes`, or `picture` for models between two kinds of pictures.")
    classes: list[ClassRow]
    size: list[int] | None = Field(description="[height, width] it runs at; null where it runs at the upload's size.")
    multiple_of: int = Field(description="Sides are padded to multiples of this.")
    confidence: bool = Field(description="Whether `output=confidence` is available.")
    seeded: bool = Field(description="Whether different seeds give different photos.")
    style: bool = Field(description="Whether `POST /v1/style` reads the style of photos for it.")
    previous: bool = Field(description="Whether it makes frames in a row; only jobs do so.")
    examples: list[str] = Field(description="What `GET /v1/models/{name}/examples/{example}.jpg` shows.")
    metrics: dict[str, Any] = Field(description="Split name to figures.")


class BrokenEntry(BaseModel):
    """A folder of the models folder that cannot be served."""

    name: str
    reason: str


class ModelList(BaseModel):
    """The models folder."""

    models: list[ModelEntry]
    broken: list[BrokenEntry]
    defaults: dict[DirectionName, str] = Field(description="Direction to the model that answers when none is named.")


class ModelCard(ModelEntry):
    """One model with its card."""

    training: dict[str, Any] = Field(description="Method, dataset with its terms, pairs, steps, size, seed, versions.")
    parity: dict[str, Any] = Field(description="The exported graph against the trained network, measured at export.")
    tiling: str
    resize: Resize


class RegionEntry(BaseModel):
    """Pixels of one class that touch along an edge."""

    id: int = Field(description="The class's.")
    name: str
    area: int
    box: Box


class SegmentReport(BaseModel):
    """The answer to `output=json`."""

    model: str
    width: int
    height: int
    mean_confidence: float | None
    classes: list[Share]
    regions_found: int | None = Field(description="Of at least `min_area` pixels; null where there are too many.")
    regions: list[RegionEntry] | None = Field(description="The largest of them, at most 1000. Void has none.")


class StyleReport(BaseModel):
    """The answer of `POST /v1/style`."""

    model: str
    style: list[float]


class CocoDocument(BaseModel):
    """The answer to `output=polygons`, in the form of COCO's object detection."""

    info: dict[str, str]
    images: list[dict[str, Any]] = Field(description="The photo: id, file_name, width, height.")
    categories: list[dict[str, Any]] = Field(description="The classes but void; ids are the dataset's, from 0 on.")
    annotations: list[dict[str, Any]] = Field(description=_ANNOTATIONS)


class RankReport(BaseModel):
    """The answer of `POST /v1/rank`."""

    model: str | None = Field(description="The model that answered; null where no photo could be read.")
    photos: list[dict[str, Any]] = Field(description="name, uncertainty (0 to 1) and reason; first to label first.")
    failed: list[dict[str, Any]] = Field(description="name and error of photos that could not be read.")


class PicturesForm(BaseModel):
    """The files of a form."""

    model_config = ConfigDict(extra="forbid")

    image: list[UploadFile] = Field(min_length=1, description="Pictures, or ZIPs of pictures.")
