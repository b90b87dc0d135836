"""Poses as OpenPose writes them: read, adapted to another person and camera, and drawn as pictures."""

import json
import re
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageDraw

from trainer.errors import BrokenFile, UserError

Pose = Annotated[np.ndarray, "Float[137,3]: x, y in pixels and confidence, 0 where a point was not found"]
"""25 points of the body in the order of OpenPose's BODY_25, then 70 of the face and 21 of each hand."""

BODY, FACE, HAND = 25, 70, 21
POINTS = BODY + FACE + 2 * HAND
MID_HIP, RIGHT_HIP, LEFT_HIP = 8, 9, 12
HEAD, TOES, ANKLES = (0, 15, 16, 17, 18), (19, 22), (11, 14)
FROM_18 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
"""Where COCO's 18 points lie among the 25, which have the middle of the hips and the feet besides."""
CHAINS = (
    (17, 15, 0, 1), (18, 16, 0), (1, 2, 3, 4), (1, 5, 6, 7), (1, 8, 9, 10, 11), (8, 12, 13, 14),
    (11, 22, 23), (11, 24), (14, 19, 20), (14, 21),
)  # fmt: skip
"""The body's limbs, from joint to joint."""
FEATURES = (8, 30, 48, 51, 54, 57, 68, 69)
"""The points of a face that are drawn: chin, tip of the nose, mouth, pupils."""
CONFIDENT = 0.05
"""Points of hands and faces with less than this are not drawn; a body's are with any."""


def pose_files(folder: Path) -> dict[str, Path]:
    """{name: file} of the poses below a folder, NAME.json or NAME_keypoints.json. Raises UserError."""
    paths = sorted(folder.rglob("*.json"), key=lambda path: by_number(str(path)))
    if not paths:
        raise UserError(f"{folder} holds no poses: give a folder of the JSON files that OpenPose writes")
    return {path.relative_to(folder).with_suffix("").as_posix().removesuffix("_keypoints"): path for path in paths}


def by_number(name: str) -> str:
    """A key that sorts names as their numbers do: frame 9 before frame 10."""
    return re.sub(r"\d+", lambda number: number[0].zfill(12), name)


def read_pose(path: Path) -> Pose:
    """The person of the highest confidence in a JSON file of OpenPose (18 or 25 points); all zero where there is none.

    Raises BrokenFile, and UserError where the points are others.
    """
    try:
        people = [_pose_of(person, path) for person in json.loads(path.read_text())["people"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise BrokenFile(f"{path} is not a JSON file of OpenPose ({error!r})") from error
    return max(people, key=lambda pose: float(pose[:, 2].sum()), default=np.zeros((POINTS, 3)))


def draw_pose(pose: Pose, size: tuple[int, int]) -> np.ndarray:
    """A pose as a picture uint8[height,width,3] on white: each limb in a colour of its own, black points of the face.

    Lines are 8 pixels wide at a height of 1080, as in the released code of Everybody Dance Now, and at least 2.
    """
    height, width = size
    picture = Image.new("RGB", (width, height), "white")
    draw, unit = ImageDraw.Draw(picture), height / 1080
    body, face, *hands = np.split(pose, [BODY, BODY + FACE, BODY + FACE + HAND])
    limbs = [(chain[i], chain[i + 1]) for chain in CHAINS for i in range(len(chain) - 1)]
    _limbs(draw, body, limbs, width=8 * unit, least=0.0)
    for hand in hands:
        fingers = [(0 if i % 4 == 1 else i - 1, i) for i in range(1, HAND)]
        _limbs(draw, hand, fingers, width=4 * unit, least=CONFIDENT)
    for x, y, confidence in face[list(FEATURES)]:
        if confidence > CONFIDENT:
            draw.ellipse((x - 4 * unit, y - 4 * unit, x + 4 * unit, y + 4 * unit), fill="black")
    return np.array(picture)


def normalised(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Move and scale the poses of one video Float[T,137,3] as those of another, Float[N,137,3], stand in its pictures.

    The foot of a frame lies between the farthest and the closest line of its own video; it is put at the same share of
    the way between those of the target, and the figure is scaled, about the foot, by the ratio of the tallest figures
    there (Chan et al., section 4 and its appendix). Frames without a head or a foot are treated as the one before.
    Raises UserError where no frame has both.

    # Unlike the released code: figures are scaled about the middle of their own steps, not of the picture, after the
    # source was scaled to the target's median figure, so that the sizes of the pictures need not be known; and no
    # further than at the two lines.
    """
    feet, heights = _feet_and_heights(target, "the person to look like")
    source = source.copy()
    source[:, :, :2] *= np.nanmedian(heights) / np.nanmedian(_feet_and_heights(source, "the dancer")[1])
    own_feet, own_heights = _feet_and_heights(source, "the dancer")
    far, close = _range(feet)
    own_far, own_close = _range(own_feet)
    extent, own_extent = close - far, own_close - own_far
    if own_extent < extent:  # the source's range, about the middle of the target's
        far, close = (far + close - own_extent) / 2, (far + close + own_extent) / 2
    scales = [
        _tallest(feet, heights, line, extent) / _tallest(own_feet, own_heights, own_line, own_extent)
        for line, own_line in ((far, own_far), (close, own_close))
    ]

    foot = _filled(np.where(np.isnan(own_heights), np.nan, own_feet))
    share = (foot - own_far) / max(own_extent, 1e-6)
    scale = scales[0] + np.clip(share, 0, 1) * (scales[1] - scales[0])  # a hop does not shrink the figure
    goal = far + share * (close - far)
    source[:, :, 0] = scale[:, None] * (source[:, :, 0] - _middle(source)) + _middle(target)
    source[:, :, 1] = scale[:, None] * (source[:, :, 1] - foot[:, None]) + goal[:, None]
    return source


def _pose_of(person: dict[str, Any], path: Path) -> Pose:
    body = np.zeros((BODY, 3))
    found = _points(person["pose_keypoints_2d"])
    if len(found) == BODY:
        body = found
    elif len(found) == len(FROM_18):
        body[list(FROM_18)] = found
        hips = body[[RIGHT_HIP, LEFT_HIP]]
        if (hips[:, 2] > 0).all():
            body[MID_HIP] = hips.mean(0)
    else:
        raise UserError(f"{path} has {len(found)} points of a body; write poses with 25 (BODY_25) or 18 (COCO)")
    parts = [body]
    for name, count in (("face", FACE), ("hand_left", HAND), ("hand_right", HAND)):
        points = _points(person.get(f"{name}_keypoints_2d", []))
        parts.append(points if len(points) == count else np.zeros((count, 3)))
    return np.concatenate(parts)


def _points(numbers: Sequence[float]) -> np.ndarray:
    return np.array(numbers, dtype=float).reshape(-1, 3)


def _limbs(
    draw: ImageDraw.ImageDraw, points: np.ndarray, limbs: Sequence[tuple[int, int]], *, width: float, least: float
) -> None:
    """Lines with round ends between points that were found, each in its own hue."""
    for index, limb in enumerate(limbs):
        if min(points[limb, 2]) > least:
            red, green, blue = (round(255 * part) for part in hsv_to_rgb(index / len(limbs), 1.0, 0.85))
            ends = [(float(x), float(y)) for x, y, _ in points[list(limb)]]
            draw.line(ends, fill=(red, green, blue), width=max(2, round(width)))
            for x, y in ends:
                draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=(red, green, blue))


def _feet_and_heights(poses: np.ndarray, whose: str) -> tuple[np.ndarray, np.ndarray]:
    """The row of the lower foot and the height of each figure, Float[T], NaN where they are not seen."""
    rows = np.where(poses[:, :, 2] > 0, poses[:, :, 1], np.nan)
    lowest = [np.fmax.reduce(rows[:, list(joints)], axis=1) for joints in (TOES, ANKLES)]
    feet = np.where(np.isnan(lowest[0]), lowest[1], lowest[0])
    heights = feet - np.fmin.reduce(rows[:, list(HEAD)], axis=1)
    if np.isnan(heights).all():
        raise UserError(f"no pose of {whose} has both a head and a foot: give poses of the whole body")
    return feet, heights


def _range(feet: np.ndarray) -> tuple[float, float]:
    """The farthest and the closest line of the feet; feet in the air are left out.

    Farthest is the highest that lies less than half as far above the median as the closest lies below it.
    """
    close, median = float(np.nanmax(feet)), float(np.nanmedian(feet))
    above = median - feet
    above = above[(above > 0) & (above < 0.5 * (close - median))]
    return median - float(above.max(initial=0.0)), close


def _tallest(feet: np.ndarray, heights: np.ndarray, line: float, extent: float) -> float:
    """The height of the tallest figure whose foot is near the line."""
    near = heights[np.abs(feet - line) <= 0.05 * extent]
    return float(np.nanmax(heights if np.isnan(near).all() else near))


def _filled(values: np.ndarray) -> np.ndarray:
    """Each NaN as the value before it, the first ones as the first that is none."""
    known = np.flatnonzero(~np.isnan(values))
    return values[known[np.clip(np.searchsorted(known, np.arange(len(values)), "right") - 1, 0, None)]]


def _middle(poses: np.ndarray) -> float:
    """The median column of the body's points that were found."""
    body = poses[:, :BODY]
    return float(np.median(body[:, :, 0][body[:, :, 2] > 0]))
