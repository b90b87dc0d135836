"""A selection says which pairs and pools a run uses, the same for one seed, and notices when files move or change."""

import pytest

from tests.trainer.folders import ids_of, make_folders, open_folders, photo_of, write
from trainer.data.catalogue import open_dataset
from trainer.data.selection.choose import select
from trainer.data.selection.selection import Selection
from trainer.errors import UserError


def test_one_seed_gives_one_selection_and_another_seed_another(tmp_path):
    dataset = open_folders(make_folders(tmp_path, count=10))
    assert select(dataset, k=3, unpaired=6, seed=1) == select(dataset, k=3, unpaired=6, seed=1)
    assert len({select(dataset, k=3, unpaired=6, seed=seed).pairs for seed in range(6)}) > 1


def test_without_a_number_the_pool_is_all_of_train_and_zero_means_none(tmp_path):
    dataset = open_folders(make_folders(tmp_path, count=10))
    assert len(select(dataset, k=2, unpaired=None, seed=0).unpaired_photos) == 10
    assert select(dataset, k=2, unpaired=0, seed=0).unpaired_labels == ()


def test_all_pairs_enlarge_a_smaller_pool_and_leave_a_rule_nothing_to_select(tmp_path):
    dataset = open_folders(make_folders(tmp_path, count=6))
    selection = select(dataset, k="all", unpaired=2, seed=0)
    assert (len(selection.pairs), len(selection.unpaired_photos)) == (6, 6)
    with pytest.raises(UserError, match="--rule kcenter selects pairs, and --pairs all keeps every one"):
        select(dataset, k="all", unpaired=None, seed=0, rule="kcenter")


def test_asking_for_more_pairs_than_there_are_says_how_many_there_are(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    with pytest.raises(
        UserError,
        match=r"5000 pairs are more than the 4 training pairs of folders in .*; `fewpair train --pairs all` uses",
    ):
        select(dataset, k=5000, unpaired=None, seed=0)


@pytest.mark.parametrize(
    ("k", "unpaired", "rule", "complaint"),
    [
        (3, 2, "random", "--unpaired 2 is smaller than the 3 pairs"),
        (-1, None, "random", "neither can be negative"),
        (1, None, "best", "the rules are random"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(tmp_path, k, unpaired, rule, complaint):
    with pytest.raises(UserError, match=complaint):
        select(open_folders(make_folders(tmp_path)), k=k, unpaired=unpaired, rule=rule, seed=0)


def test_photos_without_labels_feed_the_pool_but_are_no_pairs(tmp_path):
    make_folders(tmp_path, count=3)
    for number in range(3, 9):
        write(tmp_path / "photos" / f"street{number}.jpg", photo_of(number))
    selection = select(open_folders(tmp_path), k=3, unpaired=5, seed=0)
    assert {entry.name for entry in selection.pairs} == {"street0", "street1", "street2"}
    assert len(selection.unpaired_photos) == 5
    assert len(selection.unpaired_labels) == 3


def test_a_selection_survives_its_json(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    selection = select(dataset, k=2, unpaired=3, seed=0)
    assert Selection.from_json(selection.to_json(), dataset) == selection


def test_files_that_moved_or_changed_are_named(tmp_path):
    dataset = open_folders(make_folders(tmp_path, count=9))
    text = select(dataset, k=9, unpaired=None, seed=0).to_json()
    write(tmp_path / "labels" / "street2.png", ids_of(77))
    for number in range(3, 9):
        (tmp_path / "photos" / f"street{number}.jpg").unlink()
    with pytest.raises(UserError) as caught:
        Selection.from_json(text, open_folders(tmp_path), source="runs/a/pairs.json")
    assert "runs/a/pairs.json does not match" in str(caught.value)
    assert "1 changed: labels/street2.png" in str(caught.value)
    assert "missing: photos/street" in str(caught.value)
    assert "more" in str(caught.value)


def test_pairs_of_another_dataset_are_refused(tmp_path):
    text = select(open_folders(make_folders(tmp_path)), k=1, unpaired=0, seed=0).to_json()
    with pytest.raises(UserError, match="was made for folders, but the run uses scenes"):
        Selection.from_json(text, open_dataset("scenes", None))


@pytest.mark.parametrize("text", ["", "{}", "[]", b"\xff\xd8 a photo", '{"format": 2}', '{"format": 1, "pairs": [{}]}'])
def test_a_file_that_is_no_pairs_json_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"pairs\.json"):
        Selection.from_json(text, open_folders(make_folders(tmp_path)))


def test_photos_may_be_selected_before_they_are_labelled_and_the_missing_labels_are_named(tmp_path):
    make_folders(tmp_path)
    labels = {path.name: path.read_bytes() for path in (tmp_path / "labels").iterdir()}
    for name in labels:
        if name != "street0.png":
            (tmp_path / "labels" / name).unlink()
    dataset = open_folders(tmp_path)
    selection = select(dataset, k=4, unpaired=None, seed=0, unlabelled=True)
    with pytest.raises(UserError, match=r"pairs\.json: 3 of its 4 pairs have no label map yet"):
        Selection.from_json(selection.to_json(), dataset)

    for name, content in labels.items():
        (tmp_path / "labels" / name).write_bytes(content)
    dataset = open_folders(tmp_path)
    labelled = Selection.from_json(selection.to_json(), dataset)
    assert all(entry.label == f"labels/{entry.name}.png" for entry in labelled.pairs)
    assert len(labelled.pairs) == 4


def test_labels_that_are_added_after_the_selection_join_the_unpaired_pool_with_a_note(tmp_path):
    make_folders(tmp_path, count=6)
    labels = {path.name: path.read_bytes() for path in (tmp_path / "labels").iterdir()}
    for name in labels:
        (tmp_path / "labels" / name).unlink()
    (tmp_path / "labels").rmdir()
    selection = select(open_folders(tmp_path), k=2, unpaired=4, seed=0, unlabelled=True)
    assert selection.unpaired_labels == ()
    text = selection.to_json()

    (tmp_path / "labels").mkdir()
    for name, content in labels.items():
        (tmp_path / "labels" / name).write_bytes(content)
    write(tmp_path / "labels" / "alone.png", ids_of(50))
    dataset = open_folders(tmp_path)
    later = Selection.from_json(text, dataset)
    pool = {sample.name for sample in selection.unpaired_photos} | {"alone"}
    assert {sample.name for sample in later.unpaired_labels} == pool
    assert later.notes == (
        "pairs.json: 5 label maps that were added since join the unpaired pool",
        f"pairs.json names 2 pairs, but 6 photos of {dataset.place} are labelled: --pairs all trains on all of them "
        "as pairs",
    )
    again = Selection.from_json(later.to_json(), dataset)
    assert again == later
    assert not again.notes


def test_a_selection_of_pairs_alone_stays_so_when_labels_appear(tmp_path):
    make_folders(tmp_path)
    kept = (tmp_path / "labels").rename(tmp_path / "later")
    text = select(open_folders(tmp_path), k=2, unpaired=0, seed=0, unlabelled=True).to_json()
    kept.rename(tmp_path / "labels")
    assert Selection.from_json(text, open_folders(tmp_path)).unpaired_labels == ()


def test_scenes_are_chosen_and_recognised_like_files():
    dataset = open_dataset("scenes", None)
    selection = select(dataset, k=2, unpaired=8, seed=0)
    assert Selection.from_json(selection.to_json(), dataset) == selection
    assert selection.pairs[0].photo.startswith("scene:train:")
    changed = selection.to_json().replace(dataset.digest(selection.pairs[0], "label"), "0" * 64)
    with pytest.raises(UserError, match=f"1 changed: {selection.pairs[0].label}"):
        Selection.from_json(changed, dataset)


def test_a_pool_larger_than_the_training_set_is_all_of_it_with_a_note(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    selection = select(dataset, k=2, unpaired=200, seed=0)
    assert len(selection.unpaired_photos) == 4
    assert selection.notes == (f"--unpaired 200: {dataset.place} has 4 training samples; all of them are used",)


def move(root, *names, to):
    for name in names:
        for side, suffix in (("photos", "jpg"), ("labels", "png")):
            (root / to / side).mkdir(parents=True, exist_ok=True)
            (root / side / f"{name}.{suffix}").rename(root / to / side / f"{name}.{suffix}")


def test_labelled_photos_may_be_moved_to_val_after_the_selection(tmp_path):
    selection = select(open_folders(make_folders(tmp_path, count=6)), k=4, unpaired=None, seed=0)
    text = selection.to_json()
    other = next(sample for sample in selection.unpaired_photos if sample not in selection.pairs)
    move(tmp_path, selection.pairs[0].name, other.name, to="val")
    later = Selection.from_json(text, open_folders(tmp_path))
    assert [sample.name for sample in later.pairs] == [sample.name for sample in selection.pairs[1:]]
    assert len(later.unpaired_photos) == len(later.unpaired_labels) == 4
    assert later.notes[0].startswith(
        "pairs.json: 1 of its pairs are in another split now and are not trained on: photos/"
    )
    of_run = Selection.from_json(text, open_folders(tmp_path), of_run=True)
    assert [sample.name for sample in of_run.pairs] == [sample.name for sample in selection.pairs]
    assert (len(of_run.unpaired_photos), of_run.notes) == (6, ())
    changed, erased = (tmp_path / "labels" / f"{pair.name}.png" for pair in selection.pairs[1:3])
    changed.write_bytes(next((tmp_path / "val" / "labels").iterdir()).read_bytes())
    erased.unlink()
    of_run = Selection.from_json(text, open_folders(tmp_path), of_run=True)
    assert [sample.name for sample in of_run.pairs] == [selection.pairs[place].name for place in (0, 1, 3)]
    assert of_run.notes[0].startswith("2 of its files were changed or erased since it began: ")
    with pytest.raises(UserError, match="restore these files"):
        Selection.from_json(text, open_folders(tmp_path))


def test_photos_may_be_moved_to_a_train_folder_after_the_selection(tmp_path):
    selection = select(open_folders(make_folders(tmp_path, count=4)), k=2, unpaired=3, seed=0)
    text = selection.to_json()
    move(tmp_path, *(f"street{number}" for number in range(4)), to="train")
    later = Selection.from_json(text, open_folders(tmp_path))
    assert [sample.name for sample in later.pairs] == [sample.name for sample in selection.pairs]
    assert [sample.name for sample in later.unpaired_labels] == [sample.name for sample in selection.unpaired_labels]
