"""The networks have the papers' exact sizes, shapes and receptive fields."""

import pytest
import torch
from torch import nn

from tests.trainer.factories import count
from trainer.networks.normalisation import BatchNorm
from trainer.networks.patchgan import LAYERS, Norm, Patch, PatchGAN, smallest_side
from trainer.networks.resnet import ResNetGenerator
from trainer.networks.unet import UNetGenerator


@pytest.mark.parametrize(("blocks", "parameters"), [(9, 11_378_179), (6, 7_837_699)])
def test_the_resnet_generator_has_the_published_number_of_parameters(blocks: int, parameters: int) -> None:
    assert count(ResNetGenerator(3, 3, width=64, blocks=blocks, tanh=True)) == parameters


def test_the_generator_judges_each_sample_alone() -> None:
    network = ResNetGenerator(3, 3, width=4, blocks=1, tanh=True).eval()
    pictures = torch.randn(3, 3, 32, 32)
    together = network(pictures)
    alone = torch.cat([network(picture[None]) for picture in pictures])
    assert torch.allclose(together, alone, atol=1e-5)


PATCHES = [(1, 256), (16, 126), (34, 62), (70, 30), (142, 14), (286, 6)]


@pytest.mark.parametrize(("patch", "side"), PATCHES)
def test_the_patchgan_has_the_published_map_and_receptive_field(patch: Patch, side: int) -> None:
    # the receptive field, by the gradient's support; instance norm would spread it over the picture
    narrow = PatchGAN(3, width=2, patch=patch)
    for index, module in enumerate(narrow.model):
        if isinstance(module, nn.InstanceNorm2d):
            narrow.model[index] = nn.Identity()
        elif isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    assert narrow(torch.zeros(1, 3, 256, 256)).shape == (1, 1, side, side)
    large = max(256, 2 * patch)  # so that the whole field of a logit in the middle lies inside
    picture = torch.zeros(1, 3, large, large, requires_grad=True)
    logits = narrow(picture)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    assert picture.grad is not None
    rows = picture.grad[0].abs().sum((0, 2)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == patch


@pytest.mark.parametrize(
    ("patch", "instance", "batch"),
    [
        (1, 3 * 64 + 64 + 64 * 128 + 128 + 128 + 1, 6 * 64 + 64 + 64 * 128 + 2 * 128 + 128 + 1),
        (16, 136_385, 139_585),
        (34, 662_977, 666_433),
        (70, 2_764_737, 2_768_705),
        (142, 6_959_553, 6_964_033),
        (286, 11_154_369, 11_159_361),
    ],
)
def test_the_patchgan_has_the_published_number_of_parameters(patch: Patch, instance: int, batch: int) -> None:
    assert count(PatchGAN(3, width=64, patch=patch)) == instance
    assert count(PatchGAN(6, width=64, patch=patch, norm="batch")) == batch


@pytest.mark.parametrize("patch", [patch for patch, _ in PATCHES])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_smallest_side_of_a_patch_is_the_least_that_works(patch: Patch, norm: Norm) -> None:
    discriminator, side = PatchGAN(3, width=2, patch=patch, norm=norm), smallest_side(patch)
    assert discriminator(torch.rand(1, 3, side, side)).isfinite().all()
    smaller = side - 2 ** LAYERS[patch]
    with pytest.raises((RuntimeError, ValueError)):
        discriminator(torch.rand(1, 3, smaller, smaller))


@pytest.mark.parametrize(("skips", "parameters"), [(True, 54_413_955), (False, 39_075_459)])
def test_the_unet_has_the_published_number_of_parameters(skips: bool, parameters: int) -> None:
    assert count(UNetGenerator(3, 3, width=64, levels=8, skips=skips, tanh=True)) == parameters


def test_the_layers_of_the_unet_are_those_of_the_paper() -> None:
    network = UNetGenerator(3, 3, width=64, levels=8, skips=True, tanh=True)
    shapes = []
    for layer in (*network.encoder, *network.decoder):
        kinds = [type(part) for part in layer]
        convolution = layer[0]
        assert (convolution.kernel_size, convolution.stride, convolution.padding) == ((4, 4), (2, 2), (1, 1))
        shapes.append((convolution.in_channels, convolution.out_channels, BatchNorm in kinds, nn.Dropout in kinds))
    taken, given, normed, dropped = zip(*shapes, strict=True)
    assert taken == (3, 64, 128, 256, 512, 512, 512, 512, 512, 1024, 1024, 1024, 1024, 512, 256, 128)
    assert given == (64, 128, 256, 512, 512, 512, 512, 512, 512, 512, 512, 512, 256, 128, 64, 3)
    assert [place for place, has in enumerate(normed) if not has] == [0, 7, 15]
    assert [place for place, has in enumerate(dropped) if has] == [8, 9, 10]
    assert [layer[0].bias is not None for layer in (*network.encoder, *network.decoder)] == [False] * 15 + [True]


@pytest.mark.parametrize(("levels", "size"), [(2, (4, 8)), (3, (8, 24)), (5, (32, 64)), (6, (64, 128))])
@pytest.mark.parametrize("skips", [True, False])
def test_the_unet_keeps_any_size_in_multiples_of_its_own_and_trains_on_one_picture_with_a_1x1_bottleneck(
    levels: int, size: tuple[int, int], skips: bool
) -> None:
    network = UNetGenerator(5, 3, width=4, levels=levels, skips=skips, tanh=True)
    assert network.multiple_of == 2**levels
    smallest = network(torch.randn(1, 5, network.multiple_of, network.multiple_of))
    assert smallest.shape == (1, 3, network.multiple_of, network.multiple_of)
    photo = network(torch.randn(2, 5, *size))
    assert photo.shape == (2, 3, *size)
    assert photo.abs().max() <= 1


def test_the_decoder_sees_the_encoder_s_features_of_its_own_size_only_with_skips() -> None:
    for skips in (True, False):
        torch.manual_seed(0)
        network = UNetGenerator(3, 3, width=4, levels=4, skips=skips, tanh=True).eval()
        with torch.no_grad():  # nothing passes the bottleneck
            for parameter in network.encoder[3].parameters():
                parameter.zero_()
            one, other = network(torch.rand(1, 3, 16, 16)), network(torch.rand(1, 3, 16, 16))
        assert torch.equal(one, other) == (not skips)


def test_batch_norm_has_the_batch_s_statistics_in_training_and_each_picture_s_own_in_use() -> None:
    norm = BatchNorm(3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    features = torch.randn(4, 3, 6, 5) * 3 + 1
    affine = (norm.weight.view(1, 3, 1, 1), norm.bias.view(1, 3, 1, 1))

    def by_hand(over: tuple[int, ...]) -> torch.Tensor:
        mean, variance = features.mean(over, keepdim=True), features.var(over, unbiased=False, keepdim=True)
        return (features - mean) / (variance + 1e-5).sqrt() * affine[0] + affine[1]

    assert torch.allclose(norm(features), by_hand((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.eval()(features), by_hand((2, 3)), atol=1e-5)


def test_dropout_is_random_in_training_and_off_in_use() -> None:
    network = UNetGenerator(3, 3, width=8, levels=4, skips=False, tanh=True)
    picture = torch.randn(1, 3, 32, 32)
    assert not torch.equal(network(picture), network(picture))
    assert torch.equal(network.eval()(picture), network(picture))


def test_weights_start_as_the_papers_say() -> None:
    network = ResNetGenerator(3, 3, width=64, blocks=1, tanh=True)
    convolution = network.model[4]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert convolution.bias is not None
    assert not convolution.bias.any()
