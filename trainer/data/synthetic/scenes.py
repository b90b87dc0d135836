"""Synthetic street scenes: photo and label map are rendered together, at any size."""

import numpy as np
from numpy.random import Generator, default_rng

from trainer.batch import random
from trainer.data.class_table import shipped
from trainer.data.synthetic.canvas import FAR, Canvas, Label, line, rough, smooth, wave
from trainer.data.synthetic.objects import draw_object, draw_shadow
from trainer.data.synthetic.scene import PAINTS, Object, sample_color, sample_scene

CLASSES = shipped("scenes")
"""CamVid's eleven classes and void, with CamVid's ids and colours."""
SEED = 2008
WALLS = (
    *((0.62, 0.38, 0.28), (0.50, 0.30, 0.24), (0.70, 0.58, 0.42), (0.80, 0.76, 0.68), (0.72, 0.70, 0.66)),
    *((0.86, 0.84, 0.80), (0.55, 0.56, 0.58), (0.66, 0.72, 0.76), (0.80, 0.66, 0.56), (0.60, 0.66, 0.56)),
)
WHITE, GRASS = np.array((0.86, 0.86, 0.82)), np.array((0.30, 0.38, 0.17))


def draw(index: int, *, height: int, width: int, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Render scene `index` of a split: its photo uint8[H,W,3] and its class indices uint8[H,W] (0..10).

    The content depends on (split, index) alone: another size shows the same street.
    """
    scene = sample_scene(random(SEED, index, f"scene {split}"))
    canvas = Canvas(scene, height, width)
    for building in (each for each in scene.objects if each.kind == "building"):
        draw_building(canvas, building)
    draw_ground(canvas)
    draw_sky(canvas)
    for thing in (each for each in scene.objects if each.kind not in ("building", "fence", "lamp", "sign")):
        draw_shadow(canvas, thing)
    for thing in (each for each in scene.objects if each.kind != "building"):
        (draw_fence if thing.kind == "fence" else draw_object)(canvas, thing)
    return apply_weather(canvas, random(SEED, index, f"grain {split}")), canvas.label


def draw_building(canvas: Canvas, building: Object) -> None:
    """The side that faces the camera, and the front: bricks or plaster, rows of windows, and a shop with its sign."""
    rng, light, near, tall = default_rng(building.seed), canvas.scene.light, building.near, building.height
    wall, x, outwards = sample_color(rng, WALLS), canvas.scene.offset + building.lateral, np.sign(building.lateral)
    side = canvas.surface(sorted((x, x + 9 * outwards)), (0, tall), (near, near))
    if side is not None and near > 0.5:
        place, (right, up, ahead), _ = side
        tone = 0.75 + 0.08 * smooth(right * 40, up * 9) + 0.1 * rough(right * 9, up * 14)
        canvas.photo[place], canvas.label[place], canvas.depth[place] = wall * tone[:, None], Label.BUILDING, ahead
    front = canvas.surface((x, x), (0, tall), (max(near, 0.4), max(near + building.length, 0.6)))
    if front is None:
        return
    wall = wall * (1 - 0.42 * light.sun * (outwards != light.sun_side))
    place, (right, up, ahead), fine = front
    seed, along = building.seed % 997, ahead - near
    skew = fine / np.maximum(np.abs(right / ahead), 0.02)  # metres that a pixel covers along the front
    storey, bay, trim = rng.uniform(2.7, 3.6), rng.uniform(1.7, 3.6), np.full(3, rng.choice([0.25, 0.88, 0.9]))
    course, sharp = np.floor(up / 0.16), np.clip(2 - fine / 0.05, 0, 1)  # fine texture fades before it aliases
    bricks = rough(np.floor(along / 0.34 + 0.5 * (course % 2)) * 11, course * 19) * (rng.random() < 0.5)
    tone = 1 + 0.08 * smooth(along * 60 + seed, up * 9) + 0.1 * sharp * (rough(along * 23, up * 23 + seed) + bricks)
    color = wall * (tone * (1 - 0.25 * np.clip(1 - up / 1.2, 0, 1)))[:, None]
    column, floor, across = np.floor(along / bay), np.floor(up / storey), wave(along, bay)
    shop = (floor < 1) & (rng.random() < 0.35)
    half = np.where(shop, 0.44, rng.uniform(0.18, 0.35)) * bay
    high = np.where(shop, 0.30, rng.uniform(0.21, 0.31)) * storey
    rise, there = up - (floor + np.where(shop, 0.42, 0.55)) * storey, up < building.height - 0.4
    pane = rough(column * 31 + seed, floor * 47)
    shine = 0.16 + 0.22 * (pane > 0.1) + 0.1 * np.clip(rise, -1, 1)
    lit = rough(column * 71 + 3, floor * 53 + seed) * 0.5 + 0.5 < light.lit * (1 + shop)
    glass = (0.10, 0.12, 0.15) + np.array(light.horizon) * shine[:, None]
    glass = np.where(lit[:, None], np.array((1.25, 0.98, 0.60)) * (0.9 + 0.2 * pane)[:, None], glass)
    bars = np.maximum(line(across, 0.03, skew), line(rise - high * 0.2, 0.03, fine)) * sharp
    for layer, cover in (
        (trim, 0.5 * line(wave(up, storey), 0.06, fine) * (floor > 0)),
        (trim, 0.9 * line(across, half + 0.08, skew) * line(rise, high + 0.1, fine) * there),
        (glass, line(across, half, skew) * line(rise, high, fine) * (1 - bars) * there),
    ):
        color += (layer - color) * cover[:, None]
    sign = shop & (up > 0.8 * storey) & (along > 0.4) & (along < building.length - 0.4)
    letters = (rough(along * 40 + seed, 0 * up) > 0.05) & (np.abs(up - 0.9 * storey) < 0.15) & (along % 5 < 3.4)
    board = sample_color(rng, PAINTS)
    color[sign] = np.where(letters[sign, None], 0.92 if board.sum() < 1.6 else 0.12, board)
    canvas.photo[place], canvas.depth[place] = color, ahead
    canvas.label[place] = np.where(sign, Label.SIGN, Label.BUILDING)


def draw_fence(canvas: Canvas, fence: Object) -> None:
    """Rails, posts and bars with gaps; the label covers the gaps too."""
    rng, x = default_rng(fence.seed), canvas.scene.offset + fence.lateral
    surface = canvas.surface((x, x), (0, fence.height), (max(fence.near, 0.4), max(fence.near + fence.length, 0.6)))
    if surface is None:
        return
    place, (right, y, z), fine = surface
    skew = fine / np.maximum(np.abs(right / z), 0.02)
    pitch, solid = rng.uniform(0.14, 0.3), rng.choice([0.4, 0.94])
    bars, posts = line(wave(z, pitch), pitch * solid / 2, skew), line(wave(z, 2.4), 0.06, skew)
    rails = line(y - fence.height + 0.06, 0.05, fine) + line(y - 0.15, 0.04, fine)
    cover, behind = np.clip(bars + posts + rails, 0, 1)[:, None], canvas.photo[place]
    color = sample_color(rng, PAINTS[1:7]) * 0.8 * (1 + 0.15 * rough(np.floor(z / pitch) * 31, y * 12))[:, None]
    canvas.photo[place], canvas.label[place], canvas.depth[place] = behind + (color - behind) * cover, Label.FENCE, z


def draw_ground(canvas: Canvas) -> None:
    """Asphalt with markings, sidewalks of slabs, and grass behind them, in the shade of the buildings."""
    scene, rng = canvas.scene, default_rng(canvas.scene.seed)
    below = (canvas.down > 0.006) & (scene.eye < canvas.down * canvas.depth)
    depth = scene.eye / canvas.down[below]
    side = canvas.across[below] * depth - scene.offset
    away, fine = np.abs(side), depth / canvas.focal
    sharp = np.clip(2 - fine / 0.03, 0, 1)
    grain = 0.6 * rough(side * 37, depth * 37) * sharp + 0.4 * smooth(side * 35, depth * 21)
    grey, slab, warm = rng.uniform(0.27, 0.47), rng.uniform(0.45, 0.66), rng.uniform(-0.03, 0.03)
    tone = 1 + 0.16 * grain + 0.13 * smooth(side * 9 + 40, depth * 3)
    color = np.array((grey + warm, grey, grey - warm + 0.015)) * tone[:, None]
    dashes, start = rng.uniform(4, 9), rng.uniform(9, 24)
    for paint, cover in (
        (WHITE, line(side, 0.07, fine) * ((depth + dashes) % dashes < dashes * 0.45)),
        (WHITE * (0.93, 0.74, 0.22), line(away - scene.half_road + 0.35, 0.05, fine) * (rng.random() < 0.4)),
        (WHITE, line(wave(side, 1.1), 0.28, fine) * ((depth > start) & (depth < start + 3)) * (rng.random() < 0.3)),
    ):
        color += (paint - color) * np.clip(cover * (0.72 + 0.3 * grain), 0, 1)[:, None]
    joints = np.maximum(line(wave(side, 0.6), 0.012, fine), line(wave(depth, 0.6), 0.012, fine * depth / scene.eye))
    slabs = 1 + 0.08 * rough(np.floor(side / 0.6) * 13, np.floor(depth / 0.6) * 7) + 0.12 * grain - 0.3 * joints * sharp
    grass = 1 + 0.35 * rough(side * 60, depth * 60) * sharp + 0.2 * smooth(side * 12, depth * 8)
    paved, behind = away >= scene.half_road, away >= scene.half_road + scene.sidewalk
    color[paved] = (np.array((slab + 0.03 + warm, slab, slab - 0.04)) * slabs[:, None])[paved]
    color[behind] = (GRASS * grass[:, None])[behind]
    kerb = np.clip(1 - np.abs(away - scene.half_road) / 0.12, 0, 1) * np.where(paved, 0.25, -0.25)

    tops = np.zeros(140)  # how far the shade of the buildings on the sunny side reaches across the road
    for each in scene.objects:
        if each.kind == "building" and each.lateral * scene.light.sun_side < 0:
            tops[max(0, int(each.near)) : max(0, int(each.near + each.length))] = 0.9 * each.height - abs(each.lateral)
    reach = tops[np.clip((depth + 0.3 * away).astype(np.int32), 0, 139)] - side * scene.light.sun_side
    shade = 1 - 0.48 * scene.light.sun * np.clip(reach * 4, 0, 1)
    canvas.photo[below] = color * ((1 + kerb) * shade)[:, None]
    canvas.label[below] = np.where(behind, Label.TREE, np.where(paved, Label.SIDEWALK, Label.ROAD))
    canvas.depth[below] = depth


def draw_sky(canvas: Canvas) -> None:
    """Trees along the horizon and a sky with clouds above them."""
    light = canvas.scene.light
    top = 0.05 + 0.03 * smooth(canvas.across * 90 + canvas.scene.seed % 509, 0 * canvas.across)
    far = (-canvas.down < top) & (canvas.down < 0.03) & (canvas.depth > 160)
    leaves = 0.6 + 0.25 * rough(canvas.across[far] * 300, canvas.down[far] * 300)
    canvas.photo[far], canvas.label[far], canvas.depth[far] = GRASS * leaves[:, None], Label.TREE, 160
    sky = canvas.depth == FAR
    up, across = np.maximum(-canvas.down[sky], 0), canvas.across[sky]
    zenith, horizon = np.array(light.zenith), np.array(light.horizon)
    color = horizon + (zenith - horizon) * np.minimum(up * 1.9, 1)[:, None]
    scale, shift = 40 / (up + 0.15), canvas.scene.seed % 509  # clouds flatten towards the horizon
    mist = 0.65 * smooth(across * scale + shift, scale * 2.2) + 0.35 * smooth(across * scale * 2.7, scale * 6 + shift)
    cover = np.clip((mist + 1.1 * light.clouds - 0.62) * 1.5, 0, 0.85) * np.minimum(1, up * 8)
    canvas.photo[sky] = color + (0.3 * horizon + 0.68 - color) * cover[:, None]


def apply_weather(canvas: Canvas, rng: Generator) -> np.ndarray:
    """Haze, exposure and sensor noise: the photo as uint8[H,W,3]."""
    light, photo = canvas.scene.light, canvas.photo
    distance = np.where(canvas.depth < FAR / 2, canvas.depth, 0)
    haze = light.haze * distance / (60 * (1 - light.haze) + distance * light.haze)
    photo += (np.array(light.horizon, np.float32) - photo) * haze[..., None]
    vignette = 1 - 0.10 * (canvas.across * canvas.across + canvas.down * canvas.down)
    photo *= (light.exposure * vignette)[..., None] * np.array(light.tint, np.float32)
    photo += np.float32(0.007) * rng.standard_normal(photo.shape, np.float32)
    over = np.maximum(photo - np.float32(0.8), 0)
    photo += over / (1 + np.float32(2.5) * over) - over  # compresses highlights instead of clipping them
    return (np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8)
