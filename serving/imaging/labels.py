"""Read label maps as class ids: `read_label` is their only reader, also for the trainer.

A file has one reading, which depends on the file and the class table alone. The rules: `exported/README.md`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.imaging.decode import Bytes, ImageError, Limits, OpenedImage, open_image, whole_numbers
from serving.imaging.domain import IGNORE, Domain

Spelling = Literal["ids", "colours", "snapped colours"]
Mask = NDArray[np.bool_]

_BAND = 2**14  # pixels that are worked on at once: their numbers fit into the processor's cache
_STRETCHED = {"L;2": 85, "L;4": 17}  # by how much Pillow multiplies the values of 2- and 4-bit grey
_WHITE_IS_ZERO = ("1;I", "1;IR", "L;I", "L;IR", "L;2I", "L;2IR", "L;4I", "L;4IR")
_CELL = 16  # levels of red, green and blue whose nearest classes are found together
_ALIKE = 4  # levels by which a palette's colour may differ from that of the class it is meant for
_NAMED = 5  # ids or colours that an error names
_NO_COLOUR = 2**24  # a code that no colour has
_SAMPLE = 2**16  # pixels among which the most frequent unknown colours are counted


@dataclass(frozen=True)
class LabelImage:
    """A label map as ids uint8[H,W], and how its file spelled them."""

    ids: Bytes
    spelling: Spelling


def read_label(source: bytes | Path, domain: Domain, limits: Limits | None = None, *, snap: bool = False) -> LabelImage:
    """Return the ids of a label map, upright; pixels with alpha 0 are void.

    With `snap`, colours that belong to no class become the class with the nearest colour. Raises ImageError that names
    and counts what belongs to no class, or both readings of an indexed image that has two; BrokenImage where the file
    cannot be decoded.
    """
    image = open_image(source, limits)
    picture, lossy = image.picture, image.format in ("JPEG", "MPO", "AVIF")
    if lossy and not snap:
        message = f"{image.format} files cannot hold the classes of a label map exactly."
        hint = "Save the label map as PNG; with snap, predict and the server take the nearest class of each colour."
        raise ImageError(400, "lossy_label_map", message, hint=hint)
    erased = _erased(image)
    if picture.mode in ("P", "PA"):
        label = _from_palette(picture, domain, erased=erased, snap=snap)
    elif (picture.mode in ("1", "L", "LA") and not lossy) or picture.mode.startswith("I"):
        label = LabelImage(checked_ids(_stored(image), domain, erased=erased), "ids")
    else:
        rgb = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
        label = _from_colours(rgb, domain, erased=erased, snap=snap, lossy=lossy)
    if erased is not None:
        label.ids[erased] = domain.void
    return label


def checked_ids(values: NDArray[np.integer[Any]], domain: Domain, *, erased: Mask | None = None) -> Bytes:
    """Return values 0..65535 as ids. Raises ImageError with those of no class; erased pixels may hold any value."""
    counts = _counts(values, erased)
    unknown = [int(value) for value in np.flatnonzero(counts) if int(value) not in domain.known_ids]
    if unknown:
        named = [f"{value} ({counts[value]} pixels, {_first(values == value)})" for value in unknown[:_NAMED]]
        message = f"the label map holds ids that belong to no class: {_listed(named, len(unknown))}. {_known(domain)}"
        hint = "The class table lists the classes with their ids."
        if unknown == [IGNORE]:
            hint = (
                "If 255 is a class (a mask of 0 and 255), write that class's id. If it means not labelled, give the "
                "class table an ignored class, for example 255,void,224,224,192,1."
            )
        raise ImageError(400, "unknown_class_id", message, hint=hint)
    return values.astype(np.uint8)


def nearest_ids(rgb: Bytes, domain: Domain, *, max_distance: float | None = None) -> Bytes:
    """Return for each pixel of uint8[H,W,3] the id of the class whose colour is nearest (Euclidean distance in RGB).

    A colour farther than `max_distance` from all classes is void.
    """
    table = _nearest_table(rgb, domain, max_distance=max_distance)
    ids = np.empty(rgb.shape[:2], np.uint8)
    for band in bands(rgb):
        ids[band] = table.take(_codes(rgb[band]))
    return ids


def bands(pixels: NDArray[Any]) -> Iterator[slice]:
    """Return the rows of [H,W] or [H,W,3] in slices of few pixels, at least a row."""
    rows = max(1, _BAND // max(1, pixels.shape[1]))
    return (slice(first, first + rows) for first in range(0, pixels.shape[0], rows))


def _erased(image: OpenedImage) -> Mask | None:
    """Return bool[H,W] of the pixels with alpha 0, or None where there are none."""
    picture = image.picture
    key = picture.info.get("transparency")
    if "A" in picture.getbands():
        erased = np.asarray(picture.getchannel("A")) == 0
    elif isinstance(key, bytes):  # an alpha for each of the first palette entries
        erased = (np.frombuffer(key.ljust(256, b"\xff"), np.uint8) == 0)[np.asarray(picture)]
    elif isinstance(key, tuple):
        erased = (np.asarray(picture) == np.array(key)).all(axis=2)
    elif isinstance(key, int):
        erased = np.asarray(picture) == (key > 0) if picture.mode == "1" else _stored(image) == key
    else:
        return None
    return erased if erased.any() else None


def _stored(image: OpenedImage) -> NDArray[np.integer[Any]]:
    """Return the values of a one-channel image as its file stores them, [H,W]."""
    picture, packing = image.picture, image.packing
    if packing in _WHITE_IS_ZERO:
        message = "the label map is a grey TIFF in which 0 is white, so its values cannot be told from their inverse."
        raise ImageError(400, "unusual_pixels", message, hint="Save the label map as PNG.")
    if packing == "LA;16B":
        message = "16-bit ids with alpha cannot be read."
        raise ImageError(400, "unusual_pixels", message, hint="Save the label map with 8 bits.")
    if picture.mode.startswith("I"):
        return whole_numbers(picture)
    values = np.asarray(picture.getchannel(0)).astype(np.uint8, copy=False)
    return values // np.uint8(_STRETCHED.get(packing.removesuffix("R"), 1))


def _from_palette(picture: Image.Image, domain: Domain, *, erased: Mask | None, snap: bool) -> LabelImage:
    """Read an indexed image by its colours, or by its indices; refuse it where both may be meant and differ."""
    indices = np.asarray(picture.getchannel(0))
    counts = _counts(indices, erased)
    used = np.flatnonzero(counts).tolist()
    given = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(given)] = given
    ids, is_class = _by_colour(palette[None], domain)
    by_colour, is_class = ids[0], is_class[0] & (np.arange(256) < len(given))
    ids_fit, colours_fit = domain.known_ids.issuperset(used), bool(is_class[used].all())
    off = np.abs(palette.astype(np.int16) - domain.palette[by_colour]).max(1)
    alike = is_class | ((off > 0) & (off <= _ALIKE) & (np.arange(256) < len(given)))
    both = {index: {index, int(by_colour[index])} for index in used if alike[index]}
    differing = [index for index, ids in both.items() if len(ids) > 1 and not ids <= domain.ignored_ids]
    if ids_fit and differing and (colours_fit or len(both) > 1):  # a single class colour is there by chance
        names, index = {IGNORE: "void"} | {row.id: row.name for row in domain.classes}, differing[0]
        message = (
            f"the label map is an indexed image that can be read in two ways: index {index} is {names[index]} by its "
            f"id, but {names[int(by_colour[index])]} by its palette colour {tuple(palette[index].tolist())}."
        )
        hint = "Save it as RGB where the colours are right, or as 8-bit grey where the indices are."
        raise ImageError(400, "ambiguous_label_map", message, hint=hint)
    if ids_fit:
        return LabelImage(indices.copy(), "colours" if colours_fit else "ids")
    if colours_fit or snap:
        return LabelImage(by_colour[indices], "colours" if colours_fit else "snapped colours")
    unknown = [f"{index} ({counts[index]} pixels)" for index in used if index not in domain.known_ids]
    colours = [f"{tuple(palette[index].tolist())} ({counts[index]} pixels)" for index in used if not is_class[index]]
    message = (
        "the label map is an indexed image whose indices and palette colours both belong to no class: "
        f"indices {_listed(unknown, len(unknown))}; colours {_listed(colours, len(colours))}. {_known(domain)}"
    )
    raise ImageError(400, "unknown_class_id", message, hint="Save it with the ids or the colours of the class table.")


def _from_colours(rgb: Bytes, domain: Domain, *, erased: Mask | None, snap: bool, lossy: bool) -> LabelImage:
    """Read class colours; a grey image in which they do not fit holds ids, saved with three channels."""
    ids, known = _by_colour(rgb, domain)
    known = known if erased is None else known | erased
    if known.all() and not lossy:
        return LabelImage(ids, "colours")
    if not lossy and all((rgb[band] == rgb[band][..., :1]).all() for band in bands(rgb)):
        grey = np.ascontiguousarray(rgb[..., 0])
        if not snap or domain.known_ids.issuperset(np.flatnonzero(_counts(grey, erased)).tolist()):
            return LabelImage(checked_ids(grey, domain, erased=erased), "ids")
    if snap:
        return LabelImage(ids, "snapped colours")
    unknown = rgb[~known]
    codes, frequency = np.unique(_codes(unknown[:: max(1, len(unknown) // _SAMPLE)]), return_counts=True)
    named = []
    for code in codes[np.argsort(-frequency)[:_NAMED]].tolist():
        colour = (code >> 16, code >> 8 & 255, code & 255)
        found = np.concatenate([_codes(rgb[band]) == code for band in bands(rgb)])
        squared = ((np.array([row.color for row in domain.classes]) - colour) ** 2).sum(axis=1)
        nearest = " and ".join(domain.classes[index].name for index in np.flatnonzero(squared == squared.min()))
        named.append(f"{colour} on {found.sum()} pixels, {_first(found)}, nearest to {nearest}")
    message = (
        f"the label map holds colours that belong to no class, in {len(unknown)} of {ids.size} pixels: "
        f"{'; '.join(named)}."
    )
    hint = "Save it as PNG in the class colours without smoothing, or set snap to take each colour's nearest class."
    raise ImageError(400, "unknown_colours", message, hint=hint)


def _by_colour(rgb: Bytes, domain: Domain) -> tuple[Bytes, Mask]:
    """Return the nearest class of each pixel, and where its colour is exactly that of one class."""
    classes = {(row.color, IGNORE if row.ignore else row.id) for row in domain.classes}
    sharing = Counter(color for color, _ in classes)
    codes = _codes(domain.palette)
    codes[[row.id for row in domain.classes if sharing[row.color] > 1]] = _NO_COLOUR
    table = _nearest_table(rgb, domain)
    ids, is_class = np.empty(rgb.shape[:2], np.uint8), np.empty(rgb.shape[:2], bool)
    for band in bands(rgb):
        colours = _codes(rgb[band])
        ids[band] = table.take(colours)
        is_class[band] = codes.take(ids[band]) == colours
    return ids, is_class


def _nearest_table(rgb: Bytes, domain: Domain, *, max_distance: float | None = None) -> Bytes:
    """Return uint8[2**24]: the nearest class of each colour 0xRRGGBB, in the 16-level cells that `rgb` uses."""
    used = np.zeros(2**20, bool)
    for band in bands(rgb):
        used[_codes(rgb[band] // _CELL)] = True
    table = np.empty((_CELL,) * 6, np.uint8)  # red // 16, red % 16, green // 16, ...
    for code in np.flatnonzero(used):
        cell = np.array([code >> 16, code >> 8 & 255, code & 255])
        table[cell[0], :, cell[1], :, cell[2], :] = _nearest_in_cell(cell, domain, max_distance=max_distance)
    return table.ravel()


def _nearest_in_cell(cell: NDArray[np.int64], domain: Domain, *, max_distance: float | None) -> Bytes:
    """Return uint8[16,16,16]: the nearest class of each colour in a cube of 16 levels a side.

    Only classes are compared that are nearest to some colour of the cube: those not farther from its centre than the
    nearest one by more than its diagonal.
    """
    classes = np.array([row.color for row in domain.classes], np.int32)
    corner = cell.astype(np.int32) * _CELL
    from_centre = np.sqrt(((classes - corner - (_CELL - 1) / 2) ** 2).sum(axis=1))
    near = np.flatnonzero(from_centre <= from_centre.min() + (_CELL - 1) * 3**0.5 + 1e-6)
    steps = np.arange(_CELL, dtype=np.int32)
    red, green, blue = (256 * (corner[axis] + steps - classes[near, axis, None]) ** 2 for axis in range(3))
    red += np.arange(len(near), dtype=np.int32)[:, None]  # the class below the distance, so that one minimum finds both
    nearest = (red[:, :, None, None] + green[:, None, :, None] + blue[:, None, None, :]).min(axis=0)
    ids: Bytes = np.array([domain.classes[index].id for index in near], np.uint8)[nearest & 255]
    if max_distance is not None:
        ids[nearest >> 8 > max_distance**2] = domain.void
    return ids


def _counts(values: NDArray[np.integer[Any]], erased: Mask | None) -> NDArray[np.int64]:
    """Return how often each value 0..65535 occurs outside erased pixels."""
    counts = np.zeros(65536, np.int64)
    for band in bands(values):
        kept = values[band].ravel() if erased is None else values[band][~erased[band]]
        counts += np.bincount(kept, minlength=len(counts))
    return counts


def _codes(rgb: Bytes) -> NDArray[np.uint32]:
    """Return uint8[...,3] as one number a pixel, 0xRRGGBB."""
    codes: NDArray[np.uint32] = rgb[..., 0].astype(np.uint32)
    for channel in (1, 2):
        codes <<= 8
        codes |= rgb[..., channel]
    return codes


def _first(found: Mask) -> str:
    y, x = divmod(int(found.argmax()), found.shape[1])
    return f"first at x={x} y={y}"


def _listed(named: Sequence[str], count: int) -> str:
    return ", ".join(named[:_NAMED]) + (" and others" if count > _NAMED else "")


def _known(domain: Domain) -> str:
    """Return the ids in short, for example "Its ids are 0-2, 255."."""
    ids = np.array(sorted(domain.known_ids))
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    return f"Its ids are {', '.join(f'{run[0]}-{run[-1]}' if len(run) > 1 else str(run[0]) for run in runs)}."
