"""Datasets are listed, decoded and checked as their files are, and every fault is reported with its file."""

import os
import re
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.odd_files import DOMAIN, LABELS, PHOTOS
from tests.trainer.folders import TABLE, camvid, first, ids_of, make_folders, open_folders, photo_of, write
from trainer.batch import IGNORE, Classes
from trainer.data.catalogue import open_dataset
from trainer.data.class_table import class_rows, read_classes
from trainer.data.layouts import files
from trainer.errors import BrokenFile, UserError


def test_photos_and_labels_are_paired_by_their_stem(tmp_path):
    dataset = open_folders(make_folders(tmp_path, count=3))
    assert [(sample.name, sample.photo, sample.label) for sample in dataset.samples("train")] == [
        (f"street{number}", f"photos/street{number}.jpg", f"labels/street{number}.png") for number in range(3)
    ]


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


def test_photos_without_labels_and_labels_without_photos_are_kept_and_counted(tmp_path):
    make_folders(tmp_path)
    (tmp_path / "labels" / "street0.png").unlink()
    (tmp_path / "photos" / "street3.jpg").unlink()
    dataset = open_folders(tmp_path)
    assert dataset.samples("train")[0].label is None
    assert dataset.samples("train")[3].photo is None
    note = "train: 2 pairs, 1 other photo, 1 other label map, by their names (photos: street0; label maps: street3)"
    assert note in dataset.notes


def test_photos_of_one_stem_are_refused_all_at_once(tmp_path):
    make_folders(tmp_path)
    for number in (1, 2):
        write(tmp_path / "photos" / f"street{number}.png", photo_of(number))
    clashes = [rf"photos/street{number}\.jpg and photos/street{number}\.png" for number in (1, 2)]
    with pytest.raises(UserError, match=f"{', '.join(clashes)} share a name"):
        open_folders(tmp_path)


def test_missing_folders_are_answered_with_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"photos is missing.*photos/NAME\.jpg, labels/NAME\.png and classes\.csv"):
        open_folders(tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        open_folders(tmp_path / "nowhere")
    with pytest.raises(UserError, match="needs --root FOLDER"):
        open_dataset("folders", None)


def test_pictures_beside_a_train_folder_are_not_used_with_a_note(tmp_path):
    make_folders(tmp_path, split="train")
    make_folders(tmp_path, count=1)
    dataset = open_folders(tmp_path)
    assert len(dataset.samples("train")) == 4
    assert any(str(tmp_path / "photos") in note and "not used" in note for note in dataset.notes)


def test_a_missing_class_table_is_answered_with_its_first_line(tmp_path):
    with pytest.raises(UserError, match=r"classes\.csv is missing.*id,name,r,g,b,ignore"):
        open_folders(make_folders(tmp_path, table=None))


def test_an_id_outside_the_table_names_the_file_and_the_value(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    ids = ids_of(0)
    ids[2:4, 0] = 151
    write(tmp_path / "labels" / "street0.png", ids)
    with pytest.raises(UserError, match=r"street0\.png: .* ids that belong to no class: 151 \(2 pixels, first at"):
        dataset.read_label(first(dataset))


def test_a_label_of_another_size_than_its_photo_names_both_sizes(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    write(tmp_path / "labels" / "street0.png", ids_of(0, height=10))
    with pytest.raises(UserError, match=r"street0\.png is 10x30 .* photo photos/street0\.jpg is 20x30"):
        dataset.read_label(first(dataset))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("id,name,r,g\n0,sky,1,2\n", "line 1: the column b is missing"),
        (TABLE + "3,lane,1,2,3,0\n", r"line 6: id 3 is already taken by road"),
        (TABLE + "4,road,1,2,3,0\n", r"line 6: name 'road' is already taken"),
        (TABLE + "4,lane,0,0,0,0\n", r"line 6: colour \(0, 0, 0\) is already taken by void"),
        (TABLE + "255,lane,1,2,3,0\n", "line 6: lane has the id 255, which means not labelled"),
        (TABLE.replace(",", ";"), "separates its columns by semicolons, but a class table needs commas"),
        (TABLE + "256,lane,1,2,3,0\n", "line 6: id is '256'"),
        (TABLE + "4,lane,1,2,-3,0\n", "line 6: b is '-3'"),
        (TABLE + "4,lane,1,2,x,0\n", "line 6: b is 'x'"),
        (TABLE + "4,lane,1,2,3,maybe\n", "line 6: ignore is 'maybe'"),
        (TABLE + "4,,1,2,3,0\n", "line 6: the class has no name"),
        ("id,name,r,g,b,ignore\n0,void,0,0,0,1\n", "has no class that is not ignored"),
    ],
)
def test_a_fault_in_the_class_table_names_its_line(tmp_path, table, complaint):
    path = tmp_path / "classes.csv"
    path.write_text(table)
    with pytest.raises(UserError, match=complaint):
        read_classes(path)


def test_a_class_table_that_is_not_utf_8_names_the_character(tmp_path):
    (tmp_path / "classes.csv").write_bytes((TABLE + "4,Straße,1,2,3,0\n").encode("latin-1"))
    with pytest.raises(UserError, match=r"is not UTF-8 \(it holds 'ß' as in Latin-1"):
        read_classes(tmp_path / "classes.csv")


@pytest.mark.parametrize("file", [*PHOTOS, *LABELS], ids=str)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_odd_files_are_read_as_the_server_reads_them(tmp_path, file):
    side = "photos" if file in PHOTOS else "labels"
    make_folders(tmp_path, count=0, table=class_rows(Classes(DOMAIN.classes)))
    for folder in ("photos", "labels"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "photos" / "other.png", photo_of(0))
    (tmp_path / side / file.name).write_bytes(file.content)
    dataset = open_folders(tmp_path)
    sample = next(sample for sample in dataset.samples("train") if sample.name != "other")
    read = dataset.read_photo if side == "photos" else dataset.read_label
    if isinstance(file.expected, str):
        with pytest.raises(UserError, match=re.escape(file.name)):
            read(sample)
    elif side == "photos":
        assert np.array_equal(read(sample), file.expected)
        assert dataset.size(sample, "photo") == file.expected.shape[:2]
    else:
        assert np.array_equal(read(sample), dataset.label_domain.classes.id_to_index()[file.expected])


def test_names_in_either_unicode_form_pair(tmp_path):
    make_folders(tmp_path, count=1)
    (tmp_path / "photos" / "street0.jpg").rename(tmp_path / "photos" / unicodedata.normalize("NFD", "café.jpg"))
    (tmp_path / "labels" / "street0.png").rename(tmp_path / "labels" / unicodedata.normalize("NFC", "café.png"))
    sample = first(open_folders(tmp_path))
    assert sample.complete
    assert sample.name == "café"


def test_files_of_other_types_are_counted_by_type(tmp_path):
    make_folders(tmp_path)
    for name in ("a.cr2", "b.CR2", "c.psd", "notes.txt", ".hidden.psd"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    note = "files of types that cannot be read were ignored: 2 .cr2, 1 .psd"
    assert note in open_folders(tmp_path).notes
    (tmp_path / "labels").rename(tmp_path / "trainB")
    (tmp_path / "photos").rename(tmp_path / "trainA")
    assert note in open_dataset("unaligned", tmp_path).notes


def test_heic_photos_are_named_as_ignored_without_their_plugin_and_read_with_it(tmp_path, monkeypatch, heif_plugin):
    make_folders(tmp_path)
    photo = photo_of(9)
    write(tmp_path / "photos" / "phone.png", photo)
    (tmp_path / "photos" / "phone.png").rename(tmp_path / "photos" / "phone.HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    files.reads_heif.cache_clear()
    assert any("1 .heic (install pillow-heif to read HEIC)" in note for note in open_folders(tmp_path).notes)
    monkeypatch.setitem(sys.modules, "pillow_heif", heif_plugin)
    files.reads_heif.cache_clear()
    dataset = open_folders(tmp_path)
    sample = next(each for each in dataset.samples("train") if each.name == "phone")
    assert np.array_equal(dataset.read_photo(sample), photo)
    files.reads_heif.cache_clear()


def test_a_table_with_index_and_without_ignore_ignores_its_void_row(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("index,name,r,g,b\n0,sky,1,2,3\n11,void,0,0,0\n")
    classes = read_classes(path)
    assert classes.names == ("sky",)
    assert [row.ignore for row in classes.rows] == [False, True]


def test_the_size_that_a_label_must_have_is_that_of_the_upright_photo(tmp_path):
    make_folders(tmp_path, count=1)
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(photo_of(0)).transpose(Image.Transpose.ROTATE_90).save(
        tmp_path / "photos" / "street0.jpg", exif=tag
    )
    dataset = open_folders(tmp_path)
    assert dataset.read_label(first(dataset)).shape == dataset.read_photo(first(dataset)).shape[:2] == (20, 30)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_broken_file_is_reported_with_its_path(tmp_path, damage):
    dataset = open_folders(make_folders(tmp_path))
    path = tmp_path / "photos" / "street0.jpg"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"not a picture"}[damage])
    with pytest.raises(BrokenFile, match=r"photos/street0\.jpg"):
        dataset.read_photo(first(dataset))


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
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {
        "train": 367,
        "val": 51,
        "devtest": 62,
    }
    classes = dataset.label_domain.classes
    assert classes is not None
    assert classes.count == 11
    assert "non-commercial" in dataset.terms
    label = dataset.read_label(first(dataset))
    assert label.shape == (360, 480)
    assert set(np.unique(label)) <= {*range(11), IGNORE}


def test_a_name_that_is_not_utf_8_is_refused_and_a_link_to_nothing_is_reported(tmp_path):
    make_folders(tmp_path, count=2)
    (tmp_path / "photos" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "labels")
    dataset = open_folders(tmp_path)
    assert "files of types that cannot be read were ignored: 1 that link to a folder" in dataset.notes
    gone = next(sample for sample in dataset.samples("train") if sample.name == "gone")
    with pytest.raises(BrokenFile, match=r"gone\.jpg: the file cannot be read"):
        dataset.read_photo(gone)
    Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/stra\xdfe.jpg")).write_bytes(b"")
    with pytest.raises(UserError, match=r"the file name 'stra\\udcdfe\.jpg' is not UTF-8"):
        open_folders(tmp_path)
