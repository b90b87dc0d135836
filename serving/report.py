"""A label map in figures and outlines: what `output=json` and `output=polygons` say."""

from __future__ import annotations

from typing import Any

from serving.errors import Refusal
from serving.imaging import Bytes
from serving.manifest import Domain
from serving.palette import shares
from serving.regions import MOST_EDGES, Region, regions

MOST_BOXES = 1000


def describe(model: str, ids: Bytes, confidence: Bytes | None, *, domain: Domain, min_area: int) -> dict[str, Any]:
    """The classes that occur with their shares, how sure the model is, and the boxes of the largest regions."""
    found = regions(ids, domain, min_area=min_area)
    return {
        "model": model,
        "width": ids.shape[1],
        "height": ids.shape[0],
        "mean_confidence": None if confidence is None else round(float(confidence.mean()) / 255, 4),
        "classes": [
            {
                "id": part.row.id,
                "name": part.row.name,
                "color": list(part.row.color),
                "ignore": part.row.ignore,
                "pixels": part.pixels,
                "share": round(part.share, 6),
                "mean_confidence": None if part.confidence is None else round(part.confidence, 4),
            }
            for part in shares(ids, confidence, domain=domain)
        ],
        "regions_found": None if found is None else len(found),
        "regions": None if found is None else [_boxed(region) for region in found[:MOST_BOXES]],
    }


def polygons(model: str, ids: Bytes, *, name: str, domain: Domain, min_area: int) -> dict[str, Any]:
    """The regions as a COCO-style document of one image, which is called `name`."""
    found = regions(ids, domain, min_area=min_area)
    if found is None:
        raise Refusal(
            400,
            "too_fragmented",
            f"the label map is too fragmented to be outlined: its regions have over {MOST_EDGES:,} edges between pixels.",
            hint="Ask for output=ids, or send a smaller photo.",
        )
    return {
        "info": {"description": f"Regions found by the model {model}."},
        "images": [{"id": 1, "file_name": name, "width": ids.shape[1], "height": ids.shape[0]}],
        "categories": [
            {"id": row.id, "name": row.name, "supercategory": "", "color": list(row.color)} for row in domain.classes if not row.ignore
        ],
        "annotations": [_annotated(region, id=number + 1) for number, region in enumerate(found)],
    }


def _boxed(region: Region) -> dict[str, Any]:
    return {"id": region.row.id, "name": region.row.name, "area": region.area, "box": list(region.box)}


def _annotated(region: Region, *, id: int) -> dict[str, Any]:
    return {
        "id": id,
        "image_id": 1,
        "category_id": region.row.id,
        "segmentation": [region.outline.ravel().tolist()],
        "area": region.area,
        "bbox": list(region.box),
        "iscrowd": 0,
    }
