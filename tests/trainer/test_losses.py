"""Losses against slow references, and label maps in their three spellings."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.factories import CLASSES, losses_of, tiny_batch, tiny_label, tiny_method
from trainer import labels, losses
from trainer.batch import IGNORE
from trainer.methods.base import PicturePool, constant_then_linear


def test_the_relativistic_loss_refuses_batches_that_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="sample with sample"):
        losses.relativistic(torch.zeros(2, 1, 3, 3), torch.zeros(1, 1, 3, 3))


def test_void_pixels_weigh_nothing_in_any_loss() -> None:
    label = torch.zeros(1, 2, 2, dtype=torch.long)
    label[0, 0] = IGNORE
    scores = torch.randn(1, 3, 2, 2)
    by_hand = -torch.log_softmax(scores, 1)[0, 0, 1].mean()
    assert losses.cross_entropy(scores, label).item() == pytest.approx(by_hand.item(), rel=1e-6)
    one, other = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2)
    expected = (one - other).abs()[:, :, 1].mean()
    assert losses.difference(one, other, labels.counted(label)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_map_that_is_all_void_costs_nothing() -> None:
    label = torch.full((1, 2, 2), IGNORE)
    assert losses.cross_entropy(torch.randn(1, 3, 2, 2), label).item() == 0
    assert losses.difference(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), labels.counted(label)).item() == 0


def test_one_hot_is_all_zero_where_the_map_is_void() -> None:
    label = tiny_label(2)
    hot = labels.one_hot(label, 3)
    assert torch.equal(hot.sum(1) == 0, label == IGNORE)
    assert torch.equal(hot.argmax(1)[label != IGNORE], label[label != IGNORE])


def test_colours_decode_to_the_classes_they_came_from() -> None:
    label = tiny_label(2)
    decoded = labels.nearest_class(labels.colors(label, CLASSES), CLASSES)
    assert torch.equal(decoded[label != IGNORE], label[label != IGNORE])


def test_the_nearest_colour_is_the_one_a_slow_search_finds() -> None:
    picture = torch.rand(1, 3, 5, 7) * 2 - 1
    decoded = labels.nearest_class(picture, CLASSES)
    levels = (picture[0].permute(1, 2, 0).numpy() + 1) * 127.5
    for row in range(5):
        for column in range(7):
            distances = [np.linalg.norm(levels[row, column] - color) for color in CLASSES.palette.astype(float)]
            assert int(decoded[0, row, column]) == int(np.argmin(distances))


def test_the_learning_rate_is_constant_over_the_first_half_and_then_falls_to_zero() -> None:
    factors = [constant_then_linear(step, 10) for step in range(11)]
    assert factors[:6] == [1.0] * 6
    assert factors[6:] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


def test_the_pool_returns_what_it_is_given_until_it_is_full_and_then_swaps_half_the_time() -> None:
    pool = PicturePool(10, seed=0, stream="test")
    fakes = [torch.full((1, 1, 2, 2), float(value)) for value in range(1000)]
    answers = [pool(fake, step).flatten()[0].item() for step, fake in enumerate(fakes)]
    assert answers[:10] == list(map(float, range(10)))
    older = np.mean([answer != value for value, answer in enumerate(answers) if value >= 10])
    assert older == pytest.approx(0.5, abs=0.05)
    assert len(set(pool.pictures.flatten().tolist())) == 10


def test_the_pool_keeps_no_graph_and_no_reference_to_what_it_was_given() -> None:
    pool = PicturePool(2, seed=0, stream="test")
    fake = torch.ones(1, 1, 2, 2, requires_grad=True)
    answer = pool(fake * 2, 0)
    assert not answer.requires_grad
    answer.zero_()
    assert pool.pictures[0].unique().tolist() == [2.0]


def test_l2_is_the_mean_square_and_half_is_half_of_each() -> None:
    one, other = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2)
    weight = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    for given, counted in ((None, [(0, 0), (0, 1), (1, 0), (1, 1)]), (weight, [(0, 0), (1, 0), (1, 1)])):
        gaps = [float(one[0, c, i, j] - other[0, c, i, j]) for c in range(3) for i, j in counted]
        l1, l2 = np.mean(np.abs(gaps)), np.mean(np.square(gaps))
        assert losses.difference(one, other, given, kind="l1").item() == pytest.approx(l1, rel=1e-5)
        assert losses.difference(one, other, given, kind="l2").item() == pytest.approx(l2, rel=1e-5)
        assert losses.difference(one, other, given, kind="half").item() == pytest.approx((l1 + l2) / 2, rel=1e-5)


REAL, FAKE = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3) + 0.5


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def slow(name: losses.GanLossName, real: list[float], fake: list[float]) -> tuple[float, float]:
    """(the discriminator's loss, the generator's), patch by patch."""
    pairs = list(zip(real, fake, strict=True))
    if name == "vanilla":
        discriminator = [0.5 * (-math.log(sigmoid(r)) - math.log(1 - sigmoid(f))) for r, f in pairs]
        generator = [-math.log(sigmoid(f)) for f in fake]
    elif name == "lsgan":
        discriminator = [0.5 * ((r - 1) ** 2 + f**2) for r, f in pairs]
        generator = [(f - 1) ** 2 for f in fake]
    elif name == "hinge":
        discriminator = [max(0, 1 - r) + max(0, 1 + f) for r, f in pairs]
        generator = [-f for f in fake]
    elif name == "relativistic":
        discriminator = [-math.log(sigmoid(r - f)) for r, f in pairs]
        generator = [-math.log(sigmoid(f - r)) for r, f in pairs]
    else:
        mean_real, mean_fake = np.mean(real), np.mean(fake)
        discriminator = [0.5 * ((r - mean_fake - 1) ** 2 + (f - mean_real + 1) ** 2) for r, f in pairs]
        generator = [0.5 * ((f - mean_real - 1) ** 2 + (r - mean_fake + 1) ** 2) for r, f in pairs]
    return float(np.mean(discriminator)), float(np.mean(generator))


@pytest.mark.parametrize("name", losses.GAN_LOSSES)
def test_a_gan_loss_agrees_with_its_equations(name: losses.GanLossName) -> None:
    gan = losses.GAN_LOSSES[name]
    discriminator, generator = slow(name, REAL.flatten().tolist(), FAKE.flatten().tolist())
    assert gan.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, rel=1e-5)
    assert gan.generator(FAKE, REAL if gan.relativistic else None).item() == pytest.approx(generator, rel=1e-5)


@pytest.mark.parametrize("name", losses.GAN_LOSSES)
def test_a_better_discriminator_has_a_lower_loss_and_so_has_a_better_generator(name: losses.GanLossName) -> None:
    gan = losses.GAN_LOSSES[name]
    low, high = torch.full((1, 1, 2, 2), -0.5), torch.full((1, 1, 2, 2), 0.5)
    assert gan.discriminator(high, low) < gan.discriminator(low, high)
    known = torch.zeros(1, 1, 2, 2) if gan.relativistic else None
    assert gan.generator(high, known) < gan.generator(low, known)


@pytest.mark.parametrize("name", losses.GAN_LOSSES)
def test_a_gan_loss_is_computed_in_fp32(name: losses.GanLossName) -> None:
    gan, logits = losses.GAN_LOSSES[name], torch.randn(1, 1, 4, 4).bfloat16()
    assert gan.discriminator(logits, -logits).dtype == torch.float32
    assert gan.generator(logits, -logits).dtype == torch.float32


def test_the_logits_of_real_samples_have_no_gradient_and_are_computed_only_where_they_count() -> None:
    discriminator = torch.nn.Conv2d(3, 1, 4)
    picture = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert losses.GAN_LOSSES["lsgan"].real_logits(discriminator, picture) is None
    known = losses.GAN_LOSSES["relativistic"].real_logits(discriminator, picture)
    assert known is not None
    assert not known.requires_grad


def losses_of_a_step(name: str, **changes: Any) -> dict[str, float]:
    return losses_of(tiny_method(name, **changes), tiny_batch())


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan", "hybrid", "tripathy"])
def test_a_method_uses_the_gan_loss_of_its_config(method: str) -> None:
    by_loss = {name: losses_of_a_step(method, gan_loss=name) for name in losses.GAN_LOSSES}
    adversarial = [
        name
        for name in by_loss["lsgan"]
        if "adversarial" in name or name.startswith(("discriminator", "unpaired_discriminator"))
    ]
    assert adversarial
    for term in by_loss["lsgan"]:
        values = {round(each[term], 7) for each in by_loss.values()}
        assert len(values) == (len(losses.GAN_LOSSES) if term in adversarial else 1), term


def test_the_distance_weighs_pairs_and_cycles_as_its_name_says() -> None:
    by_name = {name: losses_of_a_step("hybrid", distance=name, cycle_distance=name) for name in ("l1", "l2", "half")}
    for term in ("pairs_label", "pairs_photo", "cycle_label", "cycle_photo"):
        l1, l2, half = (each[f"generators/{term}"] for each in by_name.values())
        assert l1 != pytest.approx(l2, rel=1e-3)
        assert half == pytest.approx((l1 + l2) / 2, rel=1e-4)
    assert by_name["l1"]["generators/identity_photo"] == by_name["l2"]["generators/identity_photo"]


def test_with_class_scores_the_label_s_distance_is_cross_entropy_whatever_its_name() -> None:
    one, other = (
        losses_of_a_step("hybrid", label_as="classes", distance=name, cycle_distance=name) for name in ("l1", "l2")
    )
    for term in ("pairs_label", "cycle_label"):
        assert one[f"generators/{term}"] == other[f"generators/{term}"]
    assert one["generators/pairs_photo"] != other["generators/pairs_photo"]
