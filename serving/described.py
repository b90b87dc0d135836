"""What the API says of its models and its answers: the JSON and its schemas."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from serving.manifest import ClassRow, Domain
from serving.shelf import Shelf
from serving.translator import ExportedModel


class ErrorBody(BaseModel):
    """One error."""

    code: str = Field(description="For programs; does not change with the wording.")
    message: str = Field(description="For people: what is wrong, with the value.")
    hint: str = Field(description="For people: what to do about it. May be empty.")


class Error(BaseModel):
    """The one shape of every 4xx and 5xx."""

    error: ErrorBody


class ClassEntry(BaseModel):
    """One class of a label map."""

    id: int
    name: str
    color: list[int] = Field(min_length=3, max_length=3, description="Red, green, blue; 0 to 255.")
    ignore: bool = Field(description="Void: pixels that count neither in training nor in figures.")


class ModelEntry(BaseModel):
    """One model that answers."""

    name: str
    description: str
    directions: list[str] = Field(description="Of `to_label` and `to_photo`.", examples=[["to_label", "to_photo"]])
    default_for: list[str] = Field(description="The directions in which it answers when no model is named.")
    provider: str = Field(description="Where it really runs, as its onnxruntime session says.", examples=["CPUExecutionProvider"])
    label_kind: str = Field(description="`classes`, or `picture` for models between two kinds of pictures.")
    classes: list[ClassEntry]
    size: list[int] | None = Field(description="[height, width] it runs at; null where it runs at the upload's size.")
    multiple_of: int = Field(description="Sides are padded to multiples of this.")
    confidence: bool = Field(description="Whether `output=confidence` is there.")
    seeded: bool = Field(description="Whether different seeds give different photos.")
    metrics: dict[str, Any] = Field(description="Split name to figures.")


class BrokenEntry(BaseModel):
    """A folder of the models folder that cannot be served."""

    name: str
    reason: str


class ModelList(BaseModel):
    """The models folder."""

    models: list[ModelEntry]
    broken: list[BrokenEntry]
    defaults: dict[str, str] = Field(description="Direction to the model that answers when none is named.")


class ModelCard(ModelEntry):
    """One model with its card."""

    training: dict[str, Any] = Field(description="Method, dataset with its terms, pairs, steps, size, seed, versions.")
    parity: dict[str, Any] = Field(description="The exported graph against the trained network, measured at export.")
    tiling: str
    resize: dict[str, Any]


class ShareEntry(ClassEntry):
    """How much of a photo one class covers."""

    pixels: int
    share: float
    mean_confidence: float | None


class RegionEntry(BaseModel):
    """Pixels of one class that touch along an edge."""

    id: int = Field(description="The class's.")
    name: str
    area: int
    box: list[int] = Field(min_length=4, max_length=4, description="x, y, width, height.")


class SegmentReport(BaseModel):
    """The answer to `output=json`."""

    model: str
    width: int
    height: int
    mean_confidence: float | None
    classes: list[ShareEntry]
    regions_found: int | None = Field(description="Of at least `min_area` pixels. Null where the map is too fragmented to list them.")
    regions: list[RegionEntry] | None = Field(description="The largest of them, at most 1000. Void has none.")


class CocoImage(BaseModel):
    """The photo that was segmented."""

    id: int
    file_name: str
    width: int
    height: int


class CocoCategory(BaseModel):
    """A class that is not void."""

    id: int = Field(description="The dataset's own id, which may be 0.")
    name: str
    supercategory: str
    color: list[int] = Field(min_length=3, max_length=3)


class CocoAnnotation(BaseModel):
    """A connected region."""

    id: int
    image_id: int
    category_id: int
    segmentation: list[list[int]] = Field(
        description="One closed polygon x1, y1, x2, y2, ... along the pixels' edges; a hole hangs on it by a cut of no width."
    )
    area: int = Field(description="Pixels, without the holes.")
    bbox: list[int] = Field(min_length=4, max_length=4, description="x, y, width, height.")
    iscrowd: int


class CocoDocument(BaseModel):
    """The answer to `output=polygons`, in the form of COCO's object detection."""

    info: dict[str, str]
    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation]


class AnswerEntry(BaseModel):
    """One of several answers, or why there is none."""

    name: str = Field(description="What the sender called the picture.")
    model: str | None = None
    tiling: str | None = Field(default=None, description="`none`, or the number of tiles, across x down.")
    seed: int | None = None
    spelling: str | None = Field(default=None, description="How a label map was read.")
    file: str | None = Field(default=None, description="A name for the answer.")
    media_type: str | None = None
    data: str | None = Field(default=None, description="The file in base64.")
    result: SegmentReport | CocoDocument | None = Field(
        default=None, description="In place of a file, for `output=json` and `output=polygons`."
    )
    error: ErrorBody | None = None


class AnswerList(BaseModel):
    """The answers to several pictures, in their order."""

    answers: list[AnswerEntry]


def model_list(shelf: Shelf) -> dict[str, Any]:
    """The answer of `GET /v1/models`."""
    return {
        "models": [_entry(model, shelf) for model in shelf.models.values()],
        "broken": [{"name": name, "reason": reason} for name, reason in shelf.broken.items()],
        "defaults": dict(shelf.defaults),
    }


def model_card(model: ExportedModel, shelf: Shelf) -> dict[str, Any]:
    """The answer of `GET /v1/models/{name}`."""
    manifest = model.manifest
    rule = manifest.resize
    return {
        **_entry(model, shelf),
        "training": manifest.training,
        "parity": manifest.parity,
        "tiling": manifest.tiling,
        "resize": {"rule": rule.rule, "height": rule.height, "width": rule.width, "filter": rule.filter},
    }


def _entry(model: ExportedModel, shelf: Shelf) -> dict[str, Any]:
    manifest = model.manifest
    sized = manifest.resize.rule != "none"
    to_photo = manifest.directions.get("to_photo")
    return {
        "name": manifest.name,
        "description": manifest.description,
        "directions": list(manifest.directions),
        "default_for": [direction for direction, name in shelf.defaults.items() if name == manifest.name],
        "provider": model.provider,
        "label_kind": manifest.label.kind,
        "classes": _classes(manifest.label),
        "size": [manifest.resize.height, manifest.resize.width] if sized else None,
        "multiple_of": manifest.multiple_of,
        "confidence": model.has_confidence,
        "seeded": to_photo is not None and to_photo.noise is not None,
        "metrics": manifest.metrics,
    }


def _classes(domain: Domain) -> list[dict[str, Any]]:
    return [_class(row) for row in domain.classes]


def _class(row: ClassRow) -> dict[str, Any]:
    return {"id": row.id, "name": row.name, "color": list(row.color), "ignore": row.ignore}
