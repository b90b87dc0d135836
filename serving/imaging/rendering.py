"""Show label maps: as an overlay, and as shares of the classes."""

from dataclasses import dataclass

import numpy as np

from serving.imaging.decode import Bytes
from serving.imaging.domain import ClassRow, Domain
from serving.imaging.labels import bands


@dataclass(frozen=True)
class Share:
    """How much of a label map one class covers."""

    row: ClassRow
    pixels: int
    share: float
    confidence: float | None


def overlay(photo: Bytes, above: Bytes, *, domain: Domain, opacity: float) -> Bytes:
    """Lay a picture, or the class colours of ids, over a photo of the same size; void leaves the photo as it is."""
    weight, laid = round(256 * opacity), np.empty_like(photo)
    for band in bands(photo):
        below, layer = photo[band], above[band]
        if layer.ndim == 2:
            layer = np.where(np.isin(layer, list(domain.ignored_ids))[..., None], below, domain.palette[layer])
        laid[band] = (below.astype(np.uint16) * (256 - weight) + layer.astype(np.uint16) * weight + 128) >> 8
    return laid


def shares(ids: Bytes, confidence: Bytes | None, *, domain: Domain) -> tuple[Share, ...]:
    """Return the classes that occur, largest first."""
    pixels, sums = np.zeros(256, np.int64), np.zeros(256)
    for band in bands(ids):
        pixels += np.bincount(ids[band].ravel(), minlength=256)
        if confidence is not None:
            sums += np.bincount(ids[band].ravel(), weights=confidence[band].ravel(), minlength=256)
    found = [
        Share(
            row,
            int(pixels[row.id]),
            float(pixels[row.id]) / ids.size,
            None if confidence is None else float(sums[row.id] / pixels[row.id] / 255),
        )
        for row in domain.classes
        if pixels[row.id]
    ]
    return tuple(sorted(found, key=lambda share: -share.pixels))
