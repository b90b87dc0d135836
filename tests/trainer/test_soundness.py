"""What is found before any training starts, and a first step on datasets of each shape."""

import re
from pathlib import Path

import pytest

from tests.trainer import publishers
from tests.trainer.folders import ids_of, make_folders, open_folders, photo_of, write
from trainer.__main__ import main
from trainer.data import soundness
from trainer.data.pairs import select
from trainer.errors import UserError

TINY = ("--size", "32x32", "--steps", "1", "--config.width", "4", "--config.blocks", "1", "--device", "cpu", "--threads", "1")


def said(capsys, *words: str) -> str:
    """What a refused command prints."""
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_a_label_of_another_size_is_refused_before_training(tmp_path, capsys):
    make_folders(tmp_path / "own", count=3)
    write(tmp_path / "own" / "labels" / "street1.png", ids_of(1, height=10))
    words = ("train", "hybrid-compact", "--data", "folders", "--root", str(tmp_path / "own"), *TINY, "--pairs", "1", "--unpaired", "all")
    assert "street1.png is 10x30 (height x width), but its photo photos/street1.jpg is 20x30" in said(
        capsys, *words, "--out", str(tmp_path / "run")
    )
    assert not (tmp_path / "run").exists()


def test_a_photo_that_cannot_be_read_is_refused_before_training_or_skipped(tmp_path, capsys):
    make_folders(tmp_path / "own", count=4)
    (tmp_path / "own" / "photos" / "street2.jpg").write_bytes(b"no picture")
    words = ("train", "cyclegan-compact", "--data", "folders", "--root", str(tmp_path / "own"), *TINY, "--pairs", "0", "--unpaired", "all")
    assert "street2.jpg cannot be read as a picture" in said(capsys, *words, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    assert main([*words, "--skip-broken", "--out", str(tmp_path / "run")]) == 0


def test_a_class_outside_the_table_in_a_pair_is_refused_before_training(tmp_path, capsys):
    make_folders(tmp_path / "own", count=1)
    ids = ids_of(0)
    ids[0, 0] = 151
    write(tmp_path / "own" / "labels" / "street0.png", ids)
    words = ("train", "supervised-compact", "--data", "folders", "--root", str(tmp_path / "own"), *TINY, "--pairs", "1", "--unpaired", "0")
    assert "street0.png holds class 151 (1 pixels)" in said(capsys, *words, "--out", str(tmp_path / "run"))


def trained(root: Path, tmp_path: Path, recipe: str, data: str, *more: str) -> Path:
    out = tmp_path / "run"
    assert main(["train", recipe, "--data", data, "--root", str(root), *TINY, "--out", str(out), *more]) == 0
    assert list((out / "samples").glob("*.png"))
    return out


def test_a_step_on_ade20k(tmp_path):
    trained(publishers.ade20k(tmp_path / "ade"), tmp_path, "hybrid-compact", "ade20k", "--pairs", "2", "--unpaired", "all")


def test_a_step_on_aligned_pictures_with_pix2pix(tmp_path):
    trained(
        publishers.aligned(tmp_path / "maps", train=2, val=1),
        tmp_path,
        "pix2pix-compact-colours",
        "maps",
        "--pairs",
        "2",
        "--unpaired",
        "0",
    )


def test_a_step_on_unaligned_pictures_with_cyclegan_and_what_to_do_next(tmp_path, capsys):
    root = publishers.horse2zebra(tmp_path / "horses")
    out = trained(root, tmp_path, "cyclegan-compact-colours", "unaligned", "--pairs", "0", "--unpaired", "all")
    assert f"Next: fewpair export {out}" in capsys.readouterr().out


def test_a_label_of_the_size_of_another_picture_is_found_by_the_heads_of_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(soundness, "READ_WHOLE", 1)
    own = open_folders(make_folders(tmp_path, count=4))
    selection = select(own, k=4, unpaired=0, seed=0)
    soundness.refuse_unsound(own, selection.streams(own))
    late = selection.pairs[2]
    write(tmp_path / late.photo, photo_of(0, height=30))
    with pytest.raises(UserError, match=re.escape(f"{late.label} is 20x30")):
        soundness.refuse_unsound(own, selection.streams(own))
