"""Choosing pairs by features: inside a pool, in two stages, whatever the order of the files; and the command with its sheet and map."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.extractors import Counting, write_extractor
from tests.trainer.folders import ids_of, make_folders, open_folders, photo_of, write
from tests.trainer.test_command_line import TINY, refused
from trainer.__main__ import main
from trainer.data.choice import Reader, choose
from trainer.data.pairs import Selection, select
from trainer.data.selection import coverage
from trainer.errors import UserError

RULES = ("kmeans-medoid", "kcenter", "pam")


def kinds(root: Path, *, count: int = 24, labels: bool = True) -> Path:
    """`count` photos of four kinds that differ in colour, each with small changes of its own."""
    make_folders(root, count=0)
    for number in range(count):
        photo = photo_of(number % 4).astype(int) + np.random.default_rng(number).integers(-9, 10, (20, 30, 3))
        write(root / "photos" / f"street{number:02d}.png", np.clip(photo, 0, 255).astype(np.uint8))
        if labels:
            write(root / "labels" / f"street{number:02d}.png", ids_of(number))
    return root


def kind_of(path: str) -> int:
    return int(Path(path).stem.removeprefix("street")) % 4


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_picks_one_photo_of_each_kind_and_says_how_many_each_stands_for(tmp_path, rule):
    selection = select(open_folders(kinds(tmp_path)), k=4, unpaired=None, rule=rule, features=Counting(), seed=0)
    assert sorted(kind_of(entry.photo) for entry in selection.pairs) == [0, 1, 2, 3]
    assert selection.clusters == (6, 6, 6, 6)
    assert (selection.rule, selection.features) == (rule, "counting-00000000")
    content = json.loads(selection.to_json())
    assert (content["clusters"], content["features"], content["pool_rule"]) == ([6, 6, 6, 6], "counting-00000000", "random")


@pytest.mark.parametrize("rule", RULES)
def test_the_choice_does_not_depend_on_the_order_of_the_files(tmp_path, rule, monkeypatch):
    dataset = open_folders(kinds(tmp_path))
    one = select(dataset, k=5, unpaired=None, rule=rule, features=Counting(), seed=3)
    shuffled = list(dataset.samples("train"))
    np.random.default_rng(1).shuffle(shuffled)  # type: ignore[arg-type]
    monkeypatch.setattr(type(dataset), "samples", lambda self, split: tuple(shuffled))
    assert select(dataset, k=5, unpaired=None, rule=rule, features=Counting(), seed=3).pairs == one.pairs


def test_the_pairs_lie_in_a_random_pool_that_is_the_same_for_every_rule(tmp_path):
    dataset = open_folders(kinds(tmp_path))
    by_chance = select(dataset, k=4, unpaired=12, seed=2)
    source = Counting()
    chosen = select(dataset, k=4, unpaired=12, rule="kmeans-medoid", features=source, seed=2)
    assert chosen.unpaired_photos == by_chance.unpaired_photos
    assert {entry.photo for entry in chosen.pairs} <= set(chosen.unpaired_photos)
    assert sum(chosen.clusters or ()) == source.calls == 12


def test_in_two_stages_the_pool_is_chosen_from_all_and_the_pairs_from_the_pool_alone(tmp_path):
    dataset = open_folders(kinds(tmp_path, count=32))
    source = Counting()
    choice = choose(
        dataset,
        k=4,
        unpaired=8,
        rule="kmeans-medoid",
        pool_rule="kmeans-medoid",
        seed=0,
        reader=Reader(dataset, source, cache=None),
    )
    assert source.calls == 32
    assert len(choice.pool) == 8
    assert {kind_of(str(sample.photo)) for sample in choice.pool} == {0, 1, 2, 3}
    assert {sample.photo for sample in choice.pairs} <= {sample.photo for sample in choice.pool}
    again = select(open_folders(tmp_path), k=4, unpaired=8, rule="kmeans-medoid", pool_rule="kmeans-medoid", features=Counting(), seed=0)
    assert [entry.photo for entry in again.pairs] == [sample.photo for sample in choice.pairs]
    assert again.pool_rule == "kmeans-medoid"
    assert sum(again.clusters or ()) == 8
    assert again == Selection.from_json(again.to_json(), dataset)


def test_a_choice_by_chance_is_the_same_whether_it_is_measured_or_not(tmp_path):
    dataset = open_folders(kinds(tmp_path))
    measured = choose(dataset, k=5, unpaired=None, rule="random", seed=4, reader=Reader(dataset, Counting(), cache=None))
    assert [sample.photo for sample in measured.pairs] == [entry.photo for entry in select(dataset, k=5, unpaired=None, seed=4).pairs]
    assert measured.stage is not None
    assert measured.extractor is None
    assert sum(measured.stage.picks.cluster_sizes) == 24


def test_near_duplicates_among_the_picks_are_found(tmp_path):
    make_folders(tmp_path, count=0)
    for number, photo in enumerate([photo_of(1), photo_of(1) // 2 * 2, photo_of(2), photo_of(3)]):
        write(tmp_path / "photos" / f"street{number}.png", photo)
    dataset = open_folders(tmp_path)
    choice = choose(dataset, k=4, unpaired=None, rule="kcenter", seed=0, to_label=True, reader=Reader(dataset, Counting(), cache=None))
    assert choice.stage is not None
    near = choice.stage.near_duplicates()
    assert [{one.name, other.name} for one, other in near] == [{"street0", "street1"}]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"k": 25}, r"--pairs 25 asks for more than the 24 training samples of folders in "),
        ({"rule": "nearest"}, r"--rule nearest: there is no such rule; there are random, kmeans-medoid, kcenter, pam"),
        ({"pool_rule": "pam"}, r"--pool-rule pam chooses the unpaired pool, but --unpaired is all: say how many, as in --unpaired 200"),
        ({"pool_rule": "pam", "unpaired": 0}, r"--unpaired is 0: say how many"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused_before_a_photo_is_read(tmp_path, changes, complaint):
    source = Counting()
    asked = {"k": 4, "unpaired": None, "rule": "kmeans-medoid", "seed": 0} | changes
    with pytest.raises(UserError, match=complaint):
        select(open_folders(kinds(tmp_path)), features=source, **asked)
    assert source.calls == 0


def test_a_pool_with_too_few_labels_is_refused_with_what_to_do(tmp_path):
    kinds(tmp_path, labels=False)
    for number in (0, 1, 4, 8):
        write(tmp_path / "labels" / f"street{number:02d}.png", ids_of(number))
    with pytest.raises(
        UserError, match=r"of the pool of 4 that --pool-rule kcenter chose .*, only [0-2] have a label: ask for a larger --unpaired"
    ):
        select(open_folders(tmp_path), k=3, unpaired=4, rule="random", pool_rule="kcenter", features=Counting(), seed=0)


def test_copies_of_a_few_photos_are_refused_with_how_many_differ(tmp_path):
    make_folders(tmp_path, count=0)
    for number in range(12):
        write(tmp_path / "photos" / f"street{number:02d}.png", photo_of(number % 3))
    dataset = open_folders(tmp_path)
    with pytest.raises(UserError, match=r"--pairs 4 asks for more than the 3 distinct photos among 12.*ask for at most 3"):
        select(dataset, k=4, unpaired=None, rule="kmeans-medoid", features=Counting(), seed=0, to_label=True)
    with pytest.raises(UserError, match=r"--unpaired 4 asks for more than the 3 distinct photos among 12"):
        select(dataset, k=1, unpaired=4, pool_rule="kcenter", features=Counting(), seed=0, to_label=True)
    assert select(dataset, k=3, unpaired=None, rule="kmeans-medoid", features=Counting(), seed=0, to_label=True).clusters == (4, 4, 4)


def pairs(root: Path, out: Path, *more: str) -> list[str]:
    """The words of a choice by features over a folder."""
    extractor = write_extractor(out.parent / "patches.onnx")
    words = ["pairs", "--data", "folders", "--root", str(root), "--out", str(out), "--features", str(extractor), "--device", "cpu"]
    return [*words, "--threads", "1", *more]


def test_the_command_writes_the_same_twice_with_a_sheet_and_a_map_and_says_how_well_the_picks_cover_the_set(capsys, tmp_path):
    root = kinds(tmp_path / "mine")
    for name in ("one", "two"):
        assert (
            main(pairs(root, tmp_path / name / "pairs.json", "--k", "4", "--rule", "kmeans-medoid", "--cache", str(tmp_path / "kept"))) == 0
        )
    said = capsys.readouterr().out
    assert said.count("stands for 6 of 24 (25.0 %)") == 8
    assert "4 picks cover 24 photos better than the median of 20 random draws: mean distance to the nearest pick" in said
    assert next(path.name for path in (tmp_path / "kept").iterdir()).startswith("patches-")
    for file in ("pairs.json", "pairs-sheet.png", "pairs-map.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    with Image.open(tmp_path / "one" / "pairs-map.png") as chart:
        picture = np.asarray(chart.convert("RGB")).reshape(-1, 3)
        assert min(chart.size) > 800
    assert {(31, 119, 180), (174, 199, 232), (255, 127, 14), (255, 187, 120)} <= set(map(tuple, np.unique(picture, axis=0).tolist()))


def test_the_sheet_shows_the_picked_photos_in_their_order(tmp_path):
    root = tmp_path / "mine"
    make_folders(root, count=0)
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    for number in range(9):
        write(
            root / "photos" / f"street{number}.png",
            np.full((30, 40, 3), np.maximum(np.array(colours[min(number // 4, 2)]) - number % 4, 0), np.uint8),
        )
    out = tmp_path / "pairs.json"
    assert main(pairs(root, out, "--k", "3", "--rule", "kmeans-medoid", "--unlabelled")) == 0
    chosen = json.loads(out.read_text())
    assert chosen["clusters"] == [4, 4, 1]
    with Image.open(tmp_path / "pairs-sheet.png") as sheet:
        array = np.asarray(sheet).astype(int)
    places = []
    for entry in chosen["pairs"]:
        colour = colours[min(int(entry["name"].removeprefix("street")) // 4, 2)]
        found = np.argwhere(np.abs(array - colour).max(axis=2) < 6)
        assert len(found) > 240 * 170
        places.append((found[:, 0].min() // 100, found[:, 1].min()))
    assert places == sorted(places)


def test_photos_that_cannot_be_read_are_named_before_anything_is_chosen_and_can_be_left_out(capsys, tmp_path):
    root = kinds(tmp_path / "mine")
    for number in (5, 6):
        (root / "photos" / f"street{number:02d}.png").write_bytes(b"\x89PNG")
    for rule in ("kmeans-medoid", "random"):
        out = tmp_path / rule / "pairs.json"
        said = refused(capsys, *pairs(root, out, "--k", "4", "--rule", rule))
        assert "2 of the 24 photos of folders in" in said
        assert "street05.png" in said
        assert "street06.png" in said
        assert "--skip-broken" in said
        assert not out.exists()
        assert main(pairs(root, out, "--k", "4", "--rule", rule, "--skip-broken")) == 0
        told = capsys.readouterr().out
        assert told.count("skipped: ") == 2
        assert "--skip-broken" not in told
        assert "22 photos and 22 label maps unpaired" in told
        named = {entry["photo"] for entry in json.loads(out.read_text())["pairs"]}
        assert len(named) == 4
        assert not named & {"photos/street05.png", "photos/street06.png"}


def test_no_pairs_at_all_are_refused_and_one_is_told_as_one(capsys, tmp_path):
    root, out = kinds(tmp_path / "mine", count=3), tmp_path / "pairs.json"
    words = ["pairs", "--data", "folders", "--root", str(root), "--out", str(out)]
    for k in ("0", "-3"):
        assert f"--k {k}: give 1 or more" in refused(capsys, *words, "--k", k)
    assert not out.exists()
    assert main([*words, "--k", "1", "--unpaired", "1"]) == 0
    assert "1 pair, 1 photo and 1 label map unpaired, of folders in" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["", "train"])
def test_the_folder_of_the_label_maps_that_are_to_be_drawn_is_named(capsys, tmp_path, split):
    root = make_folders(tmp_path / "mine", count=3, split=split)
    shutil.rmtree(root / split / "labels")
    words = ["pairs", "--data", "folders", "--root", str(root), "--k", "2", "--unlabelled", "--out", str(tmp_path / "pairs.json")]
    assert main(words) == 0
    photos, labels = root / split / "photos", root / split / "labels"
    assert f"under its name, as {labels}/NAME.png for {photos}/NAME.jpg; then: fewpair train" in capsys.readouterr().out


def test_a_label_map_in_a_jpeg_is_refused_by_its_name_before_photos_are_chosen(capsys, tmp_path):
    root = kinds(tmp_path / "mine", count=41)  # more than the files that are looked into
    for drawn, name in ((ids_of(3), "street17"), (photo_of(3), "street17")):
        (root / "labels" / f"{name}.png").unlink(missing_ok=True)
        write(root / "labels" / f"{name}.jpg", drawn)
        said = refused(capsys, *pairs(root, tmp_path / "pairs.json", "--k", "2"))
        assert f"labels/{name}.jpg is a JPEG, which cannot hold the classes of a label map exactly: draw or export it anew as PNG" in said
    (root / "labels" / "street17.jpg").rename(root / "labels" / "street17.png")  # by another name it is found when it is read
    dataset = open_folders(root)
    with pytest.raises(UserError, match=r"street17\.png is a JPEG"):
        dataset.read_label(next(sample for sample in dataset.samples("train") if sample.name == "street17"))


def test_a_random_choice_without_features_leaves_out_what_cannot_be_read_too(capsys, tmp_path):
    root = kinds(tmp_path / "mine", count=6)
    broken = select(open_folders(root), k=5, unpaired=None, seed=0).pairs[1].name
    (root / "photos" / f"{broken}.png").write_bytes(b"\x89PNG")
    words = ["pairs", "--data", "folders", "--root", str(root), "--k", "5", "--out", str(tmp_path / "pairs.json")]
    assert f"{broken}.png cannot be read as a picture" in refused(capsys, *words)
    assert not list(tmp_path.glob("pairs*"))
    assert main([*words, "--skip-broken"]) == 0
    assert "chosen by chance; --rule kmeans-medoid" in capsys.readouterr().out
    assert (tmp_path / "pairs-sheet.png").exists()
    assert not (tmp_path / "pairs-map.png").exists()


@pytest.mark.parametrize("rule", [*RULES, "random"])
def test_one_photo_is_a_set_with_a_sheet_and_a_map(capsys, tmp_path, rule):
    root = kinds(tmp_path / "mine", count=1)
    assert main(pairs(root, tmp_path / "pairs.json", "--k", "1", "--rule", rule)) == 0
    assert "stands for 1 of 1 (100.0 %)" in capsys.readouterr().out
    assert (tmp_path / "pairs-map.png").exists()
    for option in ("--k", "--pairs"):  # the same by two names: it is called as it was typed
        said = refused(capsys, *pairs(root, tmp_path / "two.json", option, "2", "--rule", rule))
        assert f"fewpair: {option} 2 asks for more than the 1 training samples" in said


def test_a_sheet_or_a_map_that_is_there_already_is_not_written_over(capsys, tmp_path):
    root = kinds(tmp_path / "mine", count=4)
    (tmp_path / "pairs-map.png").write_text("mine")
    assert "pairs-map.png exists: name another file with --out" in refused(capsys, *pairs(root, tmp_path / "pairs.json", "--k", "1"))


@pytest.mark.slow
def test_from_photos_alone_by_features_to_a_run_that_first_says_which_labels_are_missing(capsys, tmp_path):
    root, out, run = kinds(tmp_path / "mine", count=8), tmp_path / "pairs.json", tmp_path / "run"
    drawn = (root / "labels").rename(tmp_path / "drawn by hand")
    assert main(pairs(root, out, "--k", "4", "--rule", "kmeans-medoid", "--unlabelled")) == 0
    said = capsys.readouterr().out
    assert said.count("(to be labelled)") == 4
    assert "4 pairs, 8 photos and 0 label maps unpaired" in said
    chosen = [entry["photo"] for entry in json.loads(out.read_text())["pairs"]]
    training = (
        "train",
        "supervised-compact",
        "--data",
        "folders",
        "--root",
        str(root),
        "--pairs",
        str(out),
        "--steps",
        "2",
        "--out",
        str(run),
        *TINY,
    )
    (root / "labels").mkdir()
    first, *rest = chosen
    shutil.copy(drawn / Path(first).name, root / "labels")
    missing = refused(capsys, *training)
    assert "3 of its 4 pairs have no label map yet" in missing
    assert all(photo in missing for photo in rest)
    assert first not in missing
    for photo in rest:
        shutil.copy(drawn / Path(photo).name, root / "labels")
    assert "leave --rule out" in refused(capsys, *training, "--rule", "pam")
    assert main(list(training)) == 0
    config = json.loads((run / "config.json").read_text())
    assert (config["rule"], config["pairs"]) == ("kmeans-medoid", 4)
    (root / "photos" / Path(first).name).unlink()
    elsewhere = ("--out", str(tmp_path / "other"))
    moved = refused(capsys, *training[: -len(TINY) - 2], *elsewhere, *TINY)
    assert f"does not match folders in {root} (1 missing: {first}" in moved or f"missing: {first}" in moved
    assert "put them back, or choose anew with `fewpair pairs`" in moved


def test_training_can_choose_by_rule_itself_and_keeps_the_features_for_the_next_run(tmp_path):
    root = kinds(tmp_path / "mine")
    extractor = write_extractor(tmp_path / "patches.onnx")
    words = (
        "train",
        "supervised-compact",
        "--data",
        "folders",
        "--root",
        str(root),
        "--pairs",
        "4",
        "--unpaired",
        "0",
        "--steps",
        "1",
        *TINY,
    )
    run = tmp_path / "runs" / "one"
    assert main([*words, "--out", str(run), "--rule", "kmeans-medoid", "--features", str(extractor)]) == 0
    content = json.loads((run / "pairs.json").read_text())
    assert sorted(kind_of(entry["photo"]) for entry in content["pairs"]) == [0, 1, 2, 3]
    config = json.loads((run / "config.json").read_text())
    assert (config["rule"], config["features"]) == ("kmeans-medoid", str(extractor))
    assert [path.name for path in (tmp_path / "runs" / "features").iterdir()] == [f"{content['features']}.features"]


def test_a_choice_by_features_covers_real_photos_better_than_chance():
    from tests.trainer.folders import camvid

    dataset = camvid()
    assert dataset.root is not None
    weights = dataset.root.parent / "weights" / "mobilenet_v2_features.onnx"
    if not weights.is_file():
        pytest.skip(f"there is no extractor in {weights}")
    from trainer.data.features import open_features
    from trainer.data.selection import RULES as BY_FEATURES
    from trainer.data.selection import random_coverage

    samples = dataset.samples("train")[::6]
    features = open_features(weights).features(dataset, samples, cache=None, progress=False)
    drawn = random_coverage(features, 8)
    for rule in ("kmeans-medoid", "pam"):
        assert coverage(features, BY_FEATURES[rule](features, 8, 0).indices) < drawn[len(drawn) // 2]
