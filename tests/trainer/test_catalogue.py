"""Datasets are listed, decoded and checked as their files are, and every fault is told with its file."""

import io
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.trainer.folders import COLOURS, TABLE, camvid, first, ids_of, make_folders, open_folders, photo_of, write
from trainer.batch import IGNORE
from trainer.data.catalogue import CATALOGUE, open_dataset, read_classes
from trainer.data.decode import BrokenFile, read_photo
from trainer.errors import UserError


def indices(ids: np.ndarray) -> np.ndarray:
    """The slow reference: raw ids to class indices, one id at a time."""
    expected = np.full(ids.shape, IGNORE, np.uint8)
    for index, raw in enumerate((0, 3, 7)):
        expected[ids == raw] = index
    return expected


def coloured(ids: np.ndarray) -> np.ndarray:
    """The label map in the colours of its classes."""
    return np.array([COLOURS[int(value)] for value in ids.flat], np.uint8).reshape(*ids.shape, 3)


def grey_png(ids: np.ndarray, *, bits: int) -> bytes:
    """A greyscale PNG of few bits, written by hand: Pillow reads such files but does not write them."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = ids.shape
    rows = b"".join(b"\0" + bytes(int(a) << 4 | int(b) for a, b in zip(row[::2], row[1::2], strict=True)) for row in ids)
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    Image.open(io.BytesIO(data)).verify()
    return data


def test_photos_and_labels_are_paired_by_their_stem(tmp_path):
    dataset = open_folders(make_folders(tmp_path, count=3))
    assert [(sample.name, sample.photo, sample.label) for sample in dataset.samples("train")] == [
        (f"street{number}", f"photos/street{number}.jpg", f"labels/street{number}.png") for number in range(3)
    ]


def test_raw_ids_become_class_indices_and_void_becomes_ignore(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    ids = ids_of(0)
    ids[0, 0] = 255
    write(tmp_path / "labels" / "street0.png", ids)
    assert np.array_equal(dataset.read_label(first(dataset)), indices(ids))


def test_sub_folders_are_splits_when_there_is_one_called_train(tmp_path):
    make_folders(tmp_path, count=3, split="train")
    make_folders(tmp_path, count=2, split="val")
    dataset = open_folders(tmp_path)
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 3, "val": 2}
    assert dataset.samples("val")[1].label == "val/labels/street1.png"


def test_a_val_folder_may_stand_beside_photos_and_labels(tmp_path):
    make_folders(tmp_path, count=3)
    make_folders(tmp_path, count=2, split="val")
    assert {split: len(samples) for split, samples in open_folders(tmp_path).splits.items()} == {"train": 3, "val": 2}


def test_an_unknown_split_is_answered_with_the_splits_that_exist(tmp_path):
    with pytest.raises(UserError, match=r"no split 'test'; it has train"):
        open_folders(make_folders(tmp_path)).samples("test")


def test_photos_without_labels_and_labels_without_photos_are_kept_and_counted(tmp_path):
    make_folders(tmp_path)
    (tmp_path / "labels" / "street0.png").unlink()
    (tmp_path / "photos" / "street3.jpg").unlink()
    dataset = open_folders(tmp_path)
    assert dataset.samples("train")[0].label is None
    assert dataset.samples("train")[3].photo is None
    assert "train: 2 pairs, 1 photo without a label, 1 label without a photo" in dataset.notes


def test_two_photos_of_one_stem_are_refused(tmp_path):
    make_folders(tmp_path)
    write(tmp_path / "photos" / "street1.png", photo_of(1))
    with pytest.raises(UserError, match=r"photos/street1\.jpg and photos/street1\.png share the name street1"):
        open_folders(tmp_path)


def test_missing_folders_are_answered_with_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"photos is missing.*photos/NAME\.jpg, labels/NAME\.png and classes\.csv"):
        open_folders(tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        open_folders(tmp_path / "nowhere")
    with pytest.raises(UserError, match="needs --root FOLDER"):
        open_dataset("folders", None)


def test_photos_alone_are_a_dataset_in_which_nothing_is_labelled_yet(tmp_path):
    make_folders(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    dataset = open_folders(tmp_path)
    assert [sample.label for sample in dataset.samples("train")] == [None] * 4
    assert dataset.notes == ("train: 0 pairs, 4 photos without a label, 0 labels without a photo",)


def test_pictures_beside_a_train_folder_are_not_used_and_it_is_said(tmp_path):
    make_folders(tmp_path, split="train")
    make_folders(tmp_path, count=1)
    dataset = open_folders(tmp_path)
    assert len(dataset.samples("train")) == 4
    assert any(str(tmp_path / "photos") in note and "not used" in note for note in dataset.notes)


def test_a_missing_class_table_is_answered_with_its_first_line(tmp_path):
    with pytest.raises(UserError, match=r"classes\.csv is missing.*id,name,r,g,b,ignore"):
        open_folders(make_folders(tmp_path, table=None))


def test_an_unknown_dataset_is_answered_with_those_that_exist():
    with pytest.raises(UserError, match=", ".join(CATALOGUE)):
        open_dataset("cityscape", None)


def test_an_id_outside_the_table_names_the_file_and_the_value(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    ids = ids_of(0)
    ids[2:4, 0] = 151
    write(tmp_path / "labels" / "street0.png", ids)
    with pytest.raises(UserError, match=r"street0\.png holds class 151 \(2 pixels\)"):
        dataset.read_label(first(dataset))


def test_a_label_of_another_size_than_its_photo_names_both_sizes(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    write(tmp_path / "labels" / "street0.png", ids_of(0, height=10))
    with pytest.raises(UserError, match=r"street0\.png is 10x30 .* photo photos/street0\.jpg is 20x30"):
        dataset.read_label(first(dataset))


def test_palette_colours_are_detected_stated_and_read(tmp_path):
    make_folders(tmp_path)
    for number in range(4):
        write(tmp_path / "labels" / f"street{number}.png", coloured(ids_of(number)))
    dataset = open_folders(tmp_path)
    assert dataset.label_spelling == "colours"
    assert "label files hold palette colours" in dataset.notes
    assert np.array_equal(dataset.read_label(first(dataset)), indices(ids_of(0)))


def test_ids_are_detected_and_stated(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    assert dataset.label_spelling == "ids"
    assert "label files hold class ids" in dataset.notes


@pytest.mark.parametrize("indexed_as", ["ids", "colours"])
def test_an_indexed_png_holds_ids_if_the_table_knows_them_else_its_palette_counts(tmp_path, indexed_as):
    make_folders(tmp_path)
    for number in range(4):
        ids = ids_of(number)
        positions = ids if indexed_as == "ids" else np.searchsorted([0, 3, 7, 9], ids).astype(np.uint8) + 40
        palette = np.full((256, 3), 200, np.uint8)
        if indexed_as == "colours":
            palette[40:44] = [COLOURS[value] for value in (0, 3, 7, 9)]
        image = Image.fromarray(positions, mode=None).convert("L")
        image.putpalette(palette.tobytes())
        image.save(tmp_path / "labels" / f"street{number}.png")
    dataset = open_folders(tmp_path)
    assert dataset.label_spelling == indexed_as
    assert np.array_equal(dataset.read_label(first(dataset)), indices(ids_of(0)))


def test_label_files_that_disagree_in_spelling_are_refused(tmp_path):
    make_folders(tmp_path)
    write(tmp_path / "labels" / "street1.png", coloured(ids_of(1)))
    with pytest.raises(UserError, match=r"street0\.png holds class ids, but .*street1\.png holds palette colours"):
        open_folders(tmp_path)


def test_a_colour_outside_the_table_names_file_colour_count_and_nearest_class(tmp_path):
    make_folders(tmp_path)
    for number in range(4):
        picture = coloured(ids_of(number))
        picture[0, :3] = (66, 2, 126)
        write(tmp_path / "labels" / f"street{number}.png", picture)
    dataset = open_folders(tmp_path)
    with pytest.raises(UserError, match=r"street0\.png holds colour \(66, 2, 126\) in 3 pixels.* nearest is car \(64, 0, 128\)"):
        dataset.read_label(first(dataset))


def test_ids_may_be_written_with_16_bits_or_with_4(tmp_path):
    make_folders(tmp_path)
    dataset = open_folders(tmp_path)
    write(tmp_path / "labels" / "street0.png", ids_of(0).astype(np.uint16))
    assert np.array_equal(dataset.read_label(first(dataset)), indices(ids_of(0)))
    (tmp_path / "labels" / "street0.png").write_bytes(grey_png(ids_of(0), bits=4))
    assert np.array_equal(dataset.read_label(first(dataset)), indices(ids_of(0)))


def test_a_16_bit_id_beyond_255_is_refused_with_its_value(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    ids = ids_of(0).astype(np.uint16)
    ids[0, 0] = 700
    write(tmp_path / "labels" / "street0.png", ids)
    with pytest.raises(UserError, match="holds class 700"):
        dataset.read_label(first(dataset))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("id,name,r,g\n0,sky,1,2\n", "line 1: the column b is missing"),
        (TABLE + "3,lane,1,2,3,0\n", r"line 6: id 3 is already taken by road"),
        (TABLE + "4,road,1,2,3,0\n", r"line 6: name 'road' is already taken"),
        (TABLE + "256,lane,1,2,3,0\n", "line 6: id is '256'"),
        (TABLE + "4,lane,1,2,-3,0\n", "line 6: b is '-3'"),
        (TABLE + "4,lane,1,2,x,0\n", "line 6: b is 'x'"),
        (TABLE + "4,lane,1,2,3,maybe\n", "line 6: ignore is 'maybe'"),
        (TABLE + "4,,1,2,3,0\n", "line 6: the class has no name"),
        ("id,name,r,g,b,ignore\n0,void,0,0,0,1\n", "no class that counts"),
    ],
)
def test_a_fault_in_the_class_table_names_its_line(tmp_path, table, complaint):
    path = tmp_path / "classes.csv"
    path.write_text(table)
    with pytest.raises(UserError, match=complaint):
        read_classes(path)


def test_a_table_with_index_and_without_ignore_ignores_its_void_row(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("index,name,r,g,b\n0,sky,1,2,3\n11,void,0,0,0\n")
    classes = read_classes(path)
    assert classes.names == ("sky",)
    assert [row.ignore for row in classes.rows] == [False, True]


def test_a_photo_is_turned_upright_by_its_exif_tag(tmp_path):
    upright = photo_of(1, height=16, width=24)
    turned = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    tag = Image.Exif()
    tag[0x0112] = 6
    turned.save(tmp_path / "phone.png", exif=tag)
    assert np.array_equal(read_photo(tmp_path / "phone.png"), upright)


def test_the_size_that_a_label_must_have_is_that_of_the_upright_photo(tmp_path):
    make_folders(tmp_path, count=1)
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(photo_of(0)).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photos" / "street0.jpg", exif=tag)
    dataset = open_folders(tmp_path)
    assert dataset.read_label(first(dataset)).shape == dataset.read_photo(first(dataset)).shape[:2] == (20, 30)


def test_a_16_bit_photo_is_scaled_to_8_bits(tmp_path):
    values = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 100
    path = write(tmp_path / "deep.png", values)
    assert np.array_equal(read_photo(path), np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, 2))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_photos_of_every_mode_come_out_as_rgb(tmp_path, mode):
    image = Image.fromarray(photo_of(2, height=17, width=23)).convert(mode)
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    image.save(path)
    photo = read_photo(path)
    assert photo.dtype == np.uint8
    assert np.array_equal(photo, np.array(image.convert("RGB")))


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_broken_file_is_reported_with_its_path(tmp_path, damage):
    dataset = open_folders(make_folders(tmp_path))
    path = tmp_path / "photos" / "street0.jpg"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"not a picture"}[damage])
    with pytest.raises(BrokenFile, match=r"photos/street0\.jpg"):
        dataset.read_photo(first(dataset))


def test_a_picture_that_would_fill_the_memory_is_reported_with_its_path(tmp_path, monkeypatch):
    path = write(tmp_path / "huge.png", photo_of(0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BrokenFile, match=r"huge\.png"):
        read_photo(path)


def test_the_label_side_may_be_pictures(tmp_path):
    make_folders(tmp_path, table=None)
    for number in range(4):
        write(tmp_path / "labels" / f"street{number}.png", photo_of(50 + number))
    dataset = open_dataset("pictures", tmp_path)
    assert dataset.label_domain.kind == "picture"
    assert np.array_equal(dataset.read_label(first(dataset)), photo_of(50))


def test_scenes_need_no_folder_and_refuse_one(tmp_path):
    dataset = open_dataset("scenes", None)
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 500, "val": 40, "test": 100}
    assert dataset.samples("train")[12].name == "train-00012"
    assert dataset.read_photo(first(dataset)).shape == (360, 480, 3)
    assert dataset.read_label(first(dataset)).shape == (360, 480)
    with pytest.raises(UserError, match="leave out --root"):
        open_dataset("scenes", tmp_path)


def test_what_a_reader_gets_of_a_scene_is_its_own_to_change():
    dataset = open_dataset("scenes", None)
    before = dataset.read_photo(first(dataset))
    dataset.read_photo(first(dataset))[:] = 0
    assert np.array_equal(dataset.read_photo(first(dataset)), before)


def test_camvid_has_its_splits_eleven_classes_and_stated_terms():
    dataset = camvid()
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 367, "val": 51, "devtest": 62}
    classes = dataset.label_domain.classes
    assert classes is not None
    assert classes.count == 11
    assert "non-commercial" in dataset.terms
    label = dataset.read_label(first(dataset))
    assert label.shape == (360, 480)
    assert set(np.unique(label)) <= {*range(11), IGNORE}


def test_a_label_file_that_vanished_is_reported_with_its_path(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    (tmp_path / "labels" / "street0.png").unlink()
    with pytest.raises(BrokenFile, match=r"labels/street0\.png is not there"):
        dataset.read_label(first(dataset))
