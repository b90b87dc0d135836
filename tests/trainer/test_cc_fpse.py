"""CC-FPSE: convolutions with predicted kernels, the pyramid of the label map, and the discriminator's scores."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, unfold

from tests.trainer.factories import tiny_batch, tiny_method
from tests.trainer.test_semantic_networks import one_hot
from trainer.networks.cc_fpse import CcFpseGenerator, LayoutPyramid, PyramidDiscriminator, convolved
from trainer.training.loop import train_step
from trainer.training.state import TrainState

BATCH = tiny_batch(length=2, size=(64, 64))


def test_a_convolution_with_predicted_kernels_is_its_definition() -> None:
    features, kernels = torch.randn(2, 3, 4, 5), torch.randn(2, 27, 4, 5)
    expected = torch.zeros_like(features)
    for channel in range(3):
        for row in range(4):
            for column in range(5):
                for tap in range(9):
                    y, x = row + tap // 3 - 1, column + tap % 3 - 1
                    if 0 <= y < 4 and 0 <= x < 5:
                        weight = kernels[:, 3 * tap + channel, row, column]
                        expected[:, channel, row, column] += weight * features[:, channel, y, x]
    assert torch.allclose(convolved(features, kernels), expected, atol=1e-5)


def test_its_gradients_are_those_of_unfolding() -> None:
    features = torch.randn(2, 4, 6, 8, dtype=torch.double, requires_grad=True)
    kernels = torch.randn(2, 36, 6, 8, dtype=torch.double, requires_grad=True)
    by_channel = kernels.unflatten(1, (9, 4)).transpose(1, 2)
    unfolded = (unfold(features, 3, padding=1).view(2, 4, 9, 6, 8) * by_channel).sum(2)
    answer, goal = convolved(features, kernels), torch.randn(2, 4, 6, 8, dtype=torch.double)
    assert torch.allclose(answer, unfolded)
    ours, theirs = (torch.autograd.grad((each * goal).sum(), (features, kernels)) for each in (answer, unfolded))
    assert all(torch.allclose(one, other) for one, other in zip(ours, theirs, strict=True))


def test_kernels_of_one_in_the_middle_change_nothing() -> None:
    features, kernels = torch.randn(1, 3, 4, 4), torch.zeros(1, 27, 4, 4)
    kernels[:, 12:15] = 1
    assert torch.equal(convolved(features, kernels), features)


def test_the_conditions_are_label_maps_beside_features_from_coarse_to_fine() -> None:
    label = one_hot(3, 64, 96, batch=2)
    conditions = LayoutPyramid(3, width=4, levels=6, norm="batch")(label)
    assert [tuple(each.shape) for each in conditions] == [(2, 7, 2 * 2**level, 3 * 2**level) for level in range(6)]
    for each in conditions:
        assert torch.equal(each[:, :3], interpolate(label, size=each.shape[2:], mode="nearest"))


def kept(generator: CcFpseGenerator, label: Tensor) -> int:
    """Bytes that wait for the backward pass."""
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        generator(label)
    return sum(each.nbytes() for each in storages.values())


def test_kernels_that_are_computed_again_train_as_those_that_are_kept_do_with_less_memory() -> None:
    again, keeping = (tiny_method("cc_fpse", recompute=choice) for choice in (True, False))
    states = [TrainState.create(method) for method in (again, keeping)]
    for step in range(2):
        logged = []
        for state in states:
            state.step = step
            logged.append(train_step(state, BATCH, steps=6))
        assert logged[0] == logged[1]
    ours, theirs = again.state_dict(), keeping.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items()), "weights and batch statistics"
    label = again.encode(BATCH.paired.label)
    assert kept(again.generator, label) < 0.5 * kept(keeping.generator, label)


def test_the_discriminator_s_scores_are_its_features_plus_their_product_with_the_label_s_embedding() -> None:
    discriminator = PyramidDiscriminator(3, width=4).eval()
    photo, label = torch.randn(2, 3, 64, 96), one_hot(3, 64, 96, batch=2)
    found: list[Tensor] = []
    for smooth in discriminator.smooth:
        smooth.register_forward_hook(lambda _, __, out: found.append(out))
    answers = discriminator(photo, label)
    assert [len(scale) for scale in answers] == [2, 2, 3]
    embedded = discriminator.embedding(label)
    for number, (scale, features) in enumerate(zip(answers, found, strict=True)):
        halved = avg_pool2d(embedded, 2)
        for _ in range(number + 1):
            halved = avg_pool2d(halved, 2)
        expected = discriminator.score(features) + (halved * discriminator.segment(features)).sum(1, keepdim=True)
        assert scale[-1].shape == (2, 1, 16 // 2**number, 24 // 2**number)
        assert torch.allclose(scale[-1], expected, atol=1e-5)


def test_the_trunk_of_the_discriminator_sees_no_label_and_no_other_sample() -> None:
    discriminator = PyramidDiscriminator(3, width=4).eval()
    photo, label = torch.randn(2, 3, 64, 64), one_hot(3, 64, 64, batch=2)
    answers, other = discriminator(photo, label), discriminator(photo, label.roll(1, 1))
    for scale, changed in zip(answers, other, strict=True):
        assert all(torch.equal(one, another) for one, another in zip(scale[:-1], changed[:-1], strict=True))
        assert not torch.allclose(scale[-1], changed[-1], atol=1e-3)
    alone = discriminator(photo[1:], label[1:])
    for scale, single in zip(answers, alone, strict=True):
        assert all(torch.allclose(one[1:], another, atol=1e-5) for one, another in zip(scale, single, strict=True))
