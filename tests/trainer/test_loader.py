"""Batches are a pure function of (seed, step), augmented as the papers do, and survive broken files when asked to."""

import dataclasses
import hashlib
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.factories import tiny_method, tiny_run
from tests.trainer.folders import first, make_folders, open_folders, photo_of, write
from trainer.batch import IGNORE
from trainer.commands.session import check_run, start
from trainer.data import loader as loading
from trainer.data.catalogue import open_dataset
from trainer.data.loader import Loader, photo_to_uint8, prepared
from trainer.data.selection.choose import select
from trainer.data.selection.rare_classes import SamplingWeights
from trainer.data.selection.selection import Selection
from trainer.errors import UserError
from trainer.methods import METHODS
from trainer.methods.segmentation import Supervised

SIZE = (16, 24)


def samples_of(dataset, pairs, photos, labels) -> Selection:
    """A selection of these samples."""
    return Selection(dataset, tuple(pairs), tuple(photos), tuple(labels), rule="random", pool_rule="random", seed=0)


def tiny_loader(root, *, count=6, batch=2, seed=5, size=SIZE, pairs=None, unpaired=None, **options):
    dataset = open_folders(root if (root / "photos").exists() else make_folders(root, count=count))
    train = dataset.samples("train")
    complete = tuple(sample for sample in train if sample.complete)
    pairs = complete[:3] if pairs is None else pairs
    pool = complete if unpaired is None else unpaired
    return Loader(dataset, samples_of(dataset, pairs, pool, pool), size=size, batch=batch, seed=seed, **options)


def same(one, other) -> bool:
    return all(
        torch.equal(getattr(getattr(one, half), side), getattr(getattr(other, half), side))
        for half in ("paired", "unpaired")
        for side in ("photo", "label")
    )


def run(loader, *, steps):
    """Take the batches of the first steps."""
    for step in range(steps):
        loader.batch(step)


def mark(root, count=8):
    """Photos whose red channel holds the label's id times 20 plus a number a file, so that alignment and identity can
    be read off.
    """
    make_folders(root, count=count)
    for number in range(count):
        ids = np.random.default_rng(number).choice([0, 3, 7], (143, 143)).astype(np.uint8)
        ids[:3, :3] = 3
        photo = np.stack([ids * 20, np.full_like(ids, 10 * number), np.arange(143, dtype=np.uint8) + 0 * ids], axis=2)
        write(root / "labels" / f"street{number}.png", ids)
        (root / "photos" / f"street{number}.jpg").unlink()
        write(root / "photos" / f"street{number}.png", photo)
    return root


def test_a_batch_has_the_shapes_types_and_ranges_of_the_contract(tmp_path):
    batch = tiny_loader(tmp_path).batch(0)
    for half in (batch.paired, batch.unpaired):
        assert half.photo.shape == (2, 3, *SIZE)
        assert half.photo.dtype == torch.float32
        assert half.photo.min() >= -1
        assert half.photo.max() <= 1
        assert half.label.shape == (2, *SIZE)
        assert half.label.dtype == torch.int64
        assert set(half.label.unique().tolist()) <= {0, 1, 2, IGNORE}


def test_a_batch_is_a_function_of_seed_and_step_alone(tmp_path):
    fresh, used = tiny_loader(tmp_path), tiny_loader(tmp_path)
    for step in (0, 3, 1):
        used.batch(step)
    assert same(fresh.batch(7), used.batch(7))
    assert not same(fresh.batch(7), fresh.batch(8))
    assert not same(fresh.batch(7), tiny_loader(tmp_path, seed=6).batch(7))


def test_photo_and_label_are_cropped_and_flipped_together(tmp_path):
    loader = tiny_loader(mark(tmp_path), size=(128, 128))
    flips, corners = set(), set()
    for step in range(12):
        batch = loader.batch(step)
        ids = torch.tensor([0, 3, 7])[batch.paired.label]
        red, blue = photo_to_uint8(batch.paired.photo)[..., 0], photo_to_uint8(batch.paired.photo)[..., 2]
        assert np.array_equal(red, ids.numpy() * 20)
        flips |= set((blue[:, 0, 0] < blue[:, 0, 1]).tolist())
        corners |= set(np.minimum(blue[:, 0, 0], blue[:, 0, -1]).tolist())
    assert flips == {True, False}
    assert len(corners) > 5


def test_unpaired_photo_and_label_are_drawn_independently(tmp_path):
    loader = tiny_loader(mark(tmp_path), size=(128, 128), batch=1)
    which_photo, which_label, agree = [], [], 0
    for step in range(16):
        batch = loader.batch(step)
        photo = photo_to_uint8(batch.unpaired.photo)[0]
        which_photo.append(int(photo[0, 0, 1]) // 10)
        ids = torch.tensor([0, 3, 7])[batch.unpaired.label[0]].numpy()
        agree += np.array_equal(photo[..., 0], ids * 20)
        which_label.append(ids.tobytes())
    assert sorted(which_photo[:8]) == sorted(which_photo[8:]) == list(range(8))
    assert which_photo[:8] != which_photo[8:]
    assert len(set(which_label)) == 16
    assert agree <= 3


def test_every_epoch_visits_each_sample_once_even_when_the_batch_does_not_divide_it(tmp_path):
    loader = tiny_loader(mark(tmp_path), size=(128, 128), batch=3)
    seen = [
        int(photo[0, 0, 1]) // 10 for step in range(8) for photo in photo_to_uint8(loader.batch(step).unpaired.photo)
    ]
    assert [sorted(seen[start : start + 8]) for start in (0, 8, 16)] == [list(range(8))] * 3


def test_pictures_are_enlarged_bicubically_and_labels_by_nearest(tmp_path):
    loader = tiny_loader(tmp_path, batch=1, size=(16, 24))
    sample = loader.selection.pairs[0]
    dataset = loader.dataset
    photo = np.array(Image.fromarray(dataset.read_photo(sample)).resize((27, 18), Image.Resampling.BICUBIC))
    label = np.array(Image.fromarray(dataset.read_label(sample)).resize((27, 18), Image.Resampling.NEAREST))
    crops = [
        (photo[top : top + 16, left : left + 24][:, ::flip], label[top : top + 16, left : left + 24][:, ::flip])
        for top in range(3)
        for left in range(4)
        for flip in (1, -1)
    ]
    loader = tiny_loader(tmp_path, batch=1, pairs=(sample,))
    batch = loader.batch(3)
    shown = photo_to_uint8(batch.paired.photo)[0], batch.paired.label[0].numpy()
    assert any(np.array_equal(shown[0], a) and np.array_equal(shown[1], b) for a, b in crops)


def with_sides(root, count=4):
    """Pairs with an instance map (200 times the class index) and a previous frame (equal to the photo)."""
    dataset = open_folders(make_folders(root, count=count))
    samples = []
    for sample in dataset.samples("train"):
        Image.fromarray(dataset.read_label(sample).astype(np.uint16) * 200).save(root / f"{sample.name}-instances.png")
        sides = (("instances", f"{sample.name}-instances.png"), ("previous", sample.photo))
        samples.append(dataclasses.replace(sample, sides=sides))
    kinds = {"instances": "ids", "previous": "picture"}
    return dataclasses.replace(dataset, splits={"train": tuple(samples)}, sides=kinds)


def test_further_sides_of_a_pair_are_cropped_and_flipped_with_it(tmp_path):
    dataset = with_sides(tmp_path)
    samples = dataset.samples("train")
    sides = ("instances", "previous")
    loader = Loader(dataset, samples_of(dataset, samples, (), ()), size=SIZE, batch=3, seed=1, sides=sides)
    for step in range(4):
        pairs = loader.batch(step).to("cpu").paired
        assert torch.equal(pairs.sides["instances"], pairs.label * 200)
        assert torch.equal(pairs.sides["previous"], pairs.photo)


def test_a_method_reads_the_sides_that_it_declares_and_the_dataset_must_have_them(tmp_path, monkeypatch):
    seen = []

    class WithInstances(Supervised):
        sides = frozenset({"instances"})

        def step(self, batch, i):
            seen.append({name: side.shape for name, side in batch.paired.sides.items()})
            yield from super().step(batch, i)

    monkeypatch.setitem(METHODS, "supervised", WithInstances)
    dataset, run = with_sides(tmp_path / "mine"), tiny_run("supervised", steps=1, data="folders", unpaired=0)
    selection = select(dataset, k=2, unpaired=0, seed=0)
    start(tmp_path / "run", run, dataset, selection, device="cpu")
    assert seen == [{"instances": (1, *run.size)}]
    with pytest.raises(UserError, match=r"supervised reads instances of each pair, which folders in .* does not have"):
        check_run(run, dataclasses.replace(dataset, sides={}), selection)


def test_empty_streams_give_halves_of_length_zero(tmp_path):
    unsupervised = tiny_loader(tmp_path, pairs=()).batch(0)
    assert unsupervised.paired.photo.shape == (0, 3, *SIZE)
    assert unsupervised.paired.label.shape == (0, *SIZE)
    assert unsupervised.unpaired.photo.shape[0] == 2
    supervised = tiny_loader(tmp_path, unpaired=()).batch(0)
    assert supervised.unpaired.label.dtype == torch.int64
    assert supervised.unpaired.label.shape == (0, *SIZE)


def test_prefetched_batches_are_the_batches(tmp_path):
    loader = tiny_loader(tmp_path)
    for step, batch in zip(range(4, 9), loader.prefetch(4, 9), strict=True):
        assert same(batch, loader.batch(step))


def test_prefetching_ends_with_its_iterator(tmp_path):
    batches = tiny_loader(tmp_path).prefetch(0, 1000)
    next(batches)
    batches.close()
    assert not any(thread.name.startswith("loader") for thread in threading.enumerate())


def test_an_error_in_the_background_reaches_the_foreground(tmp_path):
    loader = tiny_loader(tmp_path)
    (tmp_path / "photos" / "street0.jpg").write_bytes(b"gone")
    with pytest.raises(UserError, match=r"photos/street0\.jpg"):
        list(loader.prefetch(0, 20))
    assert not any(thread.name.startswith("loader") for thread in threading.enumerate())


def test_a_wrong_id_is_refused(tmp_path):
    loader = tiny_loader(tmp_path)
    write(tmp_path / "labels" / "street0.png", np.full((20, 30), 44, np.uint8))
    with pytest.raises(UserError, match="belong to no class: 44"):
        run(loader, steps=6)


def test_the_cache_changes_nothing_but_the_time(tmp_path, monkeypatch):
    with_cache = tiny_loader(tmp_path)
    monkeypatch.setattr(loading, "CACHE", 0)
    without = tiny_loader(tmp_path)
    for step in range(8):
        assert same(with_cache.batch(step), without.batch(step))


def test_a_picture_domain_gives_photos_on_both_sides(tmp_path):
    make_folders(tmp_path, table=None)
    for number in range(4):
        write(tmp_path / "labels" / f"street{number}.png", photo_of(50 + number))
    dataset = open_dataset("pictures", tmp_path)
    train = dataset.samples("train")
    batch = Loader(dataset, samples_of(dataset, train, (), ()), size=SIZE, batch=2, seed=0).batch(0)
    assert batch.paired.label.shape == (2, 3, *SIZE)
    assert batch.unpaired.label.shape == (0, 3, *SIZE)


def test_an_evaluated_photo_is_resized_straight_and_comes_back(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    photo = dataset.read_photo(first(dataset))
    expected = np.array(Image.fromarray(photo).resize((24, 16), Image.Resampling.BICUBIC))
    given = prepared(photo, (16, 24))
    assert torch.allclose(given, torch.from_numpy(expected).permute(2, 0, 1) / 127.5 - 1, atol=1e-6)
    assert np.array_equal(photo_to_uint8(given), expected)


def test_an_evaluated_label_is_resized_by_nearest():
    label = np.random.default_rng(0).integers(0, 3, (20, 30)).astype(np.uint8)
    label[0] = IGNORE
    expected = np.array(Image.fromarray(label).resize((24, 16), Image.Resampling.NEAREST))
    assert torch.equal(prepared(label, (16, 24)), torch.from_numpy(expected).long())


def test_every_level_survives_the_way_to_a_tensor_and_back_and_excess_is_clamped():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert np.array_equal(photo_to_uint8(prepared(levels, (16, 16))), levels)
    assert photo_to_uint8(torch.full((2, 3, 4, 4), 1.7)).shape == (2, 4, 4, 3)
    assert photo_to_uint8(torch.full((3, 1, 1), -9.0)).max() == 0


def test_unbalanced_the_smaller_half_is_filled_as_seldom_as_it_is_smaller_and_no_sample_is_forgotten(tmp_path):
    root = mark(tmp_path)
    pairs = tuple(sample for sample in open_folders(root).samples("train") if sample.complete)[:2]
    loader = tiny_loader(root, pairs=pairs, batch=1, balanced=False)  # 2 pairs, 8 unpaired
    seen = [
        {round((value + 1) * 127.5 / 10) for value in batch.paired.photo[:, 1].flatten().tolist()}
        for batch in map(loader.batch, range(16))
    ]
    assert [len(numbers) for numbers in seen] == [0, 0, 0, 1] * 4
    assert seen[3] | seen[7] == seen[11] | seen[15]
    assert len(seen[3] | seen[7]) == 2
    assert all(len(loader.batch(step).unpaired.photo) == 1 for step in range(16))
    balanced = tiny_loader(root, pairs=pairs, batch=1)
    assert all(
        torch.equal(loader.batch(step).unpaired.photo, balanced.batch(step).unpaired.photo) for step in range(16)
    )


def test_unbalanced_processes_fill_the_same_halves_and_share_the_pairs_between_them(tmp_path):
    complete = tuple(
        sample for sample in open_folders(make_folders(tmp_path, count=6)).samples("train") if sample.complete
    )
    shares = [
        tiny_loader(tmp_path, pairs=complete[:2], batch=1, balanced=False, rank=rank, world=2) for rank in range(2)
    ]
    lengths = [[len(loader.batch(step).paired.photo) for step in range(6)] for loader in shares]
    assert lengths[0] == lengths[1] == [0, 0, 1, 0, 0, 1]
    assert not torch.equal(shares[0].batch(2).paired.photo, shares[1].batch(2).paired.photo)


def likely(root, probabilities, *, steps=range(1000), **options):
    """A loader over as many marked pairs, drawn by these probabilities."""
    complete = tuple(sample for sample in open_folders(root).samples("train") if sample.complete)
    return tiny_loader(
        root, pairs=complete[: len(probabilities)], weights=SamplingWeights(probabilities, steps), **options
    )


def which_pairs(loader, steps):
    """The numbers of the pairs in the batches of these steps, as their green channels say."""
    return [
        round((value + 1) * 127.5 / 10)
        for step in steps
        for value in loader.batch(step).paired.photo[:, 1, 0, 0].tolist()
    ]


def test_pairs_are_drawn_as_often_as_their_probabilities_say_and_one_with_none_never(tmp_path):
    probabilities = (0.4, 0.05, 0.0, 0.25, 0.1, 0.2)
    loader = likely(mark(tmp_path), probabilities, batch=8, unpaired=())
    drawn = which_pairs(loader, range(150))
    assert drawn.count(2) == 0
    expected = [(place, len(drawn) * probability) for place, probability in enumerate(probabilities) if probability]
    chi_square = sum((drawn.count(place) - count) ** 2 / count for place, count in expected)
    assert chi_square < 18.5  # four degrees of freedom: one seed in a thousand is above
    assert any(len(set(drawn[start : start + 8])) < 8 for start in range(0, len(drawn), 8)), "with replacement"


def test_sampling_by_weight_ends_at_its_last_step_and_leaves_the_unpaired_half_alone(tmp_path):
    loader = likely(mark(tmp_path), (0.0, 1.0, 0.0), steps=range(2, 5), batch=3)
    plain = tiny_loader(tmp_path, pairs=loader.selection.pairs, batch=3)
    for step in range(8):
        batch, even = loader.batch(step), plain.batch(step)
        assert torch.equal(batch.unpaired.photo, even.unpaired.photo)
        assert torch.equal(batch.unpaired.label, even.unpaired.label)
        if step in range(2, 5):
            assert which_pairs(loader, [step]) == [1, 1, 1]
        else:
            assert same(batch, even)
            assert sorted(which_pairs(loader, [step])) == [0, 1, 2]


def test_a_pair_that_is_drawn_again_is_augmented_anew(tmp_path):
    loader = likely(mark(tmp_path), (1.0, 0.0), size=(128, 128), batch=4)
    crops = [photo.numpy().tobytes() for step in range(2) for photo in loader.batch(step).paired.photo]
    assert len(set(crops)) == len(crops)


def test_processes_draw_by_weight_each_for_itself_and_stop_at_the_same_step(tmp_path):
    mark(tmp_path)
    shares = [
        likely(tmp_path, (0.25, 0.25, 0.25, 0.25), steps=range(20), batch=1, rank=rank, world=2) for rank in range(2)
    ]
    one, other = (which_pairs(loader, range(20)) for loader in shares)
    assert one != other
    assert set(one) == set(other) == {0, 1, 2, 3}
    plain = [tiny_loader(tmp_path, pairs=shares[0].selection.pairs, batch=1, rank=rank, world=2) for rank in range(2)]
    assert all(same(shares[rank].batch(20), plain[rank].batch(20)) for rank in range(2))
    assert not any(same(shares[rank].batch(19), plain[rank].batch(19)) for rank in range(2))


def test_a_progressive_size_changes_the_crops_at_its_steps_and_nothing_else(tmp_path):
    stages = [(2, 8, 12), (4, 16, 16)]
    loader = tiny_loader(tmp_path, progressive=stages)
    assert [loader.batch(step).paired.photo.shape[-2:] for step in range(6)] == [(8, 12)] * 2 + [(16, 16)] * 2 + [
        SIZE
    ] * 2
    assert [loader.batch(step).unpaired.label.shape[-2:] for step in (0, 4)] == [(8, 12), SIZE]
    assert same(loader.batch(5), tiny_loader(tmp_path).batch(5))
    assert same(loader.batch(1), tiny_loader(tmp_path, size=(8, 12)).batch(1))


def test_batches_are_the_recorded_ones(tmp_path):
    """The sha256 of 64 half batches, recorded at commit a161c6f."""
    table = "id,name,r,g,b,ignore\n0,sky,1,1,1,0\n1,road,2,2,2,0\n2,void,0,0,0,1\n"
    make_folders(tmp_path, count=0, table=table)
    for number in range(7):
        rng = np.random.default_rng(number)
        write(tmp_path / "photos" / f"{number}.png", rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
        write(tmp_path / "labels" / f"{number}.png", rng.integers(0, 3, (20, 30), dtype=np.uint8))
    dataset, digest = open_folders(tmp_path), hashlib.sha256()
    selection = select(dataset, k=3, unpaired=5, seed=1)
    for balanced in (True, False):
        for rank in (0, 1):
            loader = Loader(dataset, selection, size=SIZE, batch=2, seed=1, balanced=balanced, rank=rank, world=2)
            for batch in map(loader.batch, range(8)):
                for half in (batch.paired, batch.unpaired):
                    digest.update(half.photo.numpy().tobytes() + half.label.numpy().tobytes())
    assert digest.hexdigest() == "ceab1329896ca39e66c3e6f0d9cae3bd04e9de01ec4ec3911777fb8522bace95"


def test_a_pool_may_lack_a_side(tmp_path):
    dataset = open_folders(make_folders(tmp_path))
    samples = dataset.samples("train")
    batch = Loader(dataset, samples_of(dataset, samples, samples, ()), size=SIZE, batch=2, seed=0).batch(0)
    assert batch.unpaired.photo.shape == (2, 3, *SIZE)
    assert batch.unpaired.label.shape == (0, *SIZE)
    photos_alone = samples_of(dataset, samples, samples, ())
    assert tiny_method("mean_teacher").missing(photos_alone) is None
    assert tiny_method("hybrid").missing(photos_alone) == "unpaired label maps"
    assert tiny_method("tcr").missing(samples_of(dataset, samples, (), samples)) is None
