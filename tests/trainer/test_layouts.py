"""Every published dataset is found as its publisher lays it out, with the publisher's ids, names and splits."""

import itertools
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.trainer import publishers
from tests.trainer.folders import make_folders, photo_of, write
from trainer.batch import IGNORE
from trainer.data.catalogue import open_dataset
from trainer.data.class_table import shipped
from trainer.errors import UserError

TRAIN_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
"""Cityscapes: the raw ids that have a training id, in its order (Cordts et al., table of the 19 evaluated classes)."""

SPADE = {"photos": "{split}_img", "labels": "{split}_label"}
ZIPS = {"photos": "images/{split}2017", "labels": "stuffthingmaps_trainval2017/{split}2017"}
README = {"photos": "images/{split}2017", "labels": "annotations/{split}2017"}
FLAT = {"photos": "{split}2017", "labels": "stuffthingmaps_trainval2017/{split}2017"}


def by_table(ids: np.ndarray, table: dict[int, int]) -> np.ndarray:
    """The slow reference: one pixel at a time, void where the table is silent."""
    return np.array([[table.get(int(value), IGNORE) for value in row] for row in ids], np.uint8)


def raw(dataset, sample) -> np.ndarray:
    """The ids in a label file, as they are."""
    return np.array(Image.open(dataset.file(sample, "label")))


def sizes(dataset) -> dict[str, int]:
    return {split: len(samples) for split, samples in dataset.splits.items()}


def test_cityscapes_is_read_from_its_two_archives(tmp_path):
    dataset = open_dataset("cityscapes", publishers.cityscapes(tmp_path))
    assert sizes(dataset) == {"train": 3, "val": 1, "test": 1}
    assert dataset.samples("train")[2] == dataset.samples("train")[2].__class__(
        "bochum/bochum_000000_000313",
        "leftImg8bit/train/bochum/bochum_000000_000313_leftImg8bit.png",
        "gtFine/train/bochum/bochum_000000_000313_gtFine_labelIds.png",
        (("instances", "gtFine/train/bochum/bochum_000000_000313_gtFine_instanceIds.png"),),
    )
    assert all(sample.complete for split in ("train", "val") for sample in dataset.samples(split))
    assert [sample.label for sample in dataset.samples("test")] == [None], "its placeholders are no labels"
    for sample in dataset.samples("train"):
        expected = by_table(raw(dataset, sample), {value: index for index, value in enumerate(TRAIN_IDS)})
        assert np.array_equal(dataset.read_label(sample), expected)


def test_cityscapes_has_instance_maps_where_every_pair_has_one(tmp_path):
    root = publishers.cityscapes(tmp_path)
    dataset = open_dataset("cityscapes", root)
    assert dataset.sides == {"instances": "ids"}
    for split in ("train", "val"):
        for sample in dataset.samples(split):
            assert set(np.unique(dataset.read_side(sample, "instances"))) == {7000, 26000}
    assert dataset.samples("test")[0].sides == ()
    next((root / "gtFine" / "val").rglob("*_instanceIds.png")).unlink()
    assert open_dataset("cityscapes", root).sides == {}


def test_cityscapes_34_counts_every_raw_id_but_0(tmp_path):
    dataset = open_dataset("cityscapes-34", publishers.cityscapes(tmp_path))
    assert dataset.label_domain.classes.count == 33
    for sample in dataset.samples("train"):
        assert np.array_equal(
            dataset.read_label(sample), by_table(raw(dataset, sample), {value: value - 1 for value in range(1, 34)})
        )


def test_ade20k_is_read_from_its_archive_or_from_the_folder_around_it(tmp_path):
    inside = publishers.ade20k(tmp_path / "ADEChallengeData2016")
    for root in (inside, tmp_path):
        dataset = open_dataset("ade20k", root)
        assert sizes(dataset) == {"train": 3, "val": 2}
        sample = dataset.samples("train")[0]
        assert sample.name == "ADE_train_00000001"
        assert dataset.file(sample, "photo") == inside / "images" / "training" / "ADE_train_00000001.jpg"
        assert np.array_equal(
            dataset.read_label(sample), by_table(raw(dataset, sample), {value: value - 1 for value in range(1, 151)})
        )


@pytest.mark.parametrize("folders", [SPADE, ZIPS, README, FLAT], ids=["spade", "zips", "readme", "flat"])
def test_coco_stuff_is_read_wherever_it_is_unpacked(tmp_path, folders):
    dataset = open_dataset("coco-stuff", publishers.coco_stuff(tmp_path, **folders))
    assert sizes(dataset) == {"train": 3, "val": 1}
    assert [sample.name for sample in dataset.samples("train")] == ["000000000009", "000000000025", "000000000030"]
    assert all(sample.complete for split in dataset.splits for sample in dataset.samples(split))
    sample = dataset.samples("train")[1]
    assert np.array_equal(
        dataset.read_label(sample), by_table(raw(dataset, sample), {value: value for value in range(182)})
    )


def test_a_listing_opens_no_picture(tmp_path, monkeypatch):
    publishers.coco_stuff(tmp_path, **SPADE)

    def never(*_, **__):
        raise AssertionError("a picture was opened")

    monkeypatch.setattr(Image, "open", never)
    assert len(open_dataset("coco-stuff", tmp_path).samples("train")) == 3


def test_facades_are_read_from_folders_of_ids(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            publishers.pair(
                tmp_path / split / "photo" / f"{number}.jpg",
                tmp_path / split / "label" / f"{number}.png",
                list(range(12)),
                number=number,
            )
    dataset = open_dataset("facades", tmp_path)
    assert sizes(dataset) == {"train": 3, "val": 2}
    sample = dataset.samples("train")[1]
    assert np.array_equal(dataset.read_label(sample), raw(dataset, sample))
    painted = open_dataset("facades-pictures", tmp_path)
    assert painted.label_domain.kind == "picture"
    colours = [row.color for row in shipped("facades").rows]
    slow = np.array([[colours[value] for value in row] for row in raw(dataset, sample)], np.uint8)
    assert np.array_equal(painted.read_label(sample), slow)
    assert np.array_equal(painted.read_photo(sample), dataset.read_photo(sample))
    assert painted.digest(sample, "label") == dataset.digest(sample, "label")


def test_a_class_table_beside_the_facades_comes_before_the_shipped_one(tmp_path):
    publishers.pair(tmp_path / "train/photo/1.jpg", tmp_path / "train/label/1.png", [0, 5])
    (tmp_path / "classes.csv").write_text("id,name,r,g,b,ignore\n0,wall,9,9,9,0\n5,hole,200,0,0,0\n")
    assert open_dataset("facades", tmp_path).label_domain.classes.names == ("wall", "hole")


def test_facades_are_read_from_the_a_b_files_of_pix2pix(tmp_path):
    colours = np.array([row.color for row in shipped("facades").rows], np.uint8)
    ids = np.repeat(np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4), 32, 0), 32, 1)
    photo = photo_of(3, height=96, width=128)
    for split in ("train", "val", "test"):
        write(tmp_path / split / "1.jpg", np.concatenate([photo, colours[ids]], 1), quality=92)
    dataset = open_dataset("facades", tmp_path)
    assert sizes(dataset) == {"train": 1, "val": 1, "test": 1}
    sample = dataset.samples("train")[0]
    assert (sample.photo, sample.label) == ("train/1.jpg", "train/1.jpg")
    found = dataset.read_label(sample)
    inside = np.zeros_like(ids, bool)
    for top, left in itertools.product(range(0, 96, 32), range(0, 128, 32)):
        inside[top + 8 : top + 24, left + 8 : left + 24] = True
    assert np.array_equal(found[inside], ids[inside])  # away from edges every pixel is right
    assert ((found == ids) | (found == IGNORE)).mean() > 0.97  # at edges it is void rather than wrong
    assert np.abs(dataset.read_photo(sample).astype(int) - photo).mean() < 4
    picture = open_dataset("facades-pictures", tmp_path).read_label(sample)
    assert picture.shape == (96, 128, 3)
    assert np.abs(picture.astype(int)[inside] - colours[ids][inside]).mean() < 4


@pytest.mark.parametrize(("name", "left_is"), [("maps", "photo"), ("aligned", "photo"), ("aligned-right", "label")])
def test_an_a_b_file_is_a_photo_and_a_label_side_by_side(tmp_path, name, left_is):
    dataset = open_dataset(name, publishers.aligned(tmp_path, train=11, val=2))
    assert sizes(dataset) == {"train": 11, "val": 2}
    assert dataset.label_domain.kind == "picture"
    sample = next(sample for sample in dataset.samples("train") if sample.name == "7")
    left, right = (dataset.read_photo(sample), dataset.read_label(sample))[:: 1 if left_is == "photo" else -1]
    assert left.shape == right.shape == (16, 16, 3)
    assert np.array_equal(left, np.full_like(left, 47))
    assert np.array_equal(right, np.full_like(right, 207))
    assert dataset.size(sample, "photo") == (16, 16)


def test_an_a_b_file_of_odd_width_is_refused(tmp_path):
    dataset = open_dataset("aligned", publishers.aligned(tmp_path, train=1))
    write(tmp_path / "train" / "1.jpg", photo_of(1, height=16, width=33))
    for look in (dataset.read_photo, dataset.read_label, dataset.refuse_sizes):
        with pytest.raises(UserError, match=r"1\.jpg is 33 pixels wide: .* must be even"):
            look(dataset.samples("train")[0])


def test_unaligned_folders_hold_no_pair_not_even_under_one_name(tmp_path):
    dataset = open_dataset("unaligned", publishers.horse2zebra(tmp_path))
    assert sizes(dataset) == {"train": 7, "test": 3}
    assert not any(sample.complete for split in dataset.splits for sample in dataset.samples(split))
    assert [sample.photo for sample in dataset.samples("train") if sample.photo] == [
        f"trainA/{name}.jpg" for name in ("n02381460_14", "n02381460_2", "same")
    ]
    assert len({sample.name for sample in dataset.samples("train")}) == 7
    assert dataset.label_domain.kind == "picture"
    horse, zebra = dataset.samples("train")[0], dataset.samples("train")[-1]
    assert dataset.read_photo(horse).shape == dataset.read_label(zebra).shape == (16, 24, 3)
    assert dataset.notes == ("no pairs: A is the photo side, B the label side (train 3 + 4, test 2 + 1)",)


def test_label_maps_alone_are_a_dataset_without_photos(tmp_path):
    make_folders(tmp_path / "all")
    shutil.move(tmp_path / "all" / "labels", tmp_path / "alone" / "carla")
    shutil.move(tmp_path / "all" / "classes.csv", tmp_path / "alone" / "classes.csv")
    dataset = open_dataset("labels", tmp_path / "alone")
    assert [(sample.photo, sample.label) for sample in dataset.samples("train")] == [
        (None, f"carla/street{number}.png") for number in range(4)
    ]
    shutil.rmtree(tmp_path / "alone" / "carla")
    with pytest.raises(
        UserError, match=r"holds no pictures .*label maps \(NAME\.png, in any sub-folder\) and classes\.csv"
    ):
        open_dataset("labels", tmp_path / "alone")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "cityscapes",
            r"leftImg8bit/train is missing; cityscapes expects a root that holds .*/CITY/\*_gtFine_labelIds\.png",
        ),
        ("cityscapes-34", r"leftImg8bit/train is missing; cityscapes-34 expects"),
        ("ade20k", r"images/training is missing; ade20k expects .*annotations/training/ADE_train_\*\.png"),
        (
            "coco-stuff",
            r"images/train2017 is missing; coco-stuff expects .*train_label/\*\.png.*stuffthingmaps_trainval2017",
        ),
        ("facades", r"train is missing; facades expects .*train/label/NAME\.png, or pix2pix's train/NAME\.jpg"),
        ("facades-pictures", r"train is missing; facades-pictures expects"),
        ("maps", r"train is missing; maps expects .*photo and label side by side"),
        ("aligned", r"train is missing; aligned expects"),
        ("aligned-right", r"train is missing; aligned-right expects"),
        ("unaligned", r"trainA is missing; unaligned expects .*trainB/NAME\.jpg"),
        ("labels", r"classes\.csv is missing; labels expects"),
    ],
)
def test_a_wrong_root_is_answered_with_the_layout(tmp_path, name, sentence):
    with pytest.raises(UserError, match=sentence):
        open_dataset(name, tmp_path)
    with pytest.raises(UserError, match=r"--root .*nowhere: there is no such folder"):
        open_dataset(name, tmp_path / "nowhere")
    with pytest.raises(UserError, match="needs --root FOLDER"):
        open_dataset(name, None)


TABLES = {
    "cityscapes": (19, 34),
    "cityscapes-34": (33, 34),
    "ade20k": (150, 151),
    "coco-stuff": (182, 183),
    "facades": (12, 12),
}
"""How many classes count, and how many rows there are."""


@pytest.mark.parametrize(("name", "counts"), TABLES.items())
def test_a_shipped_table_has_its_classes_and_every_colour_once(name, counts):
    classes = shipped(name)
    assert (classes.count, len(classes.rows)) == counts
    assert len({row.color for row in classes.rows}) == len(classes.rows)


@pytest.mark.parametrize(
    ("name", "identity", "called", "colour"),
    [
        ("cityscapes", 7, "road", (128, 64, 128)),
        ("cityscapes", 33, "bicycle", (119, 11, 32)),
        ("cityscapes-34", 29, "caravan", (0, 0, 90)),
        ("ade20k", 1, "wall", (120, 120, 120)),
        ("ade20k", 13, "person", (150, 5, 61)),
        ("ade20k", 150, "flag", (92, 0, 255)),
        ("coco-stuff", 0, "person", (128, 0, 0)),
        (
            "coco-stuff",
            91,
            "banner",
            (96, 64, 128),
        ),  # 92 is 0b01011100: red takes its bits 0, 3, 6, green 1, 4, 7, blue 2, 5
        ("coco-stuff", 181, "wood", None),
        ("coco-stuff", 255, "unlabeled", (0, 0, 0)),
        ("facades", 2, "window", (0, 128, 255)),
    ],
)
def test_a_shipped_table_says_what_the_publisher_says(name, identity, called, colour):
    row = next(row for row in shipped(name).rows if row.id == identity)
    assert row.name == called
    assert colour in (None, row.color)
    assert row.ignore == (called == "unlabeled")
