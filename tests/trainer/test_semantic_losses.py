"""The losses of the segmenting discriminator against slow references and examples done by hand."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer import losses
from trainer.batch import IGNORE
from trainer.networks.swagan import SwaganDiscriminator


def some_label() -> Tensor:
    """Two maps of 2x3: class 0 six times, class 2 three times, void thrice; class 1 and 3 are absent."""
    return torch.tensor([[[0, 0, 0], [0, 0, 0]], [[2, 2, 2], [IGNORE, IGNORE, IGNORE]]])


def by_pixel(scores: Tensor, label: Tensor, weights: list[float], *, shift: int) -> float:
    """The weighted cross-entropy, pixel by pixel, the mean over all of them."""
    terms = []
    for sample, row, column in itertools.product(*map(range, label.shape)):
        index = int(label[sample, row, column])
        logits = scores[sample, :, row, column].double().numpy()
        log_softmax = logits - np.log(np.exp(logits).sum())
        terms.append(0.0 if index == IGNORE else -weights[index] * log_softmax[index + shift])
    return float(np.mean(terms))


def test_class_weights_are_those_done_by_hand_and_their_mean_over_all_pixels_is_one() -> None:
    label = some_label()
    weights = losses.class_weights(label, 4)
    assert weights.tolist() == [12 / (2 * 6), 0, 12 / (2 * 3), 0]
    assert weights.dtype == torch.float32
    total = sum(float(weights[index]) for index in label[label != IGNORE].tolist())
    assert total / label.numel() == pytest.approx(1)


def test_a_batch_that_is_all_void_has_no_class_weights_and_costs_nothing() -> None:
    label = torch.full((1, 2, 2), IGNORE)
    weights = losses.class_weights(label, 3)
    assert not weights.any()
    assert losses.segmentation(torch.randn(1, 4, 2, 2), label, weights).item() == 0
    assert losses.segmentation_cycle(torch.randn(1, 4, 2, 2), label, weights).item() == 0


def test_class_weights_hold_at_sizes_that_half_precision_cannot_count() -> None:
    label = torch.zeros(1, 512, 1024, dtype=torch.long)
    label[0, 0, 0] = 254
    weights = losses.class_weights(label, 255)
    assert weights[254].item() == pytest.approx(512 * 1024 / 2)
    # class 254 plus one is 255, which is not void
    scores = torch.zeros(1, 256, 1, 1).expand(-1, -1, 512, 1024)
    assert losses.segmentation(scores[:, :, :1, :1], label[:, :1, :1], weights).item() == pytest.approx(
        512 * 1024 / 2 * np.log(256), rel=1e-5
    )


def test_segmentation_is_the_weighted_cross_entropy_one_class_on_and_the_mean_over_all_pixels() -> None:
    scores, label = torch.randn(2, 5, 2, 3), some_label()
    weights = [1.0, 3.0, 2.0, 0.5]
    answer = losses.segmentation(scores, label, torch.tensor(weights)).item()
    assert answer == pytest.approx(by_pixel(scores, label, weights, shift=1), rel=1e-5)


def test_a_generated_photo_is_logit_0_everywhere_void_or_not_unweighted() -> None:
    scores = torch.randn(2, 5, 2, 3)
    everywhere = torch.zeros(2, 2, 3, dtype=torch.long)
    assert losses.generated_everywhere(scores).item() == pytest.approx(
        by_pixel(scores, everywhere, [1.0], shift=0), rel=1e-5
    )


def test_the_cycle_drops_the_logit_of_generated_before_the_softmax() -> None:
    scores, label = torch.randn(2, 5, 2, 3), some_label()
    weights = [1.0, 3.0, 2.0, 0.5]
    answer = losses.segmentation_cycle(scores, label, torch.tensor(weights))
    assert answer.item() == pytest.approx(by_pixel(scores[:, 1:], label, weights, shift=0), rel=1e-5)
    scores.requires_grad_()
    losses.segmentation_cycle(scores, label, torch.tensor(weights)).backward()
    assert scores.grad is not None
    assert not scores.grad[:, 0].any()
    assert scores.grad[:, 1:].any()


def test_the_mask_of_labelmix_is_one_bit_for_each_class() -> None:
    label = some_label()
    for bits in itertools.product([False, True], repeat=5):
        mask = losses.label_mix_mask(label, torch.tensor(bits))
        assert mask.shape == (2, 1, 2, 3)
        slow = [
            [[float(bits[4 if index == IGNORE else index]) for index in row] for row in rows] for rows in label.tolist()
        ]
        assert mask[:, 0].tolist() == slow  # classes 0 and 1 have bits of their own


def test_labelmix_takes_each_pixel_from_one_photo_and_its_gradient_flows_through_all_three() -> None:
    mask = losses.label_mix_mask(some_label(), torch.tensor([True, False, False, False, True]))
    real, fake = torch.randn(2, 3, 2, 3), torch.randn(2, 3, 2, 3)
    mixed = losses.mix(mask, real, fake)
    assert torch.equal(mixed[0], real[0])
    assert torch.equal(mixed[1, :, 0], fake[1, :, 0])
    assert torch.equal(mixed[1, :, 1], real[1, :, 1])
    three = [torch.randn(2, 5, 2, 3, requires_grad=True) for _ in range(3)]
    loss = losses.label_mix_consistency(*three, mask)
    m = mask.numpy()
    mixed_scores, real_scores, fake_scores = (each.detach().numpy() for each in three)
    assert loss.item() == pytest.approx(
        float(((mixed_scores - m * real_scores - (1 - m) * fake_scores) ** 2).mean()), rel=1e-5
    )
    loss.backward()
    assert all(each.grad is not None and each.grad.any() for each in three)
    assert losses.label_mix_consistency(losses.mix(mask, three[1], three[2]), three[1], three[2], mask).item() == 0


def test_r1_is_the_gradient_that_finite_differences_find_scaled_by_the_interval() -> None:
    torch.manual_seed(0)
    discriminator = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(12, 1)).double()
    photo = torch.randn(2, 2, 4, 4, dtype=torch.double)

    def squared() -> float:
        """|grad D|^2 by central differences, the mean over samples."""
        total, step = 0.0, 1e-5
        with torch.no_grad():
            for place in itertools.product(*map(range, photo.shape)):
                up, down = photo.clone(), photo.clone()
                up[place] += step
                down[place] -= step
                total += float((discriminator(up).sum() - discriminator(down).sum()) / (2 * step)) ** 2
        return total / len(photo)

    penalty = losses.lazy_r1(discriminator, photo, gamma=10, every=16)
    assert penalty.item() == pytest.approx(16 * 5 * squared(), rel=1e-6)
    # its own gradient, the double backward, by finite differences in one weight
    penalty.backward()
    weight = discriminator[0].weight
    assert weight.grad is not None
    with torch.no_grad():
        weight[0, 0, 0, 0] += 1e-4
        above = squared()
        weight[0, 0, 0, 0] -= 2e-4
        below = squared()
    assert weight.grad[0, 0, 0, 0].item() == pytest.approx(80 * (above - below) / 2e-4, rel=1e-4)


def test_r1_is_computed_in_fp32_under_autocast_and_reaches_every_weight_of_the_discriminator() -> None:
    torch.manual_seed(0)
    discriminator, photo = SwaganDiscriminator(size=(32, 48), width=4), torch.rand(4, 3, 32, 48)
    exact = losses.lazy_r1(discriminator, photo, gamma=10, every=16)
    with torch.autocast("cpu", torch.bfloat16):
        answer = losses.lazy_r1(discriminator, photo.bfloat16().float(), gamma=10, every=16)
    assert answer.dtype == torch.float32
    assert answer.item() == pytest.approx(
        losses.lazy_r1(discriminator, photo.bfloat16().float(), gamma=10, every=16).item(), rel=1e-6
    )
    assert exact.item() > 0
    exact.backward()
    # the biases after the last activation do not change the gradient at the photo
    still = {
        name
        for name, parameter in discriminator.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    assert "readers.0.weight" not in still
    assert {name for name in still if name.endswith("weight")} == set()
    assert photo.grad is None


def test_feature_matching_is_the_sum_of_the_layers_means_and_does_not_move_the_real_side() -> None:
    real = [torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 5, 2, 2, requires_grad=True)]
    fake = [torch.randn_like(each, requires_grad=True) for each in real]
    by_hand = sum(
        float(((r - f) ** 2).mean())
        for r, f in zip([r.detach() for r in real], [f.detach() for f in fake], strict=True)
    )
    loss = losses.feature_matching(real, fake)
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    loss.backward()
    assert all(each.grad is None for each in real)
    assert all(each.grad is not None for each in fake)
    with pytest.raises(ValueError, match="zip"):
        losses.feature_matching(real, fake[:1])


def test_the_l1_form_leaves_out_the_logits_and_averages_over_the_discriminators() -> None:
    real = [
        [torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1, 1)],
        [torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1, 1)],
    ]
    fake = [
        [torch.full((1, 2), 1.0), torch.full((1, 3), -2.0), torch.full((1, 1), 50.0)],
        [torch.full((1, 2), 5.0), *real[1][1:]],
    ]
    assert losses.feature_matching_l1(real, fake).item() == (1 + 2 + 5) / 2


def test_hinge_and_the_non_saturating_logistic_loss_agree_with_their_equations() -> None:
    logits = torch.tensor([0.5, -3.0])
    assert losses.hinge(logits, real=True).item() == (0.5 + 4) / 2
    assert losses.hinge(logits, real=False).item() == (1.5 + 0) / 2
    assert losses.negative_mean(logits).item() == 1.25
    # D_u minimises softplus(D(fake)) + softplus(-D(real)), the generator softplus(-D(fake))
    assert losses.logistic(logits, real=False).item() == pytest.approx(np.log1p(np.exp([0.5, -3.0])).mean(), rel=1e-5)
    assert losses.logistic(logits, real=True).item() == pytest.approx(np.log1p(np.exp([-0.5, 3.0])).mean(), rel=1e-5)


def test_all_are_computed_in_fp32_whatever_comes_in() -> None:
    scores, label, weights = torch.randn(2, 5, 2, 3).bfloat16(), some_label(), torch.ones(4)
    answers = (
        losses.segmentation(scores, label, weights),
        losses.segmentation_cycle(scores, label, weights),
        losses.generated_everywhere(scores),
        losses.label_mix_consistency(scores, scores, scores, torch.ones(2, 1, 2, 3)),
        losses.feature_matching([scores], [scores]),
        losses.hinge(scores, real=True),
    )
    assert {answer.dtype for answer in answers} == {torch.float32}
