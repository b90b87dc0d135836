"""`fewpair check` and the check before a training, and a first step on datasets of each shape."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer import publishers
from tests.trainer.factories import tiny_method
from tests.trainer.folders import TINY, ids_of, make_folders, open_folders, photo_of, said, write
from trainer.__main__ import main
from trainer.data.check import check, check_selection
from trainer.data.selection.choose import select
from trainer.errors import UserError
from trainer.training.batches import required_samples


def test_a_label_of_another_size_is_refused_before_training(tmp_path, capsys):
    make_folders(tmp_path / "own", count=3)
    write(tmp_path / "own" / "labels" / "street1.png", ids_of(1, height=10))
    refusal = said(capsys, *train_on(tmp_path / "own", tmp_path))
    assert "street1.png is 10x30 (height x width), but its photo photos/street1.jpg is 20x30" in refusal
    assert not (tmp_path / "run").exists()


def test_a_photo_that_cannot_be_read_is_refused_before_training(tmp_path, capsys):
    make_folders(tmp_path / "own", count=4)
    (tmp_path / "own" / "photos" / "street2.jpg").write_bytes(b"no picture")
    words = ("train", "cyclegan-compact", "--data=folders", f"--root={tmp_path}/own", "--steps=1", *TINY, "--pairs=0")
    refusal = said(capsys, *words, "--unpaired=all", "--out", str(tmp_path / "run"))
    assert "street2.jpg: the file is not an image" in refusal
    assert "more files have the same problem" not in refusal
    assert not (tmp_path / "run").exists()


def trained(root: Path, tmp_path: Path, recipe: str, data: str, *more: str) -> Path:
    out = tmp_path / "run"
    assert (
        main(["train", recipe, "--data", data, "--root", str(root), "--steps=1", *TINY, "--out", str(out), *more]) == 0
    )
    assert list((out / "samples").glob("*.png"))
    return out


def test_a_step_on_aligned_pictures_with_pix2pix(tmp_path):
    root = publishers.aligned(tmp_path / "maps", train=2, val=1)
    trained(root, tmp_path, "pix2pix-compact-colours", "maps", "--pairs", "2", "--unpaired", "0")


def test_a_step_on_unaligned_pictures_with_cyclegan_and_what_to_do_next(tmp_path, capsys):
    root = publishers.horse2zebra(tmp_path / "horses")
    out = trained(root, tmp_path, "cyclegan-compact-colours", "unaligned", "--pairs", "0", "--unpaired", "all")
    assert f"Next: fewpair export {out}" in capsys.readouterr().out


def test_all_label_maps_that_a_method_reads_are_checked_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.check.DECODED", 1)
    own = open_folders(make_folders(tmp_path, count=4))
    selection = select(own, k=3, unpaired=4, seed=0)
    check_selection(selection, void=False)
    (other,) = set(selection.unpaired_labels) - set(selection.pairs)
    write(tmp_path / other.label, np.full((20, 30), 44, np.uint8))
    check_selection(required_samples(tiny_method("mean_teacher"), selection), void=False)
    late = selection.pairs[2]
    write(tmp_path / late.photo, photo_of(0, height=30))
    for problem in (f"{late.label} is 20x30", f"{other.label}: the label map holds ids that belong to no class: 44"):
        with pytest.raises(UserError, match=re.escape(problem)):
            check_selection(selection, void=False)


def test_val_is_checked_before_training_too(tmp_path, capsys):
    make_folders(tmp_path / "own", count=3)
    make_folders(tmp_path / "own", count=2, split="val")
    write(tmp_path / "own" / "val" / "labels" / "street1.png", np.full((20, 30), 40, np.uint8))
    words = train_on(tmp_path / "own", tmp_path)
    assert "val/labels/street1.png: the label map holds ids that belong to no class: 40" in said(capsys, *words)
    assert not (tmp_path / "run").exists()


def test_a_sheet_that_is_no_png_and_a_pairs_file_that_is_a_folder_are_refused(tmp_path, capsys):
    own = str(make_folders(tmp_path / "own"))
    assert "--out sheet: give a .png file" in said(capsys, "check", own, "--out", "sheet")
    words = ("pairs", "--data", "folders", "--root", own, "--k", "2", "--out")
    assert "is a folder: name a file, as in pairs.json" in said(capsys, *words, ".")


BINARY = "id,name,r,g,b,ignore\n0,background,0,0,0,0\n1,road,255,255,255,0\n"


def masks(root: Path, values: tuple[int, int], *, table: str = BINARY, count: int = 3) -> Path:
    """Photos with masks of two values."""
    make_folders(root, count=0, table=table)
    for number in range(count):
        write(root / "photos" / f"{number}.png", photo_of(number))
        write(root / "labels" / f"{number}.png", np.where(ids_of(number) < 5, *values).astype(np.uint8))
    return root


def train_on(root: Path, tmp_path: Path, *more: str) -> list[str]:
    words = ["train", "supervised-compact", "--data=folders", f"--root={root}", "--pairs=all", "--unpaired=0"]
    return [*words, "--steps=1", *TINY, "--out", str(tmp_path / "run"), *more]


def test_a_mask_of_0_and_255_never_loses_its_class_silently(tmp_path, capsys):
    unknown = masks(tmp_path / "a", (0, 255))
    refusal = said(capsys, *train_on(unknown, tmp_path))
    assert refusal.count("belong to no class: 255") == 1
    assert "(2 more files have the same problem)" in refusal
    assert refusal.count("If 255 is a class (a mask of 0 and 255), write that class's id.") == 1
    for number, void in enumerate(("9,void,1,1,1,1\n", "255,void,1,1,1,1\n")):
        root = masks(tmp_path / str(number), (0, 255), table=BINARY + void)
        refusal = said(capsys, *train_on(root, tmp_path))
        assert "road occurs in no label map; the value 255, which is read as void, is in " in refusal
        assert "if 255 is meant to be a class, write that class's id instead" in refusal
        assert not (tmp_path / "run").exists()
    one = root / "labels" / "1.png"
    write(one, np.asarray(Image.open(one)) // 255)  # a right one among wrong ones
    assert "road is in no label map that holds 255 (" in said(capsys, *train_on(root, tmp_path))
    one.unlink()
    assert "--void 0: give 255" in said(capsys, *train_on(root, tmp_path, "--void", "0"))
    assert main(train_on(root, tmp_path, "--void", "255")) == 0
    assert "warning: road occurs in no label map" in capsys.readouterr().out
    assert check(open_folders(masks(tmp_path / "c", (0, 1))), (), decoded=None).class_problems(void=False) == ([], [])


def test_a_table_of_one_class_is_refused_until_the_rest_is_confirmed_as_void(tmp_path, capsys):
    table = "id,name,r,g,b,ignore\n0,road,128,64,128,0\n255,void,0,0,0,1\n"
    root = masks(tmp_path / "own", (0, 255), table=table)
    refusal = said(capsys, *train_on(root, tmp_path))
    assert "road is the only class of the table, so every pixel is road or void" in refusal
    own = check(open_folders(root), (), decoded=None)
    own.pixels[:] = 5
    assert own.class_problems(void=True) == ([], [])


def indexed(root: Path, *palette: int) -> Path:
    make_folders(root, count=3, table=BINARY)
    for number in range(3):
        image = Image.fromarray((ids_of(number) < 5).astype(np.uint8))
        image.putpalette(palette)
        image.save(root / "labels" / f"street{number}.png")
    return root


def test_an_indexed_label_in_other_colours_is_read_by_its_indices_with_a_warning(tmp_path, capsys):
    root = indexed(tmp_path / "own", 128, 0, 0, 0, 128, 0)
    warning = "warning: 3 label maps are indexed images whose palette lacks colours of the class table"
    for words in (["check", str(root)], train_on(root, tmp_path)):
        assert main(words) == 0
        assert warning in capsys.readouterr().out
    assert main(["check", str(indexed(tmp_path / "sound", 0, 0, 0, 255, 255, 255))]) == 0
    assert "warning" not in capsys.readouterr().out


def test_check_reports_every_problem_at_once(tmp_path, capsys):
    root = make_folders(tmp_path / "own", count=6)
    write(root / "labels" / "street1.png", ids_of(1, height=10))
    (root / "photos" / "street2.jpg").write_bytes(b"no picture")
    Image.fromarray(ids_of(3)).save(root / "labels" / "street3.jpg")
    (root / "labels" / "street3.png").unlink()
    write(root / "labels" / "street4.png", np.full((20, 30), 99, np.uint8))
    (root / "photos" / "raw.cr2").write_bytes(b"x")
    write(root / "labels" / "street5.png", np.full((20, 30), 98, np.uint8))
    shutil.copy(root / "photos" / "street0.jpg", root / "photos" / "copy.jpg")
    assert main(["check", str(root), "--out", str(tmp_path / "sheet.png")]) == 1
    report = capsys.readouterr().out
    for problem in (
        "files of types that cannot be read were ignored: 1 .cr2",
        "street1.png is 10x30 (height x width)",
        "street2.jpg: the file is not an image",
        "street3.jpg: JPEG files cannot hold the classes",
        "belong to no class: 99 (600 pixels",
        f"(1 more file has the same problem: {root}/labels/street5.png)",
        "1 pair of near-duplicate photos: photos/copy.jpg and photos/street0.jpg",
        "4 errors",
    ):
        assert problem in report, problem
    assert re.search(r"road +\d+\.\d+ %", report)
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = set(map(tuple, np.unique(np.asarray(sheet).reshape(-1, 3), axis=0).tolist()))
    assert {(128, 128, 128), (128, 64, 128), (64, 0, 128)} <= colours  # the legend


def test_check_of_a_sound_folder_has_no_errors(tmp_path, capsys):
    assert main(["check", str(make_folders(tmp_path / "own"))]) == 0
    assert "no errors" in capsys.readouterr().out
