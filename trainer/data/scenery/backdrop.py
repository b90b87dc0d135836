"""What a drawn street lies in: sky, skyline, ground with its markings and shadows, and the weather over all."""

from functools import lru_cache

import numpy as np

from trainer.batch import IGNORE
from trainer.data.scenery.canvas import BUILDING, FAR, ROAD, SIDEWALK, TREE, Canvas, line, mask_of, sharp, smooth, texture, wave
from trainer.data.scenery.street import Color, Street


def sky(canvas: Canvas) -> None:
    """A gradient with clouds that flatten towards the horizon, wherever nothing stands."""
    light = canvas.street.light
    top, low = (np.array(color, np.float32) for color in light.sky)
    open_sky = canvas.depth == FAR
    up, across = np.maximum(-canvas.down[open_sky], 0), canvas.across[open_sky]
    photo = low + (top - low) * np.minimum(up * 1.9, 1)[:, None]
    if light.clouds:
        far, shift = 40 / (up + 0.15), canvas.street.seed % 509
        mist = 0.65 * smooth(across * far + shift, far * 2.2) + 0.35 * smooth(across * far * 2.7, far * 6 + shift)
        fade = np.minimum(1, up * 8)
        cover = np.clip((mist + 1.1 * light.clouds - 0.62) * 1.5, 0, 0.85) * fade
        white = low + (1.08 - low) * (0.25 + 0.5 * min(1, light.exposure))
        photo += (white * (1 - 0.16 * np.clip(mist, 0, 1)[:, None]) - photo) * cover[:, None]
    canvas.photo[open_sky] = photo


def skyline(canvas: Canvas) -> None:
    """Far trees and houses along the horizon, which close the street."""
    street, rng = canvas.street, np.random.default_rng(canvas.street.seed)
    steps = np.interp(np.linspace(-4, 4, 257), np.linspace(-4, 4, 40), 0.02 + 0.07 * rng.random(40)).astype(np.float32)
    houses = np.repeat(rng.random(52) < 0.5, 5)[:257]
    blocks = np.repeat(0.03 + 0.10 * rng.random(52), 5)[:257].astype(np.float32)
    where = np.clip(((canvas.across + 4) * 32).astype(np.int32), 0, 256)
    tall = np.where(houses[where], blocks[where], steps[where])
    ragged = np.where(houses[where], 1, 1 + 0.25 * texture(canvas.across * 200, canvas.across * 37))
    inside = (-canvas.down < tall * ragged) & (canvas.down < 0.03)
    inside &= canvas.depth > 160
    across, down, block = canvas.across[inside], canvas.down[inside], houses[where[inside]]
    leaves = texture(across * 300, down * 300)
    panes = (np.abs(wave(across, 0.011)) < 0.003) & (np.abs(wave(down, 0.013)) < 0.0035)
    green, wall = (np.array(color, np.float32) for color in street.skyline)
    hue = texture(np.floor(where[inside] / 5) * 7, np.zeros_like(across) + street.seed % 256)
    houses_there = wall * (0.85 + 0.2 * hue - 0.3 * panes)[:, None]
    canvas.photo[inside] = np.where(block[:, None], houses_there, green * (0.85 + 0.35 * leaves)[:, None])
    canvas.label[inside] = np.where(block, BUILDING, TREE)
    canvas.depth[inside] = 160


def ground(canvas: Canvas) -> None:
    """Asphalt with markings, kerb, pavement of slabs, and what lies behind it; shadows of the buildings."""
    street = canvas.street
    below = canvas.down > 0.006
    below[below] = street.eye / canvas.down[below] < canvas.depth[below]
    depth = street.eye / canvas.down[below]
    side = canvas.across[below] * depth - street.offset - street.bend * depth * depth
    away, fine = np.abs(side), depth / canvas.camera.focal
    edge, back = street.half_road, street.half_road + street.pavement
    green = street.ground[1] > street.ground[0] * 1.15
    photo, label = np.empty((len(side), 3), np.float32), np.empty(len(side), np.uint8)
    for paved, name, here in (
        (_asphalt, ROAD, away < edge),
        (_slabs, SIDEWALK, (away >= edge) & (away < back)),
        (_grass, TREE if green else SIDEWALK, away >= back),
    ):
        photo[here], label[here] = paved(street, side[here], depth[here], fine[here]), name
    kerb = np.clip(1 - np.abs(away - edge - 0.08) / 0.1, 0, 1) * 0.25 - np.clip(1 - np.abs(away - edge + 0.12) / 0.14, 0, 1) * 0.22
    canvas.photo[below] = photo * ((1 + kerb) * _building_shade(street, side, depth))[:, None]
    canvas.label[below] = label
    canvas.depth[below] = depth


def shade_ground(canvas: Canvas, outlines: list[tuple[Color, list[tuple[float, float, float]]]]) -> None:
    """Each outline darkens the ground within it by its factor."""
    for factor, points in outlines:
        mask, window = mask_of(canvas, points)
        if mask is not None:
            mask &= np.abs(canvas.depth[window] * canvas.down[window] - canvas.street.eye) < 1e-3
            canvas.photo[window][mask] *= np.array(factor, np.float32)


def bonnet(canvas: Canvas) -> None:
    """The front of one's own car at the lower edge: void."""
    color = canvas.street.bonnet
    if color is None:
        return
    height, width = canvas.size
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    rise = 0.95 - 0.045 * (1 - x * x) + 0.01 * np.abs(x)
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    inside = y > rise
    glow = (1.15 - 5 * (y - rise))[inside][:, None]
    canvas.photo[inside] = np.array(color, np.float32) * (0.55 + 0.45 * glow)
    canvas.label[inside] = IGNORE
    canvas.depth[inside] = 0.5


def weather(canvas: Canvas, numbers: np.random.Generator) -> np.ndarray:
    """Wet asphalt, haze, light, lens and sensor: from painted colours to the photo uint8[H,W,3]."""
    light, (height, width) = canvas.street.light, canvas.size
    photo = canvas.photo
    if light.wet:
        horizon = int(canvas.camera.middle[1])
        road = canvas.label == ROAD
        row, column = np.nonzero(road)
        mirrored = sum(photo[np.clip(2 * horizon - row + shift, 0, height - 1), column] for shift in (-9, -4, 0, 5)) / np.float32(4)
        share = light.wet * np.clip(0.75 + smooth(canvas.across[road] * 60, canvas.down[road] * 300), 0.2, 1.2)[:, None]
        photo[road] = photo[road] * (1 - 0.35 * share) + (mirrored - photo[road]) * (0.5 * share)
    there = np.where(canvas.depth < FAR / 2, canvas.depth, 0)
    thick = light.haze * there / (60 * (1 - light.haze) + there * light.haze)
    photo += (np.array(light.sky[1], np.float32) - photo) * thick[..., None]
    left, top = (int(place) for place in numbers.integers(512, size=2))
    grain = _grain()[(np.arange(height) + top)[:, None] % 512, (np.arange(width) + left)[None] % 512]
    gain = light.exposure * (1 - 0.10 * (canvas.across * canvas.across + canvas.down * canvas.down)) * (1 + 0.014 * grain[..., 3])
    photo *= gain[..., None]
    photo *= np.array(light.tint, np.float32)
    photo += np.float32(0.006) * grain[..., :3]
    over = np.maximum(photo - np.float32(0.8), 0)
    photo += over / (1 + np.float32(2.5) * over) - over  # a soft shoulder before white
    return (np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8)


def _asphalt(street: Street, side: np.ndarray, depth: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Grain, stains, tyre tracks, mended patches, and the markings."""
    rough = _rough(side, depth, fine)
    track = np.clip(1 - np.abs(np.abs(np.abs(side) - street.half_road * 0.47) - 0.75) * 2.2, 0, 1)
    stain = smooth(side * 9 + 40, depth * 3)
    patch = texture(np.floor(side / 1.9) * 17, np.floor(depth / 6.5) * 29) > 0.62
    photo = np.array(street.asphalt, np.float32) * ((1 + 0.16 * rough + 0.13 * stain - 0.07 * track) * (1 - 0.13 * patch))[:, None]
    _markings(street, photo, side=side, depth=depth, fine=fine, wear=0.8 + 0.35 * rough)
    return photo


def _slabs(street: Street, side: np.ndarray, depth: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Paving slabs of 60 cm, each of its own tone."""
    slab = texture(np.floor(side / 0.6) * 13, np.floor(depth / 0.6) * 7)
    joint = np.maximum(line(wave(side, 0.6), 0.012, fine), line(wave(depth, 0.6), 0.012, fine * depth / street.eye))
    tone = 1 + 0.08 * slab + 0.12 * _rough(side, depth, fine) - 0.3 * joint * sharp(fine, 0.03)
    return np.array(street.slabs, np.float32) * tone[:, None]


def _grass(street: Street, side: np.ndarray, depth: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """What lies behind the pavement."""
    tone = 1 + 0.35 * texture(side * 60, depth * 60) * sharp(fine, 0.03) + 0.2 * smooth(side * 12, depth * 8)
    return np.array(street.ground, np.float32) * tone[:, None]


def _rough(side: np.ndarray, depth: np.ndarray, fine: np.ndarray) -> np.ndarray:
    return 0.6 * texture(side * 37, depth * 37) * sharp(fine, 0.02) + 0.4 * smooth(side * 35, depth * 21)


def _markings(street: Street, asphalt: np.ndarray, *, side: np.ndarray, depth: np.ndarray, fine: np.ndarray, wear: np.ndarray) -> None:
    white = np.array((0.86, 0.86, 0.82), np.float32)
    dashed = line(side, 0.07, fine) * ((depth + street.seed % 7) % street.dashes < street.dashes * 0.45)
    paint = np.array(white if street.edge_lines != "yellow" else (0.80, 0.64, 0.18), np.float32)
    covers = [(white, dashed)]
    if street.edge_lines != "none":
        covers.append((paint, line(np.abs(side) - street.half_road + 0.35, 0.05, fine)))
    if street.crossing is not None:
        across = (depth > street.crossing) & (depth < street.crossing + 3)
        covers.append((white, line(wave(side, 1.1), 0.28, fine) * across))
        covers.append((white, (np.abs(depth - street.crossing + 1.2) < 0.16) * (side * street.offset < 0)))
    for color, cover in covers:
        share = np.clip(cover * wear * 0.9, 0, 1)[:, None].astype(np.float32)
        asphalt += (color - asphalt) * share


def _building_shade(street: Street, side: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Shade of the row of houses on the side of the sun: its edge follows their roofs."""
    if street.light.sun < 0.3:
        return np.ones_like(side)
    tops = np.zeros(140, np.float32)
    for facade in street.facades:
        if facade.lateral * street.light.sun_side < 0:
            first, last = max(0, int(facade.near)), max(0, int(facade.far))
            tops[first:last] = (facade.height + facade.roof_height) * 0.85 - abs(facade.lateral)
    reach = tops[np.clip((depth + 0.3 * np.abs(side)).astype(np.int32), 0, 139)]
    shaded = np.clip((reach - side * street.light.sun_side) * 4, 0, 1)
    return 1 - 0.48 * street.light.sun * shaded


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    """Sensor noise of three colours and of brightness, Float[512,512,4]."""
    return np.random.default_rng(12).standard_normal((512, 512, 4), dtype=np.float32)
