"""`fewpair poses POSES --photos PHOTOS --out LABELS`: draw poses as pictures, to train on or to predict from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from serving.imaging.decode import image_size
from trainer.commands.arguments import parse
from trainer.data.dataset import image_errors
from trainer.data.layouts.files import by_stem, first_of, number_of
from trainer.data.poses import Pose, draw_pose, normalised, pose_files, read_pose
from trainer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PosesOptions:
    """Options of `fewpair poses`."""

    poses: Annotated[Path, tyro.conf.Positional]
    """A folder of OpenPose's JSON files, NAME.json or NAME_keypoints.json."""
    photos: Path
    """The photos, with the names of the poses."""
    dancer: Path | None = None
    """Poses of another person, moved and scaled to stand as `poses` do, which are drawn instead."""
    out: Path
    """The folder for the pictures, NAME.png."""


def poses(arguments: list[str]) -> int:
    """Draw each pose at the size of the photos."""
    options = parse(PosesOptions, "poses", arguments, "Draw poses of OpenPose as pictures.")
    found = _poses_in(options.poses)
    photos = by_stem(options.photos, options.photos)
    missing = sorted(found.keys() - photos.keys())
    if missing:
        raise UserError(f"{options.photos} has no photo for {first_of(missing)}: name photos and poses alike")
    sizes = {}
    for name in found:
        path = options.photos / photos[name]
        with image_errors(path):
            sizes[name] = image_size(path)
    if options.dancer is not None:
        if len(set(sizes.values())) > 1:
            raise UserError(f"{options.photos} has photos of several sizes: --dancer needs frames of one video")
        others = _poses_in(options.dancer)
        moved = normalised(np.stack(list(others.values())), np.stack(list(found.values())))
        size = next(iter(sizes.values()))
        found, sizes = dict(zip(others, moved, strict=True)), dict.fromkeys(others, size)
    for name, pose in found.items():
        target = options.out / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_pose(pose, sizes[name])).save(target)
    empty = sum(not pose[:, 2].any() for pose in found.values())
    print(f"wrote {number_of(len(found), 'picture')} to {options.out}" + (f", {empty} without a person" * bool(empty)))
    return 0


def _poses_in(folder: Path) -> dict[str, Pose]:
    return {name: read_pose(path) for name, path in pose_files(folder).items()}
