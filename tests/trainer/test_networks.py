"""The networks have the papers' exact sizes, shapes and receptive fields."""

import pytest
import torch
from torch import nn

from trainer.errors import UserError
from trainer.networks.normalisation import InstanceNorm
from trainer.networks.patchgan import PatchGAN
from trainer.networks.resnet import ResNetGenerator, load_junyanz


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("blocks", "parameters"), [(9, 11_378_179), (6, 7_837_699)])
def test_the_resnet_generator_has_the_published_number_of_parameters(blocks: int, parameters: int) -> None:
    assert count(ResNetGenerator(3, 3, width=64, blocks=blocks, tanh=True)) == parameters


@pytest.mark.parametrize("size", [(64, 64), (32, 48), (40, 36)])
def test_the_resnet_generator_keeps_the_size_and_answers_in_minus_one_to_one(size: tuple[int, int]) -> None:
    photo = ResNetGenerator(5, 3, width=4, blocks=2, tanh=True)(torch.randn(2, 5, *size))
    assert photo.shape == (2, 3, *size)
    assert photo.abs().max() <= 1


def test_the_generator_judges_each_sample_alone() -> None:
    network = ResNetGenerator(3, 3, width=4, blocks=1, tanh=True).eval()
    pictures = torch.randn(3, 3, 32, 32)
    together = network(pictures)
    alone = torch.cat([network(picture[None]) for picture in pictures])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "field", "side", "parameters"),
    [(1, 16, 126, 136_385), (2, 34, 62, 662_977), (3, 70, 30, 2_764_737), (4, 142, 14, 6_959_553)],
)
def test_the_patchgan_has_the_published_parameters_map_and_receptive_field(layers: int, field: int, side: int, parameters: int) -> None:
    assert count(PatchGAN(3, width=64, layers=layers)) == parameters
    # the receptive field, by the gradient's support; instance norm would spread it over the picture
    narrow = PatchGAN(3, width=2, layers=layers)
    for index, module in enumerate(narrow.model):
        if isinstance(module, InstanceNorm):
            narrow.model[index] = nn.Identity()
        elif isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    picture = torch.zeros(1, 3, 256, 256, requires_grad=True)
    logits = narrow(picture)
    assert logits.shape == (1, 1, side, side)
    logits[0, 0, side // 2, side // 2].backward()
    assert picture.grad is not None
    rows = picture.grad[0].abs().sum((0, 2)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == field


def test_weights_start_as_the_papers_say() -> None:
    network = ResNetGenerator(3, 3, width=64, blocks=1, tanh=True)
    convolution = network.model[4]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert convolution.bias is not None
    assert not convolution.bias.any()


def test_instance_norm_leaves_mean_zero_and_variance_one() -> None:
    features = InstanceNorm()(torch.randn(2, 3, 16, 16) * 5 + 7)
    assert torch.allclose(features.mean((2, 3)), torch.zeros(2, 3), atol=1e-5)
    assert torch.allclose(features.var((2, 3), unbiased=False), torch.ones(2, 3), atol=1e-3)


def test_a_junyanz_checkpoint_loads_with_its_dead_statistics_and_dropout_numbering() -> None:
    torch.manual_seed(1)
    trained = ResNetGenerator(3, 3, width=4, blocks=2, tanh=True)
    published = {}
    for key, value in trained.state_dict().items():
        published["module." + key.replace(".conv_block.5.", ".conv_block.6.")] = value
    published["module.model.2.running_mean"] = torch.zeros(4)
    published["module.model.2.num_batches_tracked"] = torch.tensor(7)
    loaded = ResNetGenerator(3, 3, width=4, blocks=2, tanh=True)
    load_junyanz(loaded, published)
    picture = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(picture), trained(picture))


def test_the_keys_are_those_of_a_junyanz_generator() -> None:
    keys = set(ResNetGenerator(3, 3, width=4, blocks=9, tanh=True).state_dict())
    # from the layers of a published 9-block checkpoint: stem, two downs, nine blocks, two ups, head
    expected = {f"model.{place}.{kind}" for place in (1, 4, 7, 19, 22, 26) for kind in ("weight", "bias")}
    expected |= {f"model.{place}.conv_block.{half}.{kind}" for place in range(10, 19) for half in (1, 5) for kind in ("weight", "bias")}
    assert keys == expected


@pytest.mark.parametrize(("width", "blocks", "remedy"), [(4, 3, "set blocks"), (8, 2, "set width")])
def test_a_checkpoint_of_another_architecture_is_refused_with_the_remedy(width: int, blocks: int, remedy: str) -> None:
    other = ResNetGenerator(3, 3, width=width, blocks=blocks, tanh=True).state_dict()
    with pytest.raises(UserError, match=remedy):
        load_junyanz(ResNetGenerator(3, 3, width=4, blocks=2, tanh=True), other)


def test_statistics_are_taken_in_fp32_under_bf16_autocast() -> None:
    features = (torch.randn(1, 4, 128, 192) * 0.5 + 30).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        normalised = InstanceNorm()(features)
    exact = torch.nn.functional.instance_norm(features.double())
    # a sum of 24 576 values near 30 in bf16 would be off by whole standard deviations; what is left is the answer's own
    # rounding (2^-9 of it) and a shift of some hundredths, that of a kernel which sums bf16 values in fp32
    assert ((normalised.double() - exact).abs() <= exact.abs() / 256 + 3e-2).all()
