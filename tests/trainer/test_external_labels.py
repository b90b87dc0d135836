"""Unpaired label maps of another dataset take the run's classes, and a run on them resumes bit for bit."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer import publishers
from tests.trainer.folders import TINY, make_folders, open_folders, said, write
from trainer.__main__ import main
from trainer.batch import IGNORE
from trainer.data.catalogue import open_dataset
from trainer.data.external_labels import open_source, source_text, with_external_labels
from trainer.data.loader import Loader
from trainer.data.selection.choose import select
from trainer.data.selection.selection import Selection
from trainer.errors import UserError
from trainer.training.checkpointing import open_run

THEIRS = "id,name,r,g,b,ignore\n1,heaven,1,1,1,0\n2,street,2,2,2,0\n4,lane,3,3,3,0\n5,dirt,4,4,4,0\n6,nothing,0,0,0,1\n"
"""Another table than that of folders.py: sky 0, road 3, car 7, void 9."""
MAP = "from,to\nheaven,sky\nstreet,road\nlane,road\ndirt,void\n"


def other_labels(root: Path, *, count: int = 3, table: str = THEIRS) -> Path:
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
    return open_folders(make_folders(tmp_path / "own", count=6)), open_source(
        f"labels:{other_labels(tmp_path / 'other')}"
    )


def external(tmp_path, both, *, text=MAP, count=None, seed=0, unpaired=4) -> Selection:
    own, other = both
    return with_external_labels(
        select(own, k=2, unpaired=unpaired, seed=seed),
        other,
        label_map=written(tmp_path / "map.csv", text),
        count=count,
    )


def test_every_external_class_becomes_the_one_that_the_file_names(tmp_path, both):
    _, other = both
    selection = external(tmp_path, both)
    assert [sample.label for sample in selection.unpaired_labels] == ["town/0.png", "town/1.png", "town/2.png"]
    for sample in selection.unpaired_labels:
        raw = np.array(Image.open(other.file(sample, "label")))
        slow = [[{1: 0, 2: 1, 4: 1}.get(int(value), IGNORE) for value in row] for row in raw]
        assert np.array_equal(selection.labels_from.read_label(sample), slow)


def test_the_loader_reads_the_label_pool_from_the_other_dataset_and_all_else_from_its_own(tmp_path, both):
    own, _ = both
    selection = external(tmp_path, both)
    loader = Loader(own, selection, size=(16, 24), batch=2, seed=0)
    batches = [loader.batch(step) for step in range(8)]
    pool = {int(value) for batch in batches for value in batch.unpaired.label.unique()}
    paired = {int(value) for batch in batches for value in batch.paired.label.unique()}
    assert pool == {0, 1, IGNORE}  # no foreign class becomes a car
    assert paired == {0, 1, 2, IGNORE}


def test_an_external_file_of_the_same_path_is_another_file(tmp_path):
    own = open_folders(make_folders(tmp_path / "own", count=2))
    (tmp_path / "other" / "labels").mkdir(parents=True)
    (tmp_path / "other" / "classes.csv").write_text((tmp_path / "own" / "classes.csv").read_text())
    for number in range(2):
        write(tmp_path / "other" / "labels" / f"street{number}.png", np.full((20, 30), 7, np.uint8))
    selection = with_external_labels(
        select(own, k=2, unpaired=2, seed=0), open_source(f"labels:{tmp_path / 'other'}"), label_map=None, count=None
    )
    loader = Loader(own, selection, size=(16, 24), batch=1, seed=0)
    batches = [loader.batch(step) for step in range(6)]
    assert all((batch.unpaired.label == 2).all() for batch in batches)
    assert not all((batch.paired.label == 2).all() for batch in batches)


def test_the_number_of_external_labels_is_the_one_given_and_the_seed_decides_which(tmp_path):
    own = open_folders(make_folders(tmp_path / "own", count=6))
    other = open_source(f"labels:{other_labels(tmp_path / 'other', count=12)}")
    drawn = [external(tmp_path, (own, other), count=5, seed=seed).unpaired_labels for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 5
    assert list(drawn[0]) == [sample for sample in other.samples("train") if sample in drawn[0]]


def test_equal_names_need_no_file_whatever_their_ids(tmp_path):
    own = open_folders(make_folders(tmp_path / "own", count=3))
    table = "id,name,r,g,b,ignore\n1,car,1,1,1,0\n2,sky,2,2,2,0\n4,road,4,4,4,0\n5,blur,5,5,5,1\n6,other,0,0,0,1\n"
    other = open_source(f"labels:{other_labels(tmp_path / 'other', table=table)}")
    selection = with_external_labels(select(own, k=1, unpaired=3, seed=0), other, label_map=None, count=None)
    assert selection.label_map == {"car": "car", "sky": "sky", "road": "road"}
    sample = selection.unpaired_labels[0]
    raw = np.array(Image.open(other.file(sample, "label")))
    slow = [[{1: 2, 2: 0, 4: 1}.get(int(value), IGNORE) for value in row] for row in raw]
    assert np.array_equal(selection.labels_from.read_label(sample), slow)


def test_tables_that_disagree_are_refused_class_by_class(both):
    own, other = both
    selection = select(own, k=1, unpaired=3, seed=0)
    with pytest.raises(
        UserError,
        match=r"has classes that folders lacks: heaven, street, lane, dirt; .*--label-map FILE\.csv.*car, or void",
    ):
        with_external_labels(selection, other, label_map=None, count=None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("from,to\nheaven,sky\ndirt,void\n", r"map\.csv lacks street, lane of labels in .*: add a line NAME,CLASS"),
        (
            MAP.replace("street,road", "sreet,road"),
            r"map\.csv line 3: labels in .* has no class 'sreet'; did you mean street\?",
        ),
        (
            MAP.replace("street,road", "street,raod"),
            r"map\.csv line 3: folders has no class 'raod'; did you mean road\?",
        ),
        (MAP + "lane,car\n", r"map\.csv line 6: lane is mapped to road already"),
        (MAP + "nothing,car\n", r"map\.csv line 6: nothing is void in labels in .* and cannot become car"),
        (MAP + "lane\n", r"map\.csv line 6: 'lane' is not NAME,CLASS"),
        ("a,b\nheaven,sky\n", r"map\.csv line 1 is 'a,b'; the first line of a label map is from,to"),
        ("", r"map\.csv line 1 is ''"),
        (re.sub(r",(sky|road)", ",void", MAP), r"map\.csv maps every class of labels in .* to void"),
    ],
)
def test_a_fault_in_the_label_map_is_reported_with_its_line(tmp_path, both, text, sentence):
    with pytest.raises(UserError, match=sentence):
        external(tmp_path, both, text=text)


def test_a_label_map_may_say_void_of_what_is_void_and_name_the_void_class(tmp_path, both):
    selection = external(tmp_path, both, text=MAP.replace("dirt,void", "dirt, void") + "nothing,void\n\n")
    assert selection.label_map == {"heaven": "sky", "street": "road", "lane": "road", "dirt": None}
    with pytest.raises(UserError, match=r"--label-map .*nowhere\.csv cannot be read"):
        with_external_labels(selection, both[1], label_map=tmp_path / "nowhere.csv", count=None)


def test_classes_and_pictures_do_not_mix(tmp_path, both):
    own, other = both
    publishers.horse2zebra(tmp_path / "horses")
    horses = open_dataset("unaligned", tmp_path / "horses")
    selection = select(own, k=1, unpaired=3, seed=0)
    with pytest.raises(UserError, match="its labels are pictures, those of folders classes"):
        with_external_labels(selection, horses, label_map=None, count=None)
    apart = select(horses, k=0, unpaired=None, seed=0)
    with pytest.raises(UserError, match="its labels are classes, those of unaligned pictures"):
        with_external_labels(apart, other, label_map=None, count=None)
    with pytest.raises(UserError, match="are pictures without classes to map"):
        with_external_labels(apart, horses, label_map=tmp_path / "map.csv", count=None)
    assert with_external_labels(apart, horses, label_map=None, count=None).label_map is None


@pytest.mark.parametrize(
    ("spelt", "sentence"),
    [
        (
            "cars:/somewhere",
            r"--unpaired-labels cars:/somewhere: write DATASET:FOLDER, as in labels:data/carla; datasets are scenes",
        ),
        ("labels:", r"--unpaired-labels labels:: write DATASET:FOLDER"),
        ("labels", r"--unpaired-labels labels: --data labels needs --root FOLDER"),
        (
            "labels:/nowhere/at/all",
            r"--unpaired-labels labels:/nowhere/at/all: --root /nowhere/at/all: there is no such folder",
        ),
    ],
)
def test_a_source_that_cannot_be_opened_is_named_as_it_was_given(spelt, sentence):
    with pytest.raises(UserError, match=sentence):
        open_source(spelt)


def test_a_source_without_label_maps_is_refused(tmp_path):
    make_folders(tmp_path)
    for path in (tmp_path / "labels").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"folders in .* has no label maps in its training split"):
        open_source(f"folders:{tmp_path}")


def test_external_labels_need_unpaired_photos_beside_them(tmp_path, both):
    with pytest.raises(UserError, match="there are no unpaired photos beside them: use --unpaired all"):
        external(tmp_path, both, unpaired=0)


def test_pairs_json_says_where_the_labels_come_from(tmp_path, both):
    own, other = both
    selection = external(tmp_path, both, unpaired=None)
    text = selection.to_json()
    assert json.loads(text)["borrowed"] == {
        "dataset": "labels",
        "label_map": {"heaven": "sky", "street": "road", "lane": "road", "dirt": None},
    }
    again = Selection.from_json(text, own, labels_of=other)
    assert again == selection
    assert again.labels_from.label_domain == own.label_domain
    with pytest.raises(
        UserError,
        match=r"takes its unpaired label maps from labels: name their folder with --unpaired-labels labels:FOLDER",
    ):
        Selection.from_json(text, own)
    with pytest.raises(UserError, match=r"from labels, not from folders: name their folder"):
        Selection.from_json(text, own, labels_of=own)
    other.file(other.samples("train")[1], "label").unlink()
    with pytest.raises(UserError, match=r"does not match folders in .* and labels in .* \(1 missing: town/1\.png\)"):
        Selection.from_json(text, own, labels_of=open_source(source_text(other)))


def test_a_table_that_changed_since_is_refused(tmp_path, both):
    own, other = both
    selection = external(tmp_path, both)
    table = Path(other.root / "classes.csv")
    table.write_text(THEIRS.replace("lane", "track"))
    with pytest.raises(UserError, match=r"labels in .*: the class tables have changed since: run"):
        Selection.from_json(selection.to_json(), own, labels_of=open_source(source_text(other)))


def test_the_command_line_takes_external_labels_and_reads_the_pairs_json_of_such_a_run(tmp_path, capsys, both):
    own, other = both
    mapping = written(tmp_path / "map.csv", MAP)
    common = ("train", "hybrid-compact", "--data", "folders", "--root", str(own.root), "--steps=1", *TINY)
    words = [*common, "--unpaired-labels", f"labels:{other.root}", "--label-map", str(mapping)]
    assert main([*words, "--pairs=2", "--unpaired=3", "--out", str(tmp_path / "run")]) == 0
    assert "3 unpaired label maps come from labels in" in capsys.readouterr().out
    assert open_run(tmp_path / "run").run.unpaired_labels == f"labels:{Path(other.root).resolve()}"
    pairs = str(tmp_path / "run" / "pairs.json")
    assert "--unpaired-labels labels:FOLDER" in said(capsys, *common, "--pairs", pairs, "--out", str(tmp_path / "b"))
    again = (*common, "--pairs", pairs, "--unpaired-labels", f"labels:{other.root}")
    assert "where no file of --pairs says it already" in said(
        capsys, *again, "--label-map", str(mapping), "--out", str(tmp_path / "b")
    )
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "pairs.json").read_text() == Path(pairs).read_text()


def test_photos_of_which_none_is_labelled_learn_from_external_labels_and_show_them(tmp_path, both):
    own, other = both
    shutil.rmtree(own.root / "labels")
    mapping = written(tmp_path / "map.csv", MAP)
    words = [
        "train",
        "cyclegan-compact",
        "--data=folders",
        f"--root={own.root}",
        "--pairs=0",
        "--unpaired=all",
        "--steps=1",
        *TINY,
    ]
    words += [f"--unpaired-labels=labels:{other.root}", f"--label-map={mapping}", f"--out={tmp_path / 'run'}"]
    assert main(words) == 0
    assert list((tmp_path / "run" / "samples").iterdir())
