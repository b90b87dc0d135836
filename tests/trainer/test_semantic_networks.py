"""The networks of OASIS, USIS, SPADE, CC-FPSE and the semi-paired method have the papers' sizes and shapes."""

import copy
from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu
from torch.nn.utils import parametrizations

from tests.trainer.factories import buffers_of, count
from trainer.errors import UserError
from trainer.networks.cc_fpse import CcFpseGenerator, PyramidDiscriminator
from trainer.networks.frozen import frozen, keeping_buffers
from trainer.networks.init import SpectralConv2d, fuse_spectral_norm, update_spectral_norm
from trainer.networks.normalisation import estimate_statistics
from trainer.networks.segmenting_discriminator import ResidualBlock, SegmentingDiscriminator
from trainer.networks.spade import OasisGenerator, Spade
from trainer.networks.swagan import SwaganDiscriminator, with_spread
from trainer.networks.wavelet import WaveletSpade, WaveletSpadeGenerator, haar, inverse_haar

GENERATORS = {"oasis": OasisGenerator, "wavelet": WaveletSpadeGenerator}


def shapes(network: nn.Module, parts: nn.ModuleList, *inputs: Tensor) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """What each part answers while the network works (of a pair the first), and the network's answer, without the
    batch.
    """
    seen: list[tuple[int, ...]] = []
    for part in parts:
        part.register_forward_hook(
            lambda _, __, out: seen.append(tuple((out[0] if isinstance(out, tuple) else out).shape[1:]))
        )
    return seen, tuple(network(*inputs).shape[1:])


def one_hot(channels: int, height: int, width: int, *, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, channels, (batch, 1, height // 8, width // 8), generator=generator)
    index = index.repeat_interleave(8, 2).repeat_interleave(8, 3)
    return (index == torch.arange(channels).view(1, -1, 1, 1)).float()


# Full size, on the meta device: nothing is computed.


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The meta device, without the power iterations that spectral norm starts with, which take seconds there and
    compute nothing.
    """
    monkeypatch.setattr(parametrizations._SpectralNorm, "_power_method", lambda *_: None)
    with torch.device("meta"):
        yield


@pytest.mark.parametrize(
    ("channels", "oasis", "wavelet", "discriminator"),
    [(35, 71_107_523, 54_157_356, 22_251_364), (151, 74_314_691, 56_829_996, 22_258_904)],
)
@pytest.mark.usefixtures("meta")
def test_the_networks_have_the_published_number_of_parameters(
    channels: int, oasis: int, wavelet: int, discriminator: int
) -> None:
    assert count(OasisGenerator(channels, width=64, norm="batch")) == oasis
    assert count(WaveletSpadeGenerator(channels, width=64, norm="batch")) == wavelet
    assert count(SegmentingDiscriminator(channels, width=64)) == discriminator


@pytest.mark.parametrize(
    ("channels", "more", "generator", "discriminator"),
    [(36, True, 119_966_979, 5_175_873), (151, False, 125_254_211, 5_190_593), (184, False, 126_793_859, 5_194_817)],
)
@pytest.mark.usefixtures("meta")
def test_the_networks_of_cc_fpse_have_the_parameters_of_the_released_code_but_those_it_never_uses(
    channels: int, more: bool, generator: int, discriminator: int
) -> None:
    never_used = 26_112  # two batch norms beside each conditional convolution, left out by its forward pass
    ours = CcFpseGenerator(channels, width=64, norm="batch", more=more, recompute=True)
    assert count(ours) == generator - never_used
    assert count(PyramidDiscriminator(channels, width=64)) == discriminator


@pytest.mark.usefixtures("meta")
def test_the_networks_of_cc_fpse_have_the_published_shapes() -> None:
    label = torch.zeros(2, 36, 256, 512)
    generator = CcFpseGenerator(36, width=64, norm="batch", more=True, recompute=True)
    wide = [(1024, 4, 8), (1024, 8, 16), (1024, 16, 32), (512, 32, 64), (256, 64, 128), (128, 128, 256), (64, 256, 512)]
    assert shapes(generator, generator.blocks, label) == (wide, (3, 256, 512))
    generator = CcFpseGenerator(36, width=64, norm="instance", more=False, recompute=True)
    square = [1024, 1024, 1024, 512, 256, 128, 64]
    sides = [8, 16, 16, 32, 64, 128, 256]
    expected = [(channels, side, side) for channels, side in zip(square, sides, strict=True)]
    assert shapes(generator, generator.blocks, label[..., :256]) == (expected, (3, 256, 256))
    scores = [scale[-1].shape for scale in PyramidDiscriminator(36, width=64)(torch.zeros(2, 3, 256, 512), label)]
    assert scores == [(2, 1, 64, 128), (2, 1, 32, 64), (2, 1, 16, 32)]


@pytest.mark.usefixtures("meta")
def test_oasis_and_the_wavelet_generator_have_the_published_shapes() -> None:
    label, noise = torch.zeros(2, 35, 256, 512), torch.zeros(2, 64)
    oasis = OasisGenerator(35, width=64, norm="batch")
    wide = [(1024, 8, 16), (1024, 16, 32), (512, 32, 64), (256, 64, 128), (128, 128, 256), (64, 256, 512)]
    assert shapes(oasis, oasis.blocks, label, noise) == (wide, (3, 256, 512))
    wavelet = WaveletSpadeGenerator(35, width=64, norm="batch")
    wide = [(1024, 4, 8), (1024, 8, 16), (512, 16, 32), (256, 32, 64), (128, 64, 128), (64, 128, 256)]
    assert shapes(wavelet, wavelet.blocks, label, noise) == (wide, (3, 256, 512))
    square = [(1024, 4, 4), (1024, 8, 8), (512, 16, 16), (256, 32, 32), (128, 64, 64), (64, 128, 128)]
    wavelet = WaveletSpadeGenerator(35, width=64, norm="instance")
    assert shapes(wavelet, wavelet.blocks, label[..., :256], noise) == (square, (3, 256, 256))


@pytest.mark.parametrize("breadth", [512, 256])
@pytest.mark.usefixtures("meta")
def test_the_segmenting_discriminator_answers_twelve_features_of_the_published_shapes(breadth: int) -> None:
    scores, features = SegmentingDiscriminator(35, width=64).with_features(torch.zeros(1, 3, 256, breadth))
    down = [(128, 128), (128, 64), (256, 32), (256, 16), (512, 8), (512, 4)]
    up = [(512, 8), (256, 16), (256, 32), (128, 64), (128, 128), (64, 256)]
    assert [tuple(each.shape) for each in features] == [(1, c, h, h * breadth // 256) for c, h in down + up]
    assert scores.shape == (1, 36, 256, breadth)


@pytest.mark.parametrize(
    ("breadth", "parameters", "levels"),
    [
        (512, 25_333_377, [(256, 64, 128), (512, 32, 64), (512, 16, 32), (512, 8, 16), (512, 4, 8), (512, 2, 4)]),
        (256, 26_211_073, [(512, 64, 64), (512, 32, 32), (512, 16, 16), (512, 8, 8), (512, 4, 4)]),
    ],
)
@pytest.mark.usefixtures("meta")
def test_the_swagan_discriminator_has_the_published_parameters_and_shapes(
    breadth: int, parameters: int, levels: list[tuple[int, ...]]
) -> None:
    discriminator = SwaganDiscriminator(size=(256, breadth), width=64)
    assert count(discriminator) == parameters
    assert shapes(discriminator, discriminator.blocks, torch.zeros(4, 3, 256, breadth)) == (levels, (1,))


# The Haar transform.


def test_the_haar_transform_is_its_definition_grouped_by_band() -> None:
    picture = torch.randn(2, 3, 4, 6)
    bands = haar(picture)
    assert bands.shape == (2, 12, 2, 3)
    signs = {"LL": (1, 1, 1, 1), "LH": (1, 1, -1, -1), "HL": (1, -1, 1, -1), "HH": (1, -1, -1, 1)}
    for place, (a, b, c, d) in enumerate(signs.values()):
        for channel in range(3):
            for row in range(2):
                for column in range(3):
                    block = picture[:, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(2, 4)
                    expected = (block * torch.tensor([a, b, c, d])).sum(1) / 2
                    assert torch.allclose(bands[:, 3 * place + channel, row, column], expected, atol=1e-6)


def test_the_haar_transform_goes_back_keeps_the_energy_and_doubles_a_constant() -> None:
    whole = torch.randint(-64, 64, (2, 5, 8, 12)).float()
    assert torch.equal(inverse_haar(haar(whole)), whole)  # whole numbers and their halves are exact
    picture = torch.randn(2, 5, 8, 12)
    assert torch.allclose(inverse_haar(haar(picture)), picture, atol=1e-6)
    assert torch.allclose(haar(inverse_haar(haar(picture))), haar(picture), atol=1e-6)
    assert haar(picture).square().sum().item() == pytest.approx(picture.square().sum().item(), rel=1e-5)
    bands = haar(torch.ones(1, 2, 4, 4))
    assert torch.equal(bands[:, :2], torch.full((1, 2, 2, 2), 2.0))
    assert not bands[:, 2:].any()


# SPADE and the generators.


def test_spade_is_its_equation_in_space_and_between_the_transforms() -> None:
    condition = torch.rand(3, 5, 8, 8)

    def by_hand(spade: Spade, features: Tensor) -> Tensor:
        shared = conv2d(condition, spade.shared.weight, spade.shared.bias, padding=1).clamp(min=0)
        gamma, beta = (conv2d(shared, head.weight, head.bias, padding=1) for head in (spade.gamma, spade.beta))
        mean = features.mean((0, 2, 3), keepdim=True)
        deviation = (features.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        return (features - mean) / deviation * (1 + gamma) + beta

    features = torch.randn(3, 6, 8, 8) * 3 + 1
    spade = Spade(6, condition=5, hidden=4, norm="batch")
    nn.init.normal_(spade.gamma.weight)
    assert torch.allclose(spade(features, condition), by_hand(spade, features), atol=1e-4)
    wavelet = WaveletSpade(24, condition=5, hidden=4, norm="batch")
    nn.init.normal_(wavelet.gamma.weight)
    assert torch.allclose(wavelet(haar(features), condition), haar(by_hand(wavelet, features)), atol=1e-4)


@pytest.mark.parametrize(("name", "side"), [("oasis", 32), ("wavelet", 64)])
def test_a_generator_whose_first_grid_is_small_trains_with_batch_norm(name: str, side: int) -> None:
    generator = GENERATORS[name](3, width=4, norm="batch", noise=8)
    assert generator.multiple_of == side
    assert generator(one_hot(3, side, side, batch=2), torch.randn(2, 8)).shape == (2, 3, side, side)


# The discriminators.


def test_a_residual_block_is_the_published_one_though_it_resizes_before_its_shortcut() -> None:
    features = torch.randn(2, 6, 8, 8)
    for resize, leading in (("down", True), ("down", False), ("up", True)):
        block = ResidualBlock(6, 4, resize=resize, leading=leading).eval()
        inner = leaky_relu(features, 0.2) if leading else features
        shortcut = features
        if resize == "up":
            inner, shortcut = (interpolate(each, scale_factor=2, mode="nearest") for each in (inner, features))
        inner = block.conv_2(leaky_relu(block.conv_1(inner), 0.2))
        shortcut = block.shortcut(shortcut)
        if resize == "down":
            inner, shortcut = (torch.nn.functional.avg_pool2d(each, 2) for each in (inner, shortcut))
        assert torch.allclose(block(features), inner + shortcut, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_the_spread_of_a_batch_of_any_size_is_that_of_its_groups(batch: int) -> None:
    features = torch.randn(batch, 3, 2, 4)
    group = {1: 1, 2: 2, 3: 3, 5: 1, 8: 4}[batch]
    answer = with_spread(features)
    assert torch.equal(answer[:, :3], features)
    for sample in range(batch):
        mates = features[sample % (batch // group) :: batch // group].numpy()
        expected = np.sqrt(mates.var(0) + 1e-8).mean()
        assert torch.allclose(answer[sample, 3], torch.full((2, 4), float(expected)), atol=1e-6)
    discriminator = SwaganDiscriminator(size=(32, 48), width=4)
    assert discriminator(torch.randn(batch, 3, 32, 48)).shape == (batch, 1)


def test_the_swagan_discriminator_sees_the_whole_picture_and_its_batch() -> None:
    discriminator = SwaganDiscriminator(size=(64, 96), width=4)
    photo = torch.randn(2, 3, 64, 96, requires_grad=True)
    discriminator(photo)[0].sum().backward()
    assert photo.grad is not None
    assert (photo.grad[0].abs().sum(0) > 0).all()
    assert photo.grad[1].any()  # through the spread


@pytest.mark.parametrize("size", [(64, 72), (8, 8), (96, 512)])
def test_a_size_that_swagan_cannot_halve_often_enough_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]}.*multiples of"):
        SwaganDiscriminator(size=size, width=4)


# Frozen networks, batch-norm statistics and spectral norm.


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_frozen_discriminator_does_not_move_and_passes_the_gradient_on() -> None:
    discriminator = SegmentingDiscriminator(3, width=4)
    discriminator.encoder[2].eval()
    photo = torch.rand(1, 3, 64, 64, requires_grad=True)
    before = buffers_of(discriminator)
    with frozen(discriminator):
        scores = discriminator(photo)
    assert same(buffers_of(discriminator), before)
    scores.square().sum().backward()
    assert photo.grad is not None
    assert photo.grad.any()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in discriminator.parameters())
    assert discriminator.training
    assert not discriminator.encoder[2].training
    discriminator(photo)
    assert not same(buffers_of(discriminator), before)  # in train mode it would have moved


def test_batch_statistics_that_a_pass_in_training_moved_come_back_too() -> None:
    norm = nn.BatchNorm2d(3, affine=False)
    before = buffers_of(norm)
    with keeping_buffers(norm):
        norm(torch.rand(2, 3, 4, 4))
        assert not torch.equal(norm.running_mean, before["running_mean"])
    assert same(buffers_of(norm), before)


def test_a_backward_may_come_after_the_frozen_batch_norm() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 2, 1))
    photo = torch.rand(2, 3, 4, 4, requires_grad=True)
    with frozen(network):
        answer = network(photo)
    answer.sum().backward()
    assert photo.grad is not None
    assert photo.grad.any()


def test_updated_vectors_divide_new_weights_by_their_largest_singular_value() -> None:
    torch.manual_seed(0)
    convolution = SpectralConv2d(3, 5, 3).eval()
    with torch.no_grad():
        convolution.parametrizations["weight"].original.copy_(torch.randn(5, 3, 3, 3))

    def largest() -> float:
        return float(torch.linalg.matrix_norm(convolution.weight.detach().flatten(1), ord=2))

    assert largest() > 1.05  # the vectors belong to other weights
    update_spectral_norm(convolution, iterations=100)
    assert largest() == pytest.approx(1, abs=1e-3)
    assert not convolution.training


def test_a_fused_network_answers_alike_without_spectral_norm() -> None:
    discriminator = SegmentingDiscriminator(3, width=4)
    photo = torch.rand(1, 3, 64, 64)
    discriminator(photo).sum().backward()
    before, weights = discriminator.eval()(photo), count(discriminator)
    plain = fuse_spectral_norm(discriminator)
    assert not any("parametrizations" in name for name, _ in plain.named_modules())
    assert count(plain) == weights
    assert torch.equal(plain(photo), before)


def test_statistics_are_the_mean_over_the_given_batches_and_can_be_put_back() -> None:
    generator = OasisGenerator(3, width=4, norm="batch", noise=8)
    inputs = [(one_hot(3, 64, 64, batch=2), torch.randn(2, 8)) for _ in range(3)]
    generator(*inputs[0])
    norm = generator.blocks[0].spade_1.norm
    batches: list[Tensor] = []
    norm.register_forward_hook(lambda _, given, __: batches.append(given[0].detach()))
    before = buffers_of(generator)
    with keeping_buffers(generator):
        estimate_statistics(generator, inputs)
        means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
        variances = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches]).mean(0)
        assert torch.allclose(norm.running_mean, means, atol=1e-6)
        assert torch.allclose(norm.running_var, variances, atol=1e-6)
    assert same(buffers_of(generator), before)
    assert generator.training
    assert norm.momentum == 0.1


def test_the_power_iteration_of_spectral_norm_runs_in_fp32_under_autocast() -> None:
    torch.manual_seed(0)
    exact = SpectralConv2d(8, 8, 3)
    mixed, photo = copy.deepcopy(exact), torch.rand(1, 8, 6, 6)
    exact(photo)
    autocast: list[bool] = []
    norm = cast(nn.ModuleDict, mixed.parametrizations)["weight"]
    norm.register_forward_pre_hook(lambda *_: autocast.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", torch.bfloat16):
        assert mixed(photo).dtype == torch.bfloat16
    assert autocast == [False]
    assert same(buffers_of(mixed), buffers_of(exact))
