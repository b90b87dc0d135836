"""A drawn figure that walks past: the photo and the pose of each frame, as of one person filmed by a fixed camera."""

from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from trainer.batch import random
from trainer.data.poses import POINTS, Pose

SEED = 41
GAIT = 14
"""Frames of two steps."""
FINER = 2
"""Photos are drawn larger by this factor and reduced, for smooth outlines."""
SKIN, SHIRT, TROUSERS, SHOES, HAIR = (224, 172, 140), (196, 58, 50), (46, 66, 120), (40, 34, 32), (70, 48, 34)


def draw(clip: int, frame: int, *, height: int, width: int) -> tuple[np.ndarray, Pose]:
    """The photo uint8[height,width,3] of a frame, and its pose with the 25 points of the body."""
    joints = _joints(clip, frame) * height + np.array([width / 2, 0])
    pose = np.zeros((POINTS, 3))
    pose[: len(joints), :2], pose[: len(joints), 2] = joints, 1.0
    picture = Image.fromarray(_room(height * FINER, width * FINER))
    _draw_person(ImageDraw.Draw(picture), joints * FINER)
    return np.array(picture.resize((width, height), Image.Resampling.BOX)), pose


def _joints(clip: int, frame: int) -> np.ndarray:
    """The body's points in the order of BODY_25, in picture heights, x from the middle of the picture."""
    draws = random(SEED, clip, "walk")
    start, lane, direction = draws.uniform(0, 2 * pi), draws.uniform(0.78, 0.95), draws.choice([-1.0, 1.0])
    phase = start + 2 * pi * frame / GAIT
    tall = 0.9 * lane - 0.1  # who stands lower in the picture is closer, and larger
    hip = np.array([direction * 0.45 * sin(start + frame / 40), lane - 0.5 * tall - 0.01 * tall * abs(sin(phase))])
    facing = direction * (1.0 if cos(start + frame / 40) >= 0 else -1.0)

    def along(origin: np.ndarray, angle: float, length: float) -> np.ndarray:
        """The point at a distance below the origin, turned forwards by an angle."""
        return origin + tall * length * np.array([facing * sin(angle), cos(angle)])

    points = np.zeros((25, 2))
    neck = along(hip, -0.06, -0.3)
    points[[8, 1, 0]] = hip, neck, along(neck, -0.25, -0.09)
    for side, (shoulder, pelvis, eye, ear, toe) in enumerate(((2, 9, 15, 17, 22), (5, 12, 16, 18, 19))):
        swing = sin(phase + pi * side)
        apart = tall * (0.03 if side else -0.03)
        points[shoulder], points[pelvis] = neck + np.array([apart, tall * 0.02]), hip + np.array([0.8 * apart, 0])
        points[shoulder + 1] = along(points[shoulder], -0.5 * swing, 0.15)
        points[shoulder + 2] = along(points[shoulder + 1], -0.5 * swing + 0.35, 0.14)
        points[pelvis + 1] = along(points[pelvis], 0.45 * swing + 0.08, 0.24)
        points[pelvis + 2] = along(points[pelvis + 1], 0.45 * swing - 0.3 * (1 + cos(phase + pi * side)) / 2, 0.24)
        points[eye], points[ear] = along(points[0], -0.1 + 0.3 * side, -0.025), along(neck, 0.05, -0.11 - 0.005 * side)
        ankle = points[pelvis + 2]
        points[[toe, toe + 1, toe + 2]] = along(ankle, 1.3, 0.07), along(ankle, 1.2, 0.06), along(ankle, -0.9, 0.03)
    return points


def _room(height: int, width: int) -> np.ndarray:
    """The background of all frames: a wall with posters, and a floor that is lighter in front."""
    rows = np.linspace(0, 1, height)[:, None, None]
    wall, floor = np.array([188, 196, 190]) - 30 * rows, np.array([120, 98, 76]) + 50 * (rows - 0.7)
    room = np.broadcast_to(np.where(rows < 0.7, wall, floor), (height, width, 3)).copy()
    draws = random(SEED, 0, "room")
    for color in ((92, 120, 150), (170, 140, 60), (110, 90, 130), (70, 120, 90)):
        top, left = int(draws.uniform(0.05, 0.4) * height), int(draws.uniform(0, 0.85) * width)
        room[top : top + int(0.2 * height), left : left + int(0.12 * width)] = color
    return room.round().astype(np.uint8)


def _draw_person(draw: ImageDraw.ImageDraw, joints: np.ndarray) -> None:
    """Limbs as thick lines with round ends: the right arm and leg behind, then the trunk and head, then the left."""
    tall = float(np.linalg.norm(joints[1] - joints[8])) / 0.3

    def limb(chain: tuple[int, ...], share: float, color: tuple[int, int, int]) -> None:
        half = share * tall / 2
        points = [(float(x), float(y)) for x, y in joints[list(chain)]]
        draw.line(points, fill=color, width=max(1, round(2 * half)), joint="curve")
        for x, y in points:
            draw.ellipse((x - half, y - half, x + half, y + half), fill=color)

    right, left = ((2, 3, 4), (9, 10, 11), (24, 22)), ((5, 6, 7), (12, 13, 14), (21, 19))
    for arm, leg, foot in (right, left):
        limb(leg, 0.09, TROUSERS)
        limb(foot, 0.05, SHOES)
        if arm == left[0]:
            limb((1, 8), 0.16, SHIRT)
            limb((0, 0), 0.13, SKIN)
            limb((17, 18), 0.09, HAIR)
        limb(arm[:2], 0.07, SHIRT)
        limb(arm[1:], 0.05, SKIN)
