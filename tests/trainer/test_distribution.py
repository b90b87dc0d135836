"""FID, KID, precision and recall: against closed forms and slow references, and how their extractors are opened."""

import hashlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from tests.trainer.extractors import write_extractor
from trainer.errors import UserError
from trainer.metrics import distribution
from trainer.metrics.distribution import DistributionMetric, Extractor, compare_sets, open_extractor


def gaussian(count: int, dimensions: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimensions))


@pytest.mark.parametrize(("count", "dimensions"), [(200, 8), (12, 40)])
def test_a_set_has_no_distance_from_itself(count: int, dimensions: int) -> None:
    features = gaussian(count, dimensions)
    assert compare_sets(features, features)["fid"] == pytest.approx(0, abs=1e-3)
    assert compare_sets(features, features)["kid"] <= 0  # unbiased: below zero for equal sets


@pytest.mark.parametrize(("count", "dimensions"), [(300, 6), (20, 50)])
def test_fid_of_a_set_that_is_moved_and_stretched_is_its_closed_form(count: int, dimensions: int) -> None:
    """For y = a x + b: |mean(y) - mean(x)|^2 + (a - 1)^2 Tr C, with more photos than dimensions and with fewer."""
    real = gaussian(count, dimensions)
    shift = np.linspace(-1, 2, dimensions)
    moved = 1.5 * real + shift
    mean = 0.5 * real.mean(axis=0) + shift
    trace = real.var(axis=0, ddof=1).sum()
    assert compare_sets(moved, real)["fid"] == pytest.approx(mean @ mean + 0.25 * trace, rel=1e-6)


def test_kid_is_the_unbiased_mmd_of_the_cubic_kernel_pair_by_pair() -> None:
    generated, real = gaussian(7, 5, seed=1) + 0.4, gaussian(7, 5, seed=2)

    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        return float((sum(a * b for a, b in zip(one, other, strict=True)) / 5 + 1) ** 3)

    within = [
        sum(kernel(photos[i], photos[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
        for photos in (generated, real)
    ]
    across = sum(kernel(one, other) for one in generated for other in real) / 49
    assert compare_sets(generated, real)["kid"] == pytest.approx(sum(within) - 2 * across)


def test_kid_of_large_sets_is_a_mean_over_random_subsets_and_the_same_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "KID_SUBSET", 20)
    generated, real = gaussian(60, 4, seed=1) + 0.5, gaussian(60, 4, seed=2)
    first = compare_sets(generated, real)["kid"]
    assert first == compare_sets(generated, real)["kid"]
    monkeypatch.setattr(distribution, "KID_SUBSET", 1000)
    assert first != compare_sets(generated, real)["kid"]
    assert first == pytest.approx(compare_sets(generated, real)["kid"], rel=0.3)


def test_precision_and_recall_are_membership_in_balls_to_the_third_neighbour() -> None:
    generated, real = gaussian(25, 3, seed=1) * 0.6, gaussian(30, 3, seed=2)

    def inside(points: np.ndarray, centres: np.ndarray) -> float:
        hits = 0
        for point in points:
            for place, centre in enumerate(centres):
                others = sorted(np.linalg.norm(centre - other) for spot, other in enumerate(centres) if spot != place)
                if np.linalg.norm(point - centre) <= others[2]:
                    hits += 1
                    break
        return hits / len(points)

    assert 0 < inside(real, generated) < inside(generated, real) <= 1
    figures = compare_sets(generated, real)
    expected = (inside(generated, real), inside(real, generated))
    assert (figures["precision"], figures["recall"]) == pytest.approx(expected)


def test_sets_too_small_for_a_figure_have_none() -> None:
    one, three = gaussian(1, 4), gaussian(3, 4)
    assert compare_sets(one, one) == {"fid": None, "kid": None, "precision": None, "recall": None}
    figures = compare_sets(three, three)
    assert (figures["precision"], figures["recall"]) == (None, None)
    assert figures["fid"] == pytest.approx(0, abs=1e-6)


def means(pictures: np.ndarray) -> np.ndarray:
    """Float32[N,3]: the mean colour."""
    return pictures.mean(axis=(1, 2)).astype(np.float32)


def shown(sets: DistributionMetric, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(4)
    generated, real = (generator.integers(0, 256, (count, 4, 6, 3), dtype=np.uint8) for _ in range(2))
    for one, other in zip(generated, real, strict=True):
        sets.add(one, other, np.zeros((4, 6), np.uint8))
    return generated, real


def test_generated_and_real_photos_are_told_apart_and_all_of_them_count() -> None:
    sets = DistributionMetric(Extractor("colours", means))
    generated, real = shown(sets, 37)  # two full batches and a rest
    for found, given in zip(sets.features(), (generated, real), strict=True):
        np.testing.assert_allclose(found, means(given))
    figures = sets.figures()
    assert set(figures) == {"fid[colours]", "kid[colours]", "precision[colours]", "recall[colours]"}
    assert figures["fid[colours]"] == pytest.approx(
        compare_sets(means(generated).astype(float), means(real).astype(float))["fid"]
    )
    described = sets.described()
    assert (described["photos"], described["dimensions"]) == (37, 3)


def test_figures_of_inception_have_no_suffix() -> None:
    sets = DistributionMetric(Extractor("inception", means))
    shown(sets, 5)
    assert set(sets.figures()) == {"fid", "kid", "precision", "recall"}
    assert sets.described()["cautions"] == []


def test_fewer_photos_than_dimensions_and_another_extractor_are_cautioned_against() -> None:
    def wide(pictures: np.ndarray) -> np.ndarray:
        return pictures.reshape(len(pictures), -1).astype(np.float32)

    sets = DistributionMetric(Extractor("pixels", wide))
    shown(sets, 6)
    few, other = sets.described()["cautions"]
    assert "fid[pixels] is biased upwards with 6 photos in 72 dimensions" in few
    assert "not comparable with published" in other


def test_an_onnx_extractor_gives_its_name_to_the_figures(tmp_path: Path) -> None:
    path = write_extractor(tmp_path / "channel_means.onnx")
    extractor = open_extractor(str(path))
    assert extractor.named("kid").startswith("kid[channel_means")
    assert extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 10, 12, 3), dtype=np.uint8)
    patches = extractor.of_pictures(pictures).reshape(3, 3, 4, 4)
    np.testing.assert_allclose(patches.mean((2, 3)), means(pictures) / 127.5 - 1, atol=0.03)


def test_features_that_are_no_extractor_are_refused_with_what_may_be_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--features incaption: no such file; give inception, its weights"):
        open_extractor("incaption")
    words = tmp_path / "weights.txt"
    words.write_text("x")
    with pytest.raises(UserError, match=r"not a .pth or .onnx file"):
        open_extractor(str(words))
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(1)}, other)
    with pytest.raises(UserError, match=r"other\.pth does not hold torch-fidelity's Inception v3"):
        open_extractor(str(other))
    torch.save(Path, other)
    with pytest.raises(UserError, match=r"other\.pth does not hold torch-fidelity's Inception v3"):
        open_extractor(str(other))


def test_without_a_connection_inception_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity import feature_extractor_inceptionv3

    def fails(*arguments: object, **options: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", fails)
    with pytest.raises(UserError, match=r"the download failed .*no route.*; download https://.* --features FILE\.pth"):
        open_extractor("inception")


@pytest.mark.slow
def test_a_local_file_of_inception_weights_gives_torch_fidelity_s_own_2048_features(tmp_path: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    path = tmp_path / "inception.pth"
    torch.save(network.state_dict(), path)
    extractor = open_extractor(str(path))
    assert extractor.named("fid") == "fid"
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    expected = network(torch.from_numpy(pictures).permute(0, 3, 1, 2))[0]
    np.testing.assert_allclose(extractor.of_pictures(pictures), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert expected.shape == (2, 2048)
