"""Losses against slow references, and label maps in their three spellings."""

import math

import numpy as np
import pytest
import torch

from tests.trainer.factories import CLASSES, tiny_label
from trainer import labels, losses
from trainer.batch import IGNORE
from trainer.methods.base import PicturePool, constant_then_linear


def test_the_relativistic_loss_is_minus_log_sigmoid_of_the_difference_patch_by_patch() -> None:
    real, fake = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3)
    slow = [-math.log(1 / (1 + math.exp(-(r - f)))) for r, f in zip(real.flatten().tolist(), fake.flatten().tolist(), strict=True)]
    assert losses.relativistic(real, fake).item() == pytest.approx(np.mean(slow), rel=1e-5)


def test_the_relativistic_loss_refuses_batches_that_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="sample with sample"):
        losses.relativistic(torch.zeros(2, 1, 3, 3), torch.zeros(1, 1, 3, 3))


def test_least_squares_and_cross_entropy_agree_with_their_equations() -> None:
    logits = torch.tensor([0.5, -2.0])
    assert losses.least_squares(logits, real=True).item() == pytest.approx((0.25 + 9) / 2)
    assert losses.least_squares(logits, real=False).item() == pytest.approx((0.25 + 4) / 2)
    sigmoid = 1 / (1 + np.exp([-0.5, 2.0]))
    assert losses.cross_entropy_logits(logits, real=True).item() == pytest.approx(-np.log(sigmoid).mean(), rel=1e-5)
    assert losses.cross_entropy_logits(logits, real=False).item() == pytest.approx(-np.log(1 - sigmoid).mean(), rel=1e-5)


def test_void_pixels_weigh_nothing_in_any_loss() -> None:
    label = torch.zeros(1, 2, 2, dtype=torch.long)
    label[0, 0] = IGNORE
    scores = torch.randn(1, 3, 2, 2)
    by_hand = -torch.log_softmax(scores, 1)[0, 0, 1].mean()
    assert losses.cross_entropy(scores, label).item() == pytest.approx(by_hand.item(), rel=1e-6)
    one, other = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2)
    expected = (one - other).abs()[:, :, 1].mean()
    assert losses.absolute_difference(one, other, labels.counted(label)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_map_that_is_all_void_costs_nothing() -> None:
    label = torch.full((1, 2, 2), IGNORE)
    assert losses.cross_entropy(torch.randn(1, 3, 2, 2), label).item() == 0
    assert losses.absolute_difference(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), labels.counted(label)).item() == 0


def test_losses_are_computed_in_fp32_whatever_comes_in() -> None:
    half = torch.randn(1, 1, 4, 4).bfloat16()
    assert losses.relativistic(half, -half).dtype == torch.float32
    assert losses.absolute_difference(half, half).dtype == torch.float32
    assert losses.least_squares(half, real=True).dtype == torch.float32


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


def test_the_learning_rate_is_constant_over_the_first_half_and_then_falls_to_nothing() -> None:
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


def test_a_pool_of_nothing_passes_everything_through() -> None:
    pool = PicturePool(0, seed=0, stream="test")
    assert pool(torch.full((2, 1, 2, 2), 3.0), 5).unique().tolist() == [3.0]


def test_l2_is_the_mean_square_and_half_is_half_of_each() -> None:
    one, other = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2)
    weight = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    for given, counted in ((None, [(0, 0), (0, 1), (1, 0), (1, 1)]), (weight, [(0, 0), (1, 0), (1, 1)])):
        gaps = [float(one[0, c, i, j] - other[0, c, i, j]) for c in range(3) for i, j in counted]
        l1, l2 = np.mean(np.abs(gaps)), np.mean(np.square(gaps))
        assert losses.difference(one, other, given, kind="l1").item() == pytest.approx(l1, rel=1e-5)
        assert losses.difference(one, other, given, kind="l2").item() == pytest.approx(l2, rel=1e-5)
        assert losses.difference(one, other, given, kind="half").item() == pytest.approx((l1 + l2) / 2, rel=1e-5)
