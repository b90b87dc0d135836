"""Poses: read, drawn, moved from one person to another; clips of frames in their order."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.folders import photo_of, write
from trainer.__main__ import main
from trainer.data.catalogue import open_dataset
from trainer.data.loader import Loader
from trainer.data.poses import FROM_18, POINTS, draw_pose, normalised, read_pose
from trainer.data.selection.choose import select
from trainer.data.synthetic import walker
from trainer.errors import BrokenFile, UserError

SIZE = (144, 192)
POSES = [walker.draw(1, frame, height=SIZE[0], width=SIZE[1])[1] for frame in range(0, 40, 2)]


def write_pose(path: Path, *poses: np.ndarray, points: str = "25") -> Path:
    """A file as OpenPose writes it, with a person for each pose."""
    people = []
    for pose in poses:
        body = pose[:25] if points == "25" else pose[list(FROM_18)]
        parts = {"pose": body, "face": pose[25:95], "hand_left": pose[95:116], "hand_right": pose[116:]}
        people.append({f"{name}_keypoints_2d": part.reshape(-1).tolist() for name, part in parts.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 1.3, "people": people}))
    return path


def test_a_pose_is_read_with_25_or_18_points_and_looks_alike(tmp_path: Path) -> None:
    whole = read_pose(write_pose(tmp_path / "a.json", POSES[0]))
    assert np.array_equal(whole, POSES[0])
    short = read_pose(write_pose(tmp_path / "b.json", POSES[0], points="18"))
    assert np.array_equal(short[list(FROM_18)], POSES[0][list(FROM_18)])
    assert np.allclose(short[8], POSES[0][[9, 12]].mean(0))
    assert not short[19:].any()
    colours = [set(map(tuple, draw_pose(pose, SIZE).reshape(-1, 3))) for pose in (whole, short)]
    assert colours[1] < colours[0], "the same limbs in the same colours, without feet"


def test_of_several_people_the_surest_is_read_and_of_none_an_empty_pose(tmp_path: Path) -> None:
    doubtful = POSES[1] * [1, 1, 0.5]
    assert np.array_equal(read_pose(write_pose(tmp_path / "two.json", doubtful, POSES[0])), POSES[0])
    nobody = read_pose(write_pose(tmp_path / "none.json"))
    assert nobody.shape == (POINTS, 3)
    assert (draw_pose(nobody, (20, 30)) == 255).all()


def test_what_is_no_pose_is_refused_with_its_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(BrokenFile, match=r"broken\.json is not a JSON file of OpenPose"):
        read_pose(broken)
    broken.write_text(json.dumps({"people": [{"pose_keypoints_2d": [0.0] * 51}]}))
    with pytest.raises(UserError, match="17 points of a body; write poses with 25"):
        read_pose(broken)


def test_hands_and_faces_are_drawn_where_they_are_sure() -> None:
    pose = np.zeros((POINTS, 3))
    pose[25:] = [60.0, 40.0, 1.0]
    pose[95:116, 0] += np.arange(21)
    picture = draw_pose(pose, (540, 960))
    assert (picture != 255).any()
    pose[25:, 2] = 0.04
    assert (draw_pose(pose, (540, 960)) == 255).all()


def test_a_person_s_own_poses_stay_where_they_are() -> None:
    poses = np.stack(POSES)
    moved = normalised(poses, poses)
    assert np.allclose(moved, poses, atol=1e-6)


def test_a_dancer_filmed_larger_and_elsewhere_is_brought_back() -> None:
    target = np.stack(POSES)
    source = target.copy()
    source[:, :, :2] = 2.5 * target[:, :, :2] + [40, -70]
    assert np.allclose(normalised(source, target), target, atol=1e-6)


def figures(feet: list[float], heights: list[float]) -> np.ndarray:
    """Poses of a nose and a toe."""
    poses = np.zeros((len(feet), POINTS, 3))
    for pose, foot, height in zip(poses, feet, heights, strict=True):
        pose[0], pose[19] = (50, foot - height, 1), (50, foot, 1)
    return poses


def test_feet_keep_their_share_of_the_way_and_figures_grow_with_it() -> None:
    target = figures([100, 106, 110, 115, 120], [40, 40, 50, 60, 60])
    source = figures([200, 215, 220, 225, 240], [50, 50, 50, 50, 50])
    moved = normalised(source, target)
    # far: 215 of the source, 106 of the target; 200 and 100 are at least half as far from the median as the closest
    share = (np.array([200, 215, 220, 225, 240]) - 215) / 25
    feet = 106 + share * 14
    heights = 40 + np.clip(share, 0, 1) * 20
    assert np.allclose(moved[:, 19, 1], feet)
    assert np.allclose(moved[:, 19, 1] - moved[:, 0, 1], heights)
    source[3, 0, 2] = 0  # the head is not seen: the frame is treated as the one before
    again = normalised(source, target)
    assert np.allclose(again[3, 0, 1] - again[2, 0, 1], (225 - 50 - 220 + 50) * heights[2] / 50)


def test_a_dancer_who_stands_still_keeps_the_same_height_though_the_feet_tremble() -> None:
    target = figures(list(range(200, 261)), list(range(60, 121)))  # walks in depth
    feet = [300 + (frame % 3) / 2 for frame in range(40)]
    moved = normalised(figures(feet, [100] * 40), target)
    heights = moved[:, 19, 1] - moved[:, 0, 1]
    assert heights.max() / heights.min() < 1.03
    hop = [*feet[:20], 270.0, *feet[20:]]
    moved = normalised(figures(hop, [100] * 41), target)
    assert abs((moved[20, 19, 1] - moved[20, 0, 1]) / heights.mean() - 1) < 0.03


def test_poses_without_feet_cannot_be_moved() -> None:
    poses = np.stack(POSES)
    legless = poses.copy()
    legless[:, [11, 14, 19, 22], 2] = 0
    with pytest.raises(UserError, match="no pose of the dancer has both a head and a foot"):
        normalised(legless, poses)


def clip_folder(root: Path) -> Path:
    """Two clips of frames, some without a pose, numbered without zeros."""
    for clip, frames in (("one", (9, 10, 11)), ("two", (1, 2))):
        for frame in frames:
            write(root / "photos" / clip / f"{frame}.png", photo_of(frame, height=48, width=64))
            if (clip, frame) != ("one", 10):
                write_pose(root / "poses" / clip / f"{frame}_keypoints.json", POSES[frame] * [1 / 3, 1 / 3, 1])
    return root


def test_a_frame_comes_with_the_frame_and_the_pose_before_it_in_its_clip(tmp_path: Path) -> None:
    dataset = open_dataset("clips", clip_folder(tmp_path))
    assert [(each.name, each.path("previous_photo")) for each in dataset.samples("train")] == [
        ("one/9", "photos/one/9.png"),
        ("one/10", None),
        ("one/11", "photos/one/11.png"),
        ("two/1", "photos/two/1.png"),
        ("two/2", "photos/two/1.png"),
    ]
    last = dataset.samples("train")[4]
    assert np.array_equal(dataset.read_side(last, "previous_label"), dataset.read_label(dataset.samples("train")[3]))
    assert dataset.read_label(last).shape == dataset.read_photo(last).shape
    for path in (tmp_path / "poses").rglob("*.json"):
        path.unlink()
    with pytest.raises(UserError, match="holds no poses"):
        open_dataset("clips", tmp_path)


def test_a_window_of_two_frames_has_one_crop_and_no_mirror() -> None:
    dataset = open_dataset("walker", None)
    selection = select(dataset, k=8, unpaired=0, seed=0)
    loader = Loader(dataset, selection, size=SIZE, batch=8, seed=0, sides=dataset.sides, enlarge=False)
    pairs = loader.batch(0).paired
    for photo, sample in zip(pairs.photo, selection.pairs, strict=False):
        assert any(
            np.array_equal(((photo.numpy() + 1) * 127.5).round().transpose(1, 2, 0), dataset.read_photo(each))
            for each in selection.pairs
        ), sample.name
    small = Loader(dataset, selection, size=(96, 128), batch=8, seed=0, sides=dataset.sides).batch(0).paired
    wall = slice(0, 8)  # above the figure, where frames are equal
    assert np.array_equal(small.photo[:, :, wall].numpy(), small.sides["previous_photo"][:, :, wall].numpy())


def test_the_walker_is_the_same_at_each_reading_and_its_pose_lies_on_it() -> None:
    (photo, pose), (again, _) = (walker.draw(0, 3, height=96, width=128) for _ in range(2))
    assert np.array_equal(photo, again)
    empty = np.median([walker.draw(0, frame, height=96, width=128)[0] for frame in range(0, 60, 4)], axis=0)
    for x, y, _ in pose[[1, 8, 10, 13]]:
        assert np.abs(photo[round(y), round(x)] - empty[round(y), round(x)]).max() > 20


def test_the_poses_of_another_dancer_are_drawn_in_the_place_of_the_person(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "mine")
    (root / "poses" / "two" / "1_keypoints.json").unlink()
    command = ["poses", str(root / "poses"), "--photos", str(root / "photos")]
    assert main([*command, "--out", str(tmp_path / "own")]) == 0
    dataset = open_dataset("clips", root)
    drawn = Image.open(tmp_path / "own" / "one" / "9.png")
    assert np.array_equal(np.array(drawn), dataset.read_label(dataset.samples("train")[0]))
    for frame in (0, 1):
        write_pose(tmp_path / "other" / f"{frame}.json", POSES[frame])
    assert main([*command, "--out", str(tmp_path / "moved"), "--dancer", str(tmp_path / "other")]) == 0
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == ["0.png", "1.png"]
    assert np.array(Image.open(tmp_path / "moved" / "0.png")).shape == (48, 64, 3)
    (root / "photos" / "one" / "9.png").unlink()
    assert main([*command, "--out", str(tmp_path / "again")]) == 2
