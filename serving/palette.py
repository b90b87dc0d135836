"""Label maps: from an uploaded file to class ids, and from ids to palette PNG, overlay, shares and legend."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from serving.errors import Refusal
from serving.imaging import Bytes, Limits, as_rgb, open_upload, whole_numbers
from serving.manifest import IGNORE, ClassRow, Domain

_BAND = 2**20
_SMEAR = 40  # levels of a channel: as far as JPEG carries most pixels of a label map from their class's colour
_MOST_GREYS = 64  # different values of a grey picture; label maps that use more classes at once are rare
Spelling = Literal["ids", "colours", "snapped colours"]


@dataclass(frozen=True)
class LabelUpload:
    """An uploaded label map as ids, and how it spelled them."""

    ids: Bytes
    spelling: Spelling


@dataclass(frozen=True)
class Share:
    """How much of a label map one class covers."""

    row: ClassRow
    pixels: int
    share: float
    confidence: float | None


def read_label(upload: bytes, limits: Limits, *, domain: Domain, snap: bool) -> LabelUpload:
    """An uploaded label map as uint8[H,W] of ids; Refusal that names what belongs to no class.

    Ids are read from one-channel pictures and from grey RGB that is no class colour; colours from RGB and from
    palettes whose used entries are class colours. With `snap`, colours that belong to no class become their nearest class.
    """
    picture = open_upload(upload, limits)
    if picture.mode == "P":
        return _from_palette(picture, domain, snap=snap)
    if picture.mode in ("1", "L", "LA") or picture.mode.startswith("I"):
        return LabelUpload(_ids_of(_one_channel(picture), domain), "ids")
    return _from_colours(as_rgb(picture), domain, snap=snap)


def colours_of(ids: Bytes, domain: Domain) -> Bytes:
    """uint8[H,W] of ids as uint8[H,W,3] of class colours."""
    return _palette(domain)[ids]


def encode_label(ids: Bytes, domain: Domain) -> bytes:
    """A palette PNG whose indices are the ids and whose palette is the class colours: ids and colours in one file."""
    picture = Image.fromarray(ids)
    picture.putpalette(_palette(domain).tobytes())  # turns L into P, the indices stay
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def overlay(photo: Bytes, ids: Bytes, *, domain: Domain, opacity: float) -> Bytes:
    """Class colours laid over the photo; void leaves the photo as it is."""
    empty = [IGNORE, *(row.id for row in domain.classes if row.ignore)]
    laid = np.empty_like(photo)
    for band in _bands(ids):
        mixed = _mixed(photo[band], colours_of(ids[band], domain), opacity=opacity)
        laid[band] = np.where(np.isin(ids[band], empty)[..., None], photo[band], mixed)
    return laid


def blended(below: Bytes, above: Bytes, *, opacity: float) -> Bytes:
    """One picture laid over another of its size."""
    laid = np.empty_like(below)
    for band in _bands(below):
        laid[band] = _mixed(below[band], above[band], opacity=opacity)
    return laid


def _mixed(below: Bytes, above: Bytes, *, opacity: float) -> Bytes:
    weight = round(256 * opacity)
    mixed: Bytes = ((below.astype(np.uint16) * (256 - weight) + above.astype(np.uint16) * weight + 128) >> 8).astype(np.uint8)
    return mixed


def _bands(picture: Bytes) -> Iterator[slice]:
    """Rows of about a megapixel: what is worked out in wider numbers takes many times the memory of 100 megapixels."""
    rows = max(1, _BAND // picture.shape[1])
    return (slice(first, first + rows) for first in range(0, picture.shape[0], rows))


def shares(ids: Bytes, confidence: Bytes | None, *, domain: Domain) -> tuple[Share, ...]:
    """The classes that occur, largest first."""
    pixels = sum((np.bincount(ids[band].ravel(), minlength=256) for band in _bands(ids)), np.zeros(256, np.int64))
    sums = None
    if confidence is not None:
        weighed = (np.bincount(ids[band].ravel(), weights=confidence[band].ravel(), minlength=256) for band in _bands(ids))
        sums = sum(weighed, np.zeros(256))
    found = [
        Share(
            row, int(pixels[row.id]), float(pixels[row.id]) / ids.size, None if sums is None else float(sums[row.id] / pixels[row.id] / 255)
        )
        for row in domain.classes
        if pixels[row.id]
    ]
    return tuple(sorted(found, key=lambda share: -share.pixels))


def legend(domain: Domain) -> bytes:
    """A PNG that shows each class beside its colour."""
    row_height, columns = 30, 2
    rows = -(-len(domain.classes) // columns)
    picture = Image.new("RGB", (columns * 220, rows * row_height + 12), "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=15)
    for index, row in enumerate(domain.classes):
        left, top = 10 + 220 * (index // rows), 6 + row_height * (index % rows)
        pen.rounded_rectangle((left, top + 4, left + 34, top + row_height - 4), radius=4, fill=row.color, outline="#888888")
        pen.text(
            (left + 44, top + row_height / 2),
            f"{row.id}  {row.name}" + (" (ignored)" if row.ignore else ""),
            fill="#222222",
            font=font,
            anchor="lm",
        )
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _palette(domain: Domain) -> Bytes:
    """uint8[256,3]: each class's colour at its id; ids without a class look like void."""
    void = next((row.color for row in domain.classes if row.ignore), (0, 0, 0))
    table = np.tile(np.array(void, np.uint8), (256, 1))
    for row in domain.classes:
        table[row.id] = row.color
    return table


def _one_channel(picture: Image.Image) -> NDArray[np.int32]:
    if picture.mode == "1":
        return np.asarray(picture).astype(np.int32)
    if picture.mode in ("L", "LA"):
        return np.asarray(picture.getchannel("L")).astype(np.int32)
    return whole_numbers(picture)


def _ids_of(values: NDArray[np.int32], domain: Domain) -> Bytes:
    """The values of a file as ids; one with far more of them than any label map is said to be a photo."""
    try:
        return checked_ids(values, domain)
    except Refusal:
        if len(np.unique(_sampled(values))) > _MOST_GREYS and _restless(values):
            raise _a_photo() from None
        raise


def checked_ids(values: NDArray[np.integer[Any]], domain: Domain) -> Bytes:
    """The values as ids; Refusal names those that belong to no class, and where they are."""
    counts = np.bincount(values.ravel())
    known = {row.id for row in domain.classes} | {IGNORE}
    strangers = [int(value) for value in np.flatnonzero(counts) if int(value) not in known]
    if strangers:
        named = ", ".join(f"{value} ({counts[value]} pixels, {_first(values == value)})" for value in strangers[:5])
        named += " and others" if len(strangers) > 5 else ""
        raise Refusal(
            400,
            "unknown_class_id",
            f"the label map holds ids that belong to no class of this model: {named}. Its ids are {_spans(sorted(known))}.",
            hint="GET /v1/models lists them with their names.",
        )
    return values.astype(np.uint8)


def _from_palette(picture: Image.Image, domain: Domain, *, snap: bool) -> LabelUpload:
    indices = np.asarray(picture)
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    palette = np.zeros((256, 3), np.uint8)
    stored = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    palette[: len(stored)] = stored
    classes = {row.color for row in domain.classes}
    if all((int(r), int(g), int(b)) in classes for r, g, b in palette[used]):
        return _from_colours(palette[indices], domain, snap=snap)
    return LabelUpload(checked_ids(indices.astype(np.int32), domain), "ids")


def _from_colours(rgb: Bytes, domain: Domain, *, snap: bool) -> LabelUpload:
    codes = _codes(rgb)
    table = np.full(1 << 24, -1, np.int16)
    table[_codes(np.array([row.color for row in domain.classes], np.uint8))] = [row.id for row in domain.classes]
    ids = table[codes]
    stray = ids < 0
    if not stray.any():
        return LabelUpload(ids.astype(np.uint8), "colours")
    if not snap and (rgb[..., :1] == rgb).all():  # ids that were saved as grey RGB
        return LabelUpload(_ids_of(rgb[..., 0].astype(np.int32), domain), "ids")
    if not snap and _like_a_photo(codes, domain):
        raise _a_photo()
    colours, inverse, counts = np.unique(codes[stray], return_inverse=True, return_counts=True)
    if not snap:
        raise _stray_colours(codes, colours, counts, domain=domain)
    ids[stray] = np.array([row.id for row in domain.classes], np.int16)[_nearest(colours, domain)][inverse]
    return LabelUpload(ids.astype(np.uint8), "snapped colours")


def _stray_colours(codes: NDArray[np.uint32], colours: NDArray[np.uint32], counts: NDArray[np.int64], *, domain: Domain) -> Refusal:
    frequent = np.argsort(-counts)[:5]
    nearest = _nearest(colours[frequent], domain)
    named = ", ".join(
        f"({colours[i] >> 16}, {colours[i] >> 8 & 255}, {colours[i] & 255}) on {counts[i]} pixels, "
        f"{_first(codes == colours[i])}, nearest to {domain.classes[closest].name}"
        for i, closest in zip(frequent, nearest, strict=True)
    )
    more = f" and {len(colours) - len(frequent)} more" if len(colours) > len(frequent) else ""
    return Refusal(
        400,
        "unknown_colours",
        f"the label map holds colours that belong to no class of this model: {named}{more}.",
        hint="Send a PNG in the class colours of GET /v1/models (JPEG smears them), or snap=true to take the nearest class.",
    )


def _like_a_photo(codes: NDArray[np.uint32], domain: Domain) -> bool:
    """Whether no 256 colours make up three fifths of the picture, and a quarter of it is far from every class colour.

    A label map that was shrunk, or saved as JPEG, has many colours too, but most are near its classes' (at 48x32 and quality 60, where
    it is worst, 14 % were not; of street photos 34 % to 67 %); one in the colours of other classes has few that are common.
    """
    colours, counts = np.unique(_sampled(codes), return_counts=True)
    if np.sort(counts)[-256:].sum() > 0.6 * counts.sum():
        return False
    classes = np.array([row.color for row in domain.classes], np.uint8)
    away = _channels(colours) - _channels(_codes(classes))[_nearest(colours, domain)]
    return bool(counts[np.abs(away).max(axis=1) > _SMEAR].sum() > counts.sum() / 4)


def _restless(values: NDArray[np.int32]) -> bool:
    """Whether most pixels differ from their neighbour to the right, as in photos."""
    rows = values[:: max(1, len(values) // 256)]
    return bool(rows.shape[1] > 1 and (rows[:, 1:] != rows[:, :-1]).mean() > 0.5)


def _sampled(values: NDArray[Any]) -> NDArray[Any]:
    """Some 65,536 of the values, from all over the picture."""
    return values.ravel()[:: max(1, values.size // 2**16)]


def _a_photo() -> Refusal:
    return Refusal(
        400,
        "not_a_label_map",
        "this looks like a photo, not like a label map: it has far more colours than there are classes.",
        hint="Send it to /segment, or send a label map as a PNG of ids or of the class colours of GET /v1/models.",
    )


def _first(found: NDArray[np.bool_]) -> str:
    """Where to look for it."""
    y, x = divmod(int(found.argmax()), found.shape[1])
    return f"first at x={x} y={y}"


def _codes(rgb: Bytes) -> NDArray[np.uint32]:
    wide = rgb.astype(np.uint32)
    codes: NDArray[np.uint32] = np.bitwise_or(np.bitwise_or(wide[..., 0] << 16, wide[..., 1] << 8), wide[..., 2])
    return codes


def _channels(codes: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Colours as Int[N,3] of red, green and blue."""
    wide = codes.astype(np.int32)
    return np.stack([wide >> 16, wide >> 8 & 255, wide & 255], axis=1)


def _nearest(codes: NDArray[np.uint32], domain: Domain) -> NDArray[np.int64]:
    """For each colour the index of the class whose colour is nearest in RGB."""
    classes = np.array([row.color for row in domain.classes], np.int32)
    nearest = np.empty(len(codes), np.int64)
    for start in range(0, len(codes), 1 << 16):
        rgb = _channels(codes[start : start + (1 << 16)])
        nearest[start : start + len(rgb)] = ((rgb[:, None] - classes) ** 2).sum(axis=2).argmin(axis=1)
    return nearest


def _spans(values: list[int]) -> str:
    """[0, 1, 2, 255] as "0-2, 255"."""
    parts: list[str] = []
    for value in values:
        if parts and int(parts[-1].rsplit("-", 1)[-1]) == value - 1:
            parts[-1] = f"{parts[-1].split('-')[0]}-{value}"
        else:
            parts.append(str(value))
    return ", ".join(parts)
