"""Unpaired label maps of another dataset take the run's classes, and a run on them resumes bit for bit."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer import publishers
from tests.trainer.factories import tiny_run
from tests.trainer.folders import camvid, make_folders, open_folders, write
from trainer.__main__ import main
from trainer.batch import IGNORE
from trainer.data.borrowed import borrow, open_source, spelling
from trainer.data.catalogue import open_dataset
from trainer.data.loader import Loader
from trainer.data.pairs import Selection, select
from trainer.errors import UserError
from trainer.loop import resume, start, train
from trainer.rundir import create_run, open_run

THEIRS = "id,name,r,g,b,ignore\n1,heaven,1,1,1,0\n2,street,2,2,2,0\n4,lane,3,3,3,0\n5,dirt,4,4,4,0\n6,nothing,0,0,0,1\n"
"""Another table than that of folders.py: sky 0, road 3, car 7, void 9."""
MAP = "from,to\nheaven,sky\nstreet,road\nlane,road\ndirt,void\n"


def foreign(root: Path, *, count: int = 3, table: str = THEIRS) -> Path:
    """Label maps alone, over the other table."""
    root.mkdir(parents=True)
    (root / "classes.csv").write_text(table)
    for number in range(count):
        cells = np.random.default_rng(number).choice([1, 2, 4, 5, 6, 255], (6, 8)).astype(np.uint8)
        write(root / "town" / f"{number}.png", np.repeat(np.repeat(cells, 8, 0), 8, 1))
    return root


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def both(tmp_path):
    """A dataset of one's own, and label maps of somebody else."""
    return open_folders(make_folders(tmp_path / "own", count=6)), open_source(f"labels:{foreign(tmp_path / 'other')}")


def lent(tmp_path, both, *, text=MAP, count=None, seed=0, unpaired=4) -> Selection:
    own, other = both
    return borrow(select(own, k=2, unpaired=unpaired, seed=seed), own, other, label_map=written(tmp_path / "map.csv", text), count=count)


def test_every_foreign_class_becomes_the_one_that_the_file_names(tmp_path, both):
    own, other = both
    streams = lent(tmp_path, both).streams(own)
    assert [sample.label for sample in streams.labels] == ["town/0.png", "town/1.png", "town/2.png"]
    for sample in streams.labels:
        raw = np.array(Image.open(other.file(sample, "label")))
        slow = [[{1: 0, 2: 1, 4: 1}.get(int(value), IGNORE) for value in row] for row in raw]
        assert np.array_equal(streams.labels_from.read_label(sample), slow)


def test_the_loader_reads_the_label_pool_from_the_other_dataset_and_all_else_from_its_own(tmp_path, both):
    own, _ = both
    streams = lent(tmp_path, both).streams(own)
    loader = Loader(own, streams, size=(16, 24), batch=2, seed=0)
    batches = [loader.batch(step) for step in range(8)]
    pool = {int(value) for batch in batches for value in batch.unpaired.label.unique()}
    paired = {int(value) for batch in batches for value in batch.paired.label.unique()}
    assert pool == {0, 1, IGNORE}  # no foreign class becomes a car
    assert paired == {0, 1, 2, IGNORE}


def test_a_foreign_file_of_the_same_path_is_another_file(tmp_path):
    own = open_folders(make_folders(tmp_path / "own", count=2))
    (tmp_path / "other" / "labels").mkdir(parents=True)
    (tmp_path / "other" / "classes.csv").write_text((tmp_path / "own" / "classes.csv").read_text())
    for number in range(2):
        write(tmp_path / "other" / "labels" / f"street{number}.png", np.full((20, 30), 7, np.uint8))
    streams = borrow(
        select(own, k=2, unpaired=2, seed=0), own, open_source(f"labels:{tmp_path / 'other'}"), label_map=None, count=None
    ).streams(own)
    loader = Loader(own, streams, size=(16, 24), batch=1, seed=0)
    batches = [loader.batch(step) for step in range(6)]
    assert all((batch.unpaired.label == 2).all() for batch in batches)
    assert not all((batch.paired.label == 2).all() for batch in batches)


def test_as_many_foreign_labels_are_drawn_as_are_asked_for_and_the_seed_decides_which(tmp_path):
    own = open_folders(make_folders(tmp_path / "own", count=6))
    other = open_source(f"labels:{foreign(tmp_path / 'other', count=12)}")
    drawn = [lent(tmp_path, (own, other), count=5, seed=seed).unpaired_labels for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 5
    listed = [sample.label for sample in other.samples("train")]
    assert list(drawn[0]) == [path for path in listed if path in drawn[0]]


def test_equal_names_need_no_file_whatever_their_ids(tmp_path):
    own = open_folders(make_folders(tmp_path / "own", count=3))
    table = "id,name,r,g,b,ignore\n1,car,1,1,1,0\n2,sky,2,2,2,0\n4,road,4,4,4,0\n5,blur,5,5,5,1\n6,other,0,0,0,1\n"
    other = open_source(f"labels:{foreign(tmp_path / 'other', table=table)}")
    selection = borrow(select(own, k=1, unpaired=3, seed=0), own, other, label_map=None, count=None)
    assert selection.borrowed.label_map == {"car": "car", "sky": "sky", "road": "road"}
    sample = selection.streams(own).labels[0]
    raw = np.array(Image.open(other.file(sample, "label")))
    slow = [[{1: 2, 2: 0, 4: 1}.get(int(value), IGNORE) for value in row] for row in raw]
    assert np.array_equal(selection.streams(own).labels_from.read_label(sample), slow)


def test_tables_that_disagree_are_told_class_by_class(both):
    own, other = both
    selection = select(own, k=1, unpaired=3, seed=0)
    with pytest.raises(
        UserError,
        match=r"has classes that folders lacks: heaven, street, lane, dirt; .*--label-map FILE\.csv.*from,to.*sky, road, car, or void",
    ):
        borrow(selection, own, other, label_map=None, count=None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("from,to\nheaven,sky\ndirt,void\n", r"map\.csv does not say what becomes of street, lane of labels in .*: add a line NAME,CLASS"),
        (MAP.replace("street,road", "sreet,road"), r"map\.csv line 3: labels in .* has no class 'sreet'; did you mean street\?"),
        (MAP.replace("street,road", "street,raod"), r"map\.csv line 3: folders has no class 'raod'; did you mean road\?"),
        (MAP + "lane,car\n", r"map\.csv line 6: lane has a line already, which says road"),
        (MAP + "nothing,car\n", r"map\.csv line 6: nothing is void in labels in .* and cannot become car"),
        (MAP + "lane\n", r"map\.csv line 6: 'lane' is not a pair"),
        ("a,b\nheaven,sky\n", r"map\.csv line 1 is 'a,b'; a label map's first line is from,to"),
        ("", r"map\.csv line 1 is ''"),
        (re.sub(r",(sky|road)", ",void", MAP), r"map\.csv makes every class of labels in .* void"),
    ],
)
def test_a_fault_in_the_label_map_is_told_with_its_line(tmp_path, both, text, sentence):
    with pytest.raises(UserError, match=sentence):
        lent(tmp_path, both, text=text)


def test_a_label_map_may_say_void_of_what_is_void_and_name_the_void_class(tmp_path, both):
    selection = lent(tmp_path, both, text=MAP.replace("dirt,void", "dirt, void") + "nothing,void\n\n")
    assert selection.borrowed.label_map == {"heaven": "sky", "street": "road", "lane": "road", "dirt": None}
    with pytest.raises(UserError, match=r"--label-map .*nowhere\.csv cannot be read"):
        borrow(selection, *both, label_map=tmp_path / "nowhere.csv", count=None)


def test_classes_and_pictures_do_not_mix(tmp_path, both):
    own, other = both
    publishers.horse2zebra(tmp_path / "horses")
    horses = open_dataset("unaligned", tmp_path / "horses")
    selection = select(own, k=1, unpaired=3, seed=0)
    with pytest.raises(UserError, match="its labels are pictures, but those of folders are classes"):
        borrow(selection, own, horses, label_map=None, count=None)
    apart = select(horses, k=0, unpaired=None, seed=0)
    with pytest.raises(UserError, match="its labels are classes, but those of unaligned are pictures"):
        borrow(apart, horses, other, label_map=None, count=None)
    with pytest.raises(UserError, match="are pictures; there are no classes to map"):
        borrow(apart, horses, horses, label_map=tmp_path / "map.csv", count=None)
    assert borrow(apart, horses, horses, label_map=None, count=None).borrowed.label_map is None


@pytest.mark.parametrize(
    ("spelt", "sentence"),
    [
        (
            "cars:/somewhere",
            r"--unpaired-labels cars:/somewhere: write DATASET:FOLDER, as in labels:data/carla; datasets are scenes, camvid",
        ),
        ("labels:", r"--unpaired-labels labels:: write DATASET:FOLDER"),
        ("labels", r"--unpaired-labels labels: --data labels needs --root FOLDER"),
        ("labels:/nowhere/at/all", r"--unpaired-labels labels:/nowhere/at/all: --root /nowhere/at/all: there is no such folder"),
    ],
)
def test_a_source_that_cannot_be_opened_is_told_with_its_spelling(spelt, sentence):
    with pytest.raises(UserError, match=sentence):
        open_source(spelt)


def test_a_source_without_label_maps_is_refused(tmp_path):
    make_folders(tmp_path)
    for path in (tmp_path / "labels").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"folders in .* has no label maps in its training split"):
        open_source(f"folders:{tmp_path}")


def test_the_scenes_need_no_root_to_lend_their_labels():
    assert spelling(open_source("scenes")) == "scenes"


def test_borrowed_labels_need_unpaired_photos_beside_them(tmp_path, both):
    with pytest.raises(UserError, match="the pool has no unpaired photos to go with them: ask for --unpaired all"):
        lent(tmp_path, both, unpaired=0)


def test_pairs_json_says_where_the_labels_come_from(tmp_path, both):
    own, other = both
    selection = lent(tmp_path, both, unpaired=None)
    text = selection.to_json()
    assert json.loads(text)["borrowed"] == {
        "dataset": "labels",
        "label_map": {"heaven": "sky", "street": "road", "lane": "road", "dirt": None},
    }
    again = Selection.from_json(text, own, labels_of=other)
    assert again == selection
    assert again.streams(own).labels_from.label_domain == own.label_domain
    with pytest.raises(
        UserError, match=r"takes its unpaired label maps from labels: say where they lie with --unpaired-labels labels:FOLDER"
    ):
        Selection.from_json(text, own)
    with pytest.raises(UserError, match=r"from labels, not from folders: say where"):
        Selection.from_json(text, own, labels_of=own)
    other.file(other.samples("train")[1], "label").unlink()
    with pytest.raises(UserError, match=r"does not match folders in .* and labels in .* \(1 missing: town/1\.png\)"):
        Selection.from_json(text, own, labels_of=open_source(spelling(other)))


def test_a_table_that_changed_since_is_refused(tmp_path, both):
    own, other = both
    selection = lent(tmp_path, both)
    table = Path(other.root / "classes.csv")
    table.write_text(THEIRS.replace("lane", "track"))
    later = Selection.from_json(selection.to_json(), own, labels_of=open_source(spelling(other)))
    with pytest.raises(UserError, match=r"labels in .*: its classes, or those they become, are not those of the label map any more"):
        later.streams(own)


class Killed(Exception):
    """Stands for a power cut between two steps."""


def test_a_run_on_borrowed_labels_resumes_bit_for_bit(tmp_path, both):
    own, other = both
    run = tiny_run("hybrid", steps=5, data="folders", root=str(own.root), save_every=3, unpaired_labels=spelling(other))
    selection = lent(tmp_path, both)
    unbroken = start(tmp_path / "unbroken", run, own, selection, device="cpu", progress=False)

    def cut(step: int) -> None:
        if step == 4:
            raise Killed

    broken = create_run(tmp_path / "broken", run, selection)
    with pytest.raises(Killed):
        train(broken, own, selection, device="cpu", progress=False, after_step=cut)
    (tmp_path / "map.csv").unlink()  # the mapping is in pairs.json
    resume(open_run(broken.path), device="cpu", progress=False)
    one, two = (folder.load("last")["method"] for folder in (unbroken, broken))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    losses = [[json.loads(line) for line in folder.metrics.read_text().splitlines()] for folder in (unbroken, broken)]
    assert [line.get("generators/cycle") for line in losses[0]] == [line.get("generators/cycle") for line in losses[1]]


TINY = ("--size", "32x32", "--steps", "1", "--config.width", "4", "--config.blocks", "1", "--device", "cpu", "--threads", "1")


def said(capsys, *words: str) -> str:
    """What a refused command prints."""
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_the_command_line_borrows_labels_and_takes_the_run_s_file_up_again(tmp_path, capsys, both):
    own, other = both
    mapping = written(tmp_path / "map.csv", MAP)
    common = ("train", "hybrid-compact", "--data", "folders", "--root", str(own.root), *TINY)
    words = (*common, "--unpaired-labels", f"labels:{other.root}", "--label-map", str(mapping), "--pairs", "2", "--unpaired", "3")
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "3 unpaired label maps come from labels in" in capsys.readouterr().out
    assert open_run(tmp_path / "run").run.unpaired_labels == f"labels:{Path(other.root).resolve()}"
    pairs = str(tmp_path / "run" / "pairs.json")
    assert "--unpaired-labels labels:FOLDER" in said(capsys, *common, "--pairs", pairs, "--out", str(tmp_path / "b"))
    again = (*common, "--pairs", pairs, "--unpaired-labels", f"labels:{other.root}")
    assert "leave --label-map out" in said(capsys, *again, "--label-map", str(mapping), "--out", str(tmp_path / "b"))
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "pairs.json").read_text() == Path(pairs).read_text()


def test_a_label_map_without_a_source_is_refused(tmp_path, capsys, both):
    own, _ = both
    words = ("train", "hybrid-compact", "--data", "folders", "--root", str(own.root), *TINY, "--label-map", "map.csv", "--pairs", "2")
    assert "says what becomes of the classes of --unpaired-labels: name that too" in said(
        capsys, *words, "--unpaired", "all", "--out", str(tmp_path / "b")
    )


def test_the_carla_maps_stand_in_for_camvid_s_own():
    own = camvid()
    folder = Path(own.root).parent / "ood_labels"
    if not (folder / "classes.csv").is_file():
        pytest.skip(f"the CARLA label maps are not in {folder}")
    selection = borrow(select(own, k=1, unpaired=200, seed=0), own, open_source(f"labels:{folder}"), label_map=None, count=200)
    assert len(selection.unpaired_labels) == 42
    streams = selection.streams(own)
    found = np.unique(streams.labels_from.read_label(streams.labels[0]))
    assert set(found) <= {*range(11), IGNORE}
    assert len(found) > 4
