"""The camera and the large surfaces of a drawn street: sky, skyline, ground, walls, fences, weather.

Pixels are made with + - * / alone, whose results every processor rounds alike.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from trainer.batch import IGNORE
from trainer.data.street import Color, Facade, Fence, Street

SKY, BUILDING, POLE, ROAD, SIDEWALK, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
FAR = 1e6
"""The depth where there is only sky."""


class Camera:
    """A pinhole at the height of the eye, looking along the road; rays are (across, down) at depth 1."""

    def __init__(self, street: Street, height: int, width: int) -> None:
        self.focal = street.zoom * height
        self.middle = (width / 2 + street.vanishing * height, street.horizon * height)
        self.turn = (math.cos(street.roll), math.sin(street.roll))
        self.eye = street.eye

    def rays(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Float[H,W] across and down, for the pixel centres."""
        right = ((np.arange(width, dtype=np.float32) + 0.5 - self.middle[0]) / self.focal)[None, :]
        down = ((np.arange(height, dtype=np.float32) + 0.5 - self.middle[1]) / self.focal)[:, None]
        cosine, sine = np.float32(self.turn[0]), np.float32(self.turn[1])
        return cosine * right + sine * down, cosine * down - sine * right

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """The point x metres right, y above the ground and z ahead, in pixels."""
        across, down = x / z, (self.eye - y) / z
        cosine, sine = self.turn
        return (
            self.middle[0] + self.focal * (cosine * across - sine * down),
            self.middle[1] + self.focal * (sine * across + cosine * down),
        )


@dataclass
class Canvas:
    """The picture being painted: photo Float[H,W,3], label uint8[H,W] and depth Float[H,W] of each pixel."""

    street: Street
    camera: Camera
    photo: np.ndarray
    label: np.ndarray
    depth: np.ndarray
    across: np.ndarray
    down: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        height, width = self.label.shape
        return height, width


def blank(street: Street, height: int, width: int) -> Canvas:
    """A canvas with nothing on it."""
    camera = Camera(street, height, width)
    across, down = camera.rays(height, width)
    photo = np.zeros((height, width, 3), np.float32)
    return Canvas(street, camera, photo, np.full((height, width), SKY, np.uint8), np.full((height, width), FAR, np.float32), across, down)


def sky(canvas: Canvas) -> None:
    """A gradient with clouds that flatten towards the horizon."""
    top, low = (np.array(color, np.float32) for color in canvas.street.light.sky)
    up = np.maximum(-canvas.down, 0)
    share = np.minimum(up * 1.9, 1)[..., None]
    canvas.photo[:] = low + (top - low) * share
    if canvas.street.light.clouds > 0.02:
        over = up > 0.004
        far = 1 / (up[over] + 0.12)
        shift = canvas.street.seed % 251
        mist = 0.7 * texture(canvas.across[over] * far * 9 + shift, far * 14) + 0.3 * texture(
            canvas.across[over] * far * 31, far * 47 + shift
        )
        cover = np.clip((mist + 1.4 * canvas.street.light.clouds - 0.75) * 1.6, 0, 0.85)[:, None]
        white = (low + 1.1) / 2
        canvas.photo[over] += (white * (1 - 0.25 * np.clip(mist, 0, 1)[:, None]) - canvas.photo[over]) * cover


def skyline(canvas: Canvas) -> None:
    """Far trees and houses along the horizon, which close the street."""
    street, rng = canvas.street, np.random.default_rng(canvas.street.seed)
    steps = np.interp(np.linspace(-4, 4, 257), np.linspace(-4, 4, 40), 0.02 + 0.07 * rng.random(40)).astype(np.float32)
    houses = np.repeat(rng.random(52) < 0.5, 5)[:257]
    blocks = np.repeat(0.03 + 0.10 * rng.random(52), 5)[:257].astype(np.float32)
    where = np.clip(((canvas.across + 4) * 32).astype(np.int32), 0, 256)
    leaves = texture(canvas.across * 300, canvas.down * 300)
    tall = np.where(houses[where], blocks[where], steps[where] * (1 + 0.25 * leaves))
    inside = (-canvas.down < tall) & (canvas.down < 0.02)
    green, wall = (np.array(color, np.float32) for color in street.skyline)
    trees = inside & ~houses[where]
    block = inside & houses[where]
    canvas.photo[trees] = green * (0.85 + 0.35 * leaves[trees])[:, None]
    canvas.photo[block] = wall * (0.75 + 0.2 * np.sign(texture(canvas.across[block] * 500, canvas.down[block] * 700)))[:, None]
    canvas.label[trees], canvas.label[block] = TREE, BUILDING
    canvas.depth[inside] = 160


def ground(canvas: Canvas) -> None:
    """Asphalt with markings, kerb, pavement of slabs, and what lies behind it; shadows of the buildings."""
    street = canvas.street
    below = canvas.down > 0.006
    depth = street.eye / canvas.down[below]
    side = canvas.across[below] * depth - street.offset - street.bend * depth * depth
    away, fine = np.abs(side), depth / canvas.camera.focal
    rough = 0.6 * texture(side * 37, depth * 37) * _near(fine, 0.02) + 0.4 * texture(side * 5, depth * 3)
    light = np.ones_like(side)

    track = np.clip(1 - np.abs(np.abs(away - street.half_road * 0.47) - 0.75) * 2.2, 0, 1)
    stain = texture(side * 1.3 + 40, depth * 0.35)
    asphalt = np.array(street.asphalt, np.float32) * (1 + 0.16 * rough + 0.10 * stain - 0.07 * track)[:, None]
    patch = texture(np.floor(side / 1.9) * 17, np.floor(depth / 6.5) * 29) > 0.62
    asphalt *= np.where(patch, 0.84, 1).astype(np.float32)[:, None]
    _markings(street, asphalt, side=side, depth=depth, fine=fine, wear=0.8 + 0.35 * rough)

    slab = texture(np.floor(side / 0.6) * 13, np.floor(depth / 0.6) * 7)
    joint = np.maximum(_line(_wave(side, 0.6), 0.012, fine), _line(_wave(depth, 0.6), 0.012, fine * depth / street.eye))
    joint *= _near(fine, 0.03)
    paving = np.array(street.slabs, np.float32) * (1 + 0.08 * slab + 0.12 * rough - 0.3 * joint)[:, None]
    grass = np.array(street.ground, np.float32) * (1 + 0.35 * texture(side * 60, depth * 60) * _near(fine, 0.03) + 0.2 * stain)[:, None]

    edge, back = street.half_road, street.half_road + street.pavement
    on_road, on_paving = away < edge, (away >= edge) & (away < back)
    kerb = np.clip(1 - np.abs(away - edge - 0.08) / 0.1, 0, 1) * 0.25 - np.clip(1 - np.abs(away - edge + 0.12) / 0.14, 0, 1) * 0.22
    photo = np.where(on_road[:, None], asphalt, np.where(on_paving[:, None], paving, grass)) * (1 + kerb)[:, None]
    green = street.ground[1] > street.ground[0] * 1.15
    light *= _building_shade(street, side, depth)
    canvas.photo[below] = photo * light[:, None]
    canvas.label[below] = np.where(on_road, ROAD, np.where(on_paving | (not green), SIDEWALK, TREE))
    canvas.depth[below] = depth


def _markings(street: Street, asphalt: np.ndarray, *, side: np.ndarray, depth: np.ndarray, fine: np.ndarray, wear: np.ndarray) -> None:
    white = np.array((0.86, 0.86, 0.82), np.float32)
    dashed = _line(side, 0.07, fine) * ((depth + street.seed % 7) % street.dashes < street.dashes * 0.45)
    paint = np.array(white if street.edge_lines != "yellow" else (0.80, 0.64, 0.18), np.float32)
    covers = [(white, dashed)]
    if street.edge_lines != "none":
        covers.append((paint, _line(np.abs(side) - street.half_road + 0.35, 0.05, fine)))
    if street.crossing is not None:
        across = (depth > street.crossing) & (depth < street.crossing + 3)
        covers.append((white, _line(_wave(side, 1.1), 0.28, fine) * across))
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


def facade(canvas: Canvas, building: Facade) -> None:
    """The front along the road, the gable end that faces the camera, and the roof; nearer things are kept."""
    street = canvas.street
    near, far = max(building.near, 0.4), min(building.far, 129.0)
    if far - near < 0.5:
        return
    left, right = street.centre(near) + building.lateral, street.centre(far) + building.lateral
    outwards = math.copysign(1.0, building.lateral)
    sunny = 1 - 0.42 * street.light.sun * float(outwards * street.light.sun_side < 0)
    if building.roof_height:
        _roof(canvas, building, near=near, far=far, left=left, right=right, outwards=outwards)
    _wall(canvas, building, start=(left, near), end=(right, far), origin=building.near, light=sunny)
    if building.near > 0.6:
        end = (left + outwards * 9, near)
        _wall(canvas, building, start=(left, near), end=end, origin=0.0, light=0.80 - 0.1 * street.light.sun, plain=True)


def _roof(canvas: Canvas, building: Facade, *, near: float, far: float, left: float, right: float, outwards: float) -> None:
    top, ridge, inward = building.height, building.height + building.roof_height, outwards * 3.2
    corners = [(left, top, near), (left + inward, ridge, near), (right + inward, ridge, far), (right, top, far)]
    gable = [(left, top, near), (left + inward, ridge, near), (left + 2 * inward, top, near)]
    for points, light in ((corners, 1.0), (gable, 0.0)):
        mask, window = _mask(canvas, points)
        if mask is None:
            continue
        free = mask & (canvas.depth[window] > near)
        grain = texture(canvas.across[window][free] * 260, canvas.down[window][free] * 420)
        color = building.roof if light else tuple(part * 0.82 for part in building.wall)
        canvas.photo[window][free] = np.array(color, np.float32) * (1 + 0.16 * grain)[:, None]
        canvas.label[window][free] = BUILDING
        canvas.depth[window][free] = near


def _wall(
    canvas: Canvas,
    building: Facade,
    *,
    start: tuple[float, float],
    end: tuple[float, float],
    origin: float,
    light: float,
    plain: bool = False,
) -> None:
    (x0, z0), (x1, z1) = start, end
    points = [(x0, -0.1, z0), (x0, building.height, z0), (x1, building.height, z1), (x1, -0.1, z1)]
    mask, window = _mask(canvas, points)
    if mask is None:
        return
    across, down = canvas.across[window][mask], canvas.down[window][mask]
    length = math.hypot(x1 - x0, z1 - z0)
    tx, tz = (x1 - x0) / length, (z1 - z0) / length
    crossing = tx - tz * across
    along = (z0 * across - x0) / np.where(np.abs(crossing) < 1e-4, 1e-4, crossing)
    depth = z0 + along * tz
    keep = (depth < canvas.depth[window][mask]) & (depth > 0.2)
    if not keep.any():
        return
    mask[mask] = keep
    along, depth, down = along[keep], depth[keep], down[keep]
    up = canvas.street.eye - down * depth
    fine = depth / canvas.camera.focal
    skew = fine * np.maximum(1, np.abs(across[keep] - tx / tz) if abs(tz) > 0.05 else 1)
    photo, sign = _front(canvas.street, building, along=along + (z0 - origin if origin else 0), up=up, fine=fine, skew=skew, plain=plain)
    corner = 1 - 0.25 * np.clip(1 - up / 1.2, 0, 1)
    canvas.photo[window][mask] = photo * (light * corner)[:, None]
    canvas.label[window][mask] = np.where(sign, SIGN, BUILDING)
    canvas.depth[window][mask] = depth


def _front(
    street: Street, building: Facade, *, along: np.ndarray, up: np.ndarray, fine: np.ndarray, skew: np.ndarray, plain: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The colours of a front at (along, up) in metres, and where the shop sign hangs."""
    seed = building.seed % 997
    grain = 0.5 * texture(along * 3 + seed, up * 3) + 0.5 * texture(along * 23, up * 23 + seed) * _near(fine, 0.05)
    streak = texture(along * 9 + seed, up * 0.7)
    tone = 1 + 0.10 * grain + 0.07 * streak
    if building.brick:
        row = np.floor(up / 0.16)
        brick = texture(np.floor(along / 0.34 + 0.5 * (row % 2)) * 11 + seed, row * 19)
        mortar = _line(_wave(up, 0.16), 0.012, fine) * _near(fine, 0.02)
        tone = tone + building.brick * (0.13 * brick * _near(fine, 0.06) - 0.12 * mortar)
    photo = np.array(building.wall, np.float32) * tone.astype(np.float32)[:, None]
    trim = np.array(building.trim, np.float32)
    floor = np.floor(up / building.floor)
    band = _line(_wave(up, building.floor), 0.06, fine) * (floor > 0) + _line(up - building.height + 0.15, 0.18, fine)
    photo += (trim - photo) * (0.55 * np.clip(band, 0, 1))[:, None]

    bay, share = building.bay, building.window
    column = np.floor(along / bay)
    sideways = _wave(along, bay)
    upwards = up - (floor + 0.55) * building.floor
    half: float | np.ndarray = bay * share[0] / 2
    tall: float | np.ndarray = building.floor * share[1] / 2
    open_shop = building.shop is not None and not plain
    if open_shop:
        street_level = floor < 1
        half, tall = np.where(street_level, bay * 0.44, half), np.where(street_level, building.floor * 0.30, tall)
        upwards = np.where(street_level, up - 0.42 * building.floor, upwards)
    present = (up < building.height - 0.4) & (up > 0)
    if plain:
        present = present & (column % 3 == 1) & (floor > 0)
    frame = _line(sideways, half + 0.08, skew) * _line(upwards, tall + 0.10, fine) * present
    glass = _line(sideways, half, skew) * _line(upwards, tall, fine) * present
    bars = np.maximum(_line(sideways, 0.03, skew), _line(upwards - tall * 0.2, 0.03, fine)) * _near(fine, 0.04)
    pane = texture(column * 31 + seed, floor * 47)
    sky = np.array(street.light.sky[1], np.float32)
    shine = (0.16 + 0.22 * (pane > 0.1) + 0.10 * np.clip(upwards, -1, 1))[:, None]
    color = np.array((0.10, 0.12, 0.15), np.float32) + sky * shine
    lit = (texture(column * 71 + 3, floor * 53 + seed) * 0.5 + 0.5 < street.light.lamps * (1.6 if open_shop else 1))[:, None]
    color = np.where(lit, np.array((1.25, 0.98, 0.60), np.float32) * (0.9 + 0.2 * pane)[:, None], color)
    photo += (trim - photo) * (0.9 * frame)[:, None]
    photo += (color - photo) * (glass * (1 - bars))[:, None]
    sill = _line(sideways, half + 0.15, skew) * _line(upwards + tall + 0.16, 0.06, fine) * present
    photo += (trim * 0.8 - photo) * (0.8 * sill)[:, None]

    sign = np.zeros(up.shape, bool)
    if open_shop:
        low, high = building.floor * 0.80, building.floor * 1.03
        sign = (up > low) & (up < high) & (along > 0.4) & (along < building.far - building.near - 0.4)
        middle = (low + high) / 2
        letters = (texture(along * 40 + seed, np.zeros_like(up) + seed) > 0.05) & (np.abs(up - middle) < 0.16) & (along % 5 < 3.4)
        board = np.array(building.shop, np.float32)
        contrast = 0.92 if sum(building.shop or ()) < 1.6 else 0.12
        photo[sign] = np.where(letters[sign, None], np.float32(contrast), board)
    return photo, sign


def fence(canvas: Canvas, fenced: Fence) -> None:
    """Bars or boards along the road, seen through where they are open."""
    street = canvas.street
    near, far = max(fenced.near, 1.2), min(fenced.far, 120.0)
    if far - near < 0.5:
        return
    x0, x1 = street.centre(near) + fenced.lateral, street.centre(far) + fenced.lateral
    mask, window = _mask(canvas, [(x0, 0, near), (x0, fenced.height, near), (x1, fenced.height, far), (x1, 0, far)])
    if mask is None:
        return
    across, down = canvas.across[window][mask], canvas.down[window][mask]
    slope = (x1 - x0) / (far - near)
    depth = (x0 - slope * near) / np.where(np.abs(across - slope) < 1e-4, 1e-4, across - slope)
    keep = (depth > 0.3) & (depth < canvas.depth[window][mask] + 0.3)
    mask[mask] = keep
    depth = depth[keep]
    up, fine = street.eye - down[keep] * depth, depth / canvas.camera.focal
    skew = fine * np.maximum(1, np.abs(across[keep])) / np.maximum(np.abs(across[keep] - slope), 0.02)
    bar = _line(_wave(depth, fenced.pitch), fenced.pitch * (1 - fenced.gap) / 2, skew * np.abs(across[keep]))
    rail = np.maximum(_line(up - fenced.height + 0.06, 0.05, fine), _line(up - 0.15, 0.04, fine))
    post = _line(_wave(depth, 2.4), 0.06, skew)
    solid = np.clip(np.maximum(np.maximum(bar, rail), post), 0, 1)
    grain = texture(np.floor(depth / fenced.pitch) * 31, up * 12)
    color = np.array(fenced.color, np.float32) * (1 + 0.15 * grain + 0.1 * rail)[:, None]
    old = canvas.photo[window][mask]
    canvas.photo[window][mask] = old + (color - old) * solid[:, None]
    canvas.label[window][mask] = FENCE
    canvas.depth[window][mask] = depth


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
    photo, depth = canvas.photo, canvas.depth[..., None]
    if light.wet:
        line = int(canvas.camera.middle[1])
        rows = np.clip(2 * line - np.arange(height), 0, height - 1)
        mirrored = photo[rows]
        mirrored = (mirrored + np.roll(mirrored, 5, 0) + np.roll(mirrored, -5, 0) + np.roll(mirrored, 10, 0)) / 4
        share = light.wet * np.clip(0.75 + texture(canvas.across * 9, canvas.down * 60), 0.2, 1.2) * (canvas.label == ROAD)
        photo = photo * (1 - 0.35 * share[..., None]) + (mirrored - photo) * (0.5 * share)[..., None]
    haze = np.array(light.sky[1], np.float32)
    thick = light.haze * np.minimum(depth, 400) / (60 * (1 - light.haze) + np.minimum(depth, 400) * light.haze)
    photo = np.where(depth < FAR / 2, photo + (haze - photo) * thick, photo)
    vignette = 1 - 0.10 * (canvas.across * canvas.across + canvas.down * canvas.down)
    photo = photo * np.array(light.tint, np.float32) * (light.exposure * vignette)[..., None]
    grain = numbers.standard_normal((height, width, 1), dtype=np.float32) * 0.014
    speck = numbers.standard_normal((height, width, 3), dtype=np.float32) * 0.006
    photo = photo * (1 + grain) + speck
    photo = np.minimum(photo, 0.8 + (photo - 0.8) / (1 + 2.5 * np.maximum(photo - 0.8, 0)))  # a soft shoulder before white
    return (np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8)


def texture(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Noise in [-1,1] at the points (a, b) of an endless tile; 256 units are one period."""
    return _tile()[a.astype(np.int32) & 255, b.astype(np.int32) & 255]


@lru_cache(maxsize=1)
def _tile() -> np.ndarray:
    rng = np.random.default_rng(11)
    total = np.zeros((256, 256), np.float32)
    for cells, weight in ((8, 0.25), (32, 0.35), (128, 0.5), (256, 0.55)):
        grid = np.tile(rng.random((cells, cells), dtype=np.float32) * 2 - 1, (3, 3))
        wide = Image.fromarray(grid).resize((768, 768), Image.Resampling.BICUBIC)
        total += weight * np.asarray(wide)[256:512, 256:512]
    return np.clip(total / 0.9, -1, 1)


def _wave(value: np.ndarray, period: float) -> np.ndarray:
    """The distance to the middle of the period that holds the value, signed."""
    return value - (np.floor(value / period) + 0.5) * period


def _line(distance: np.ndarray, half: float | np.ndarray, fine: np.ndarray) -> np.ndarray:
    """How much of a pixel `fine` metres wide lies within `half` metres of a line."""
    return np.clip((half - np.abs(distance)) / fine + 0.5, 0, 1) * np.minimum(1, 2 * half / fine)


def _near(fine: np.ndarray, limit: float) -> np.ndarray:
    """1 where a pixel is finer than the limit, falling to 0 at twice: fine detail fades before it flickers."""
    return np.clip(2 - fine / limit, 0, 1)


def _mask(canvas: Canvas, points: list[tuple[float, float, float]]) -> tuple[np.ndarray | None, tuple[slice, slice]]:
    """Which pixels of a window of the canvas a flat shape in space covers; None if it is out of sight."""
    height, width = canvas.size
    flat = [canvas.camera.project(*point) for point in points]
    left, right = max(0, math.floor(min(x for x, _ in flat))), min(width, math.ceil(max(x for x, _ in flat)) + 1)
    top, bottom = max(0, math.floor(min(y for _, y in flat))), min(height, math.ceil(max(y for _, y in flat)) + 1)
    window = slice(top, bottom), slice(left, right)
    if left >= right or top >= bottom:
        return None, window
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).polygon([(x - left, y - top) for x, y in flat], fill=1)
    mask = np.array(image, dtype=bool)
    return (mask if mask.any() else None), window


def shade_ground(canvas: Canvas, outlines: list[tuple[Color, list[tuple[float, float, float]]]]) -> None:
    """Soft shadows of things on the ground: each outline in space darkens the ground under it by its factor."""
    for factor, points in outlines:
        mask, window = _mask(canvas, points)
        if mask is not None:
            canvas.photo[window][mask] *= np.array(factor, np.float32)
