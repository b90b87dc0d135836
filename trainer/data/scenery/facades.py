"""The upright surfaces along a drawn street: house fronts with windows and shops, gables, roofs, fences."""

import math

import numpy as np

from trainer.data.scenery.canvas import BUILDING, FENCE, SIGN, Canvas, line, mask_of, sharp, smooth, texture, wave
from trainer.data.scenery.street import Facade, Fence, Street


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


def fence(canvas: Canvas, fenced: Fence) -> None:
    """Bars or boards along the road, seen through where they are open."""
    street = canvas.street
    near, far = max(fenced.near, 1.2), min(fenced.far, 120.0)
    if far - near < 0.5:
        return
    x0, x1 = street.centre(near) + fenced.lateral, street.centre(far) + fenced.lateral
    mask, window = mask_of(canvas, [(x0, 0, near), (x0, fenced.height, near), (x1, fenced.height, far), (x1, 0, far)])
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
    bar = line(wave(depth, fenced.pitch), fenced.pitch * (1 - fenced.gap) / 2, skew * np.abs(across[keep]))
    rail = np.maximum(line(up - fenced.height + 0.06, 0.05, fine), line(up - 0.15, 0.04, fine))
    post = line(wave(depth, 2.4), 0.06, skew)
    solid = np.clip(np.maximum(np.maximum(bar, rail), post), 0, 1)
    grain = texture(np.floor(depth / fenced.pitch) * 31, up * 12)
    color = np.array(fenced.color, np.float32) * (1 + 0.15 * grain + 0.1 * rail)[:, None]
    old = canvas.photo[window][mask]
    canvas.photo[window][mask] = old + (color - old) * solid[:, None]
    canvas.label[window][mask] = FENCE
    canvas.depth[window][mask] = depth


def _roof(canvas: Canvas, building: Facade, *, near: float, far: float, left: float, right: float, outwards: float) -> None:
    top, ridge, inward = building.height, building.height + building.roof_height, outwards * 3.2
    corners = [(left, top, near), (left + inward, ridge, near), (right + inward, ridge, far), (right, top, far)]
    gable = [(left, top, near), (left + inward, ridge, near), (left + 2 * inward, top, near)]
    slope = (right - left) / (far - near)
    for points, sloping in ((corners, True), (gable, False)):
        mask, window = mask_of(canvas, points)
        if mask is None:
            continue
        across, down = canvas.across[window][mask], canvas.down[window][mask]
        steep = np.where(np.abs(across - slope) < 1e-4, 1e-4, across - slope)
        depth = np.clip((left - slope * near) / steep, near, far + 4) if sloping else np.full_like(across, near)
        keep = depth < canvas.depth[window][mask]
        mask[mask] = keep
        color = building.roof if sloping else tuple(part * 0.82 for part in building.wall)
        grain = texture(across[keep] * 260, down[keep] * 420)
        canvas.photo[window][mask] = np.array(color, np.float32) * (1 + 0.16 * grain)[:, None]
        canvas.label[window][mask] = BUILDING
        canvas.depth[window][mask] = depth[keep]


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
    mask, window = mask_of(canvas, points)
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
    grain = 0.5 * texture(along * 3 + seed, up * 3) + 0.5 * texture(along * 23, up * 23 + seed) * sharp(fine, 0.05)
    streak = smooth(along * 60 + seed, up * 9)
    tone = 1 + 0.10 * grain + 0.07 * streak
    if building.brick:
        row = np.floor(up / 0.16)
        brick = texture(np.floor(along / 0.34 + 0.5 * (row % 2)) * 11 + seed, row * 19)
        mortar = line(wave(up, 0.16), 0.012, fine) * sharp(fine, 0.02)
        tone = tone + building.brick * (0.13 * brick * sharp(fine, 0.06) - 0.12 * mortar)
    photo = np.array(building.wall, np.float32) * tone.astype(np.float32)[:, None]
    trim = np.array(building.trim, np.float32)
    floor = np.floor(up / building.floor)
    band = line(wave(up, building.floor), 0.06, fine) * (floor > 0) + line(up - building.height + 0.15, 0.18, fine)
    photo += (trim - photo) * (0.55 * np.clip(band, 0, 1))[:, None]

    bay, share = building.bay, building.window
    column = np.floor(along / bay)
    sideways = wave(along, bay)
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
    frame = line(sideways, half + 0.08, skew) * line(upwards, tall + 0.10, fine) * present
    glass = line(sideways, half, skew) * line(upwards, tall, fine) * present
    bars = np.maximum(line(sideways, 0.03, skew), line(upwards - tall * 0.2, 0.03, fine)) * sharp(fine, 0.04)
    pane = texture(column * 31 + seed, floor * 47)
    sky = np.array(street.light.sky[1], np.float32)
    shine = (0.16 + 0.22 * (pane > 0.1) + 0.10 * np.clip(upwards, -1, 1))[:, None]
    color = np.array((0.10, 0.12, 0.15), np.float32) + sky * shine
    lit = (texture(column * 71 + 3, floor * 53 + seed) * 0.5 + 0.5 < street.light.lamps * (1.6 if open_shop else 1))[:, None]
    color = np.where(lit, np.array((1.25, 0.98, 0.60), np.float32) * (0.9 + 0.2 * pane)[:, None], color)
    photo += (trim - photo) * (0.9 * frame)[:, None]
    photo += (color - photo) * (glass * (1 - bars))[:, None]
    sill = line(sideways, half + 0.15, skew) * line(upwards + tall + 0.16, 0.06, fine) * present
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
