"""Clips: frames of videos with the pose in each, and the frame and the pose before as further sides."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainer.data.dataset import Dataset, Sample, Side, SideKind
from trainer.data.layouts.files import Layout, matched
from trainer.data.layouts.folders import split_folders
from trainer.data.poses import Pose, by_number, draw_pose, pose_files, read_pose
from trainer.errors import UserError

PREVIOUS: dict[str, SideKind] = {"previous_photo": "picture", "previous_label": "picture"}


@dataclass(frozen=True)
class Clips(Dataset):
    """Labels are pictures of poses, drawn when they are read, at the size of their photos."""

    def read_label(self, sample: Sample) -> np.ndarray:
        return draw_pose(self.pose(sample, "label"), self.size(sample, "photo"))

    def read_side(self, sample: Sample, side: str) -> np.ndarray:
        if side == "previous_label":
            return draw_pose(self.pose(sample, side), self.size(sample, "photo"))
        return super().read_side(sample, side)

    def size(self, sample: Sample, side: Side) -> tuple[int, int]:
        return super().size(sample, "photo")

    def pose(self, sample: Sample, side: str) -> Pose:
        """The pose of a frame (`label`) or of the one before (`previous_label`)."""
        return read_pose(self.file(sample, side))


def clips(name: str, root: Path | None) -> Dataset:
    """Frames of videos of one person, a folder for each clip, and the JSON files that OpenPose writes for them."""
    text = "photos/CLIP/NAME.jpg and poses/CLIP/NAME_keypoints.json (splits: train/photos, train/poses, ...)"
    layout = Layout.at(name, root, text)
    folders = split_folders(layout.root)
    for part in ("photos", "poses"):
        layout.require(folders["train"] / part)
    splits = {}
    for split, folder in folders.items():
        photos = layout.files(folder / "photos")
        poses = {
            stem: path.relative_to(layout.root).as_posix()
            for stem, path in pose_files(folder / "poses").items()
            if stem in photos
        }
        splits[split] = in_order(matched(photos, poses))
    if not any(sample.complete for sample in splits["train"]):
        raise UserError(f"{layout.root}: no photo has its pose; {name} expects a root that holds {text}")
    return Clips(**vars(layout.dataset(splits, terms="yours", classes=None)) | {"sides": PREVIOUS, "flips": False})


def in_order(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Samples by clip and number, each pair with the one before it as sides.

    The first of a clip, and the first after a frame without a pose, comes after itself.
    """
    found: list[Sample] = []
    before: Sample | None = None
    for sample in sorted(samples, key=lambda each: by_number(each.name)):
        if not sample.complete:
            before = None
        elif sample.photo is not None and sample.label is not None:
            if before is None or Path(before.name).parent != Path(sample.name).parent:  # of another clip
                before = sample
            sides = (("previous_photo", before.photo or ""), ("previous_label", before.label or ""))
            before = sample = replace(sample, sides=sides)
        found.append(sample)
    return tuple(found)
