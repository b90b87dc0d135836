"""BicycleGAN: its networks' published sizes, its equations, what moves by which loss, and what its code does."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from tests.trainer.factories import SIZE, count, tiny_batch, tiny_config, tiny_method
from tests.trainer.test_step_equations import still
from trainer.batch import Domain
from trainer.methods import METHODS
from trainer.networks.patchgan import Patch, TwoScalePatchGAN
from trainer.networks.residual_encoder import ResidualEncoder
from trainer.networks.unet import UNetGenerator
from trainer.recipes import RECIPES
from trainer.training.watch import notices

STEP = 5


def unet(channels: int, *, width: int, levels: int) -> UNetGenerator:
    return UNetGenerator(channels, 3, width=width, levels=levels, skips=True, tanh=True, noise=8)


@pytest.mark.parametrize(
    ("channels", "width", "levels", "parameters"),
    [(3, 64, 8, 54_794_627), (3, 64, 7, 42_145_155), (1, 64, 8, 54_792_579), (11, 32, 6, 7_444_675)],
)
def test_the_generator_has_the_published_number_of_parameters(
    channels: int, width: int, levels: int, parameters: int
) -> None:
    with torch.device("meta"):
        assert count(unet(channels, width=width, levels=levels)) == parameters


@pytest.mark.parametrize(("width", "patch", "parameters"), [(64, 70, 3_458_978), (64, 34, 830_626), (32, 70, 869_330)])
def test_the_discriminator_has_the_published_number_of_parameters_and_maps(
    width: int, patch: Patch, parameters: int
) -> None:
    with torch.device("meta"):
        assert count(TwoScalePatchGAN(width=width, patch=patch)) == parameters
    if patch == 70:
        maps = TwoScalePatchGAN(width=2, patch=patch)(torch.zeros(1, 3, 256, 256))
        assert [logits.shape for logits in maps] == [(1, 1, 30, 30), (1, 1, 14, 14)]


@pytest.mark.parametrize(("width", "blocks", "parameters"), [(64, 4, 2_590_032), (64, 3, 1_344_080), (32, 3, 338_224)])
def test_the_encoder_has_the_published_number_of_parameters(width: int, blocks: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count(ResidualEncoder(8, width=width, blocks=blocks)) == parameters


def test_the_recipes_have_the_papers_networks_weights_and_epochs() -> None:
    paper, compact = RECIPES["bicycle-gan-paper"], RECIPES["bicycle-gan-compact"]
    config = paper.config
    assert (config.reconstruction, config.latent, config.kl, config.noise) == (10, 0.5, 0.01, 8)
    assert (paper.steps * paper.batch, paper.size, config.levels, config.width) == (400 * 400, (256, 256), 8, 64)
    with torch.device("meta"):
        method: Any = METHODS["bicycle_gan"](config, Domain("picture"), size=paper.size, seed=0)
        small: Any = METHODS["bicycle_gan"](compact.config, Domain("picture"), size=compact.size, seed=0)
    assert [count(each) for each in (method.generator, method.encoder)] == [54_794_627, 2_590_032]
    assert count(small.encoder) == 338_224


def test_layers_have_instance_norm_and_dropout_where_the_release_has_them() -> None:
    network = unet(3, width=2, levels=8)
    kinds = [[type(part) for part in layer] for layer in (*network.encoder, *network.decoder)]
    assert [nn.InstanceNorm2d in layer for layer in kinds] == [False, *[True] * 6, False, *[True] * 7, False]
    assert [nn.Dropout in layer for layer in kinds] == [*[False] * 9, *[True] * 3, *[False] * 4]
    assert [nn.Dropout in [*map(type, layer)] for layer in unet(3, width=2, levels=7).decoder].count(True) == 2


def test_weights_start_xavier_normal_with_gain_002_and_biases_at_zero() -> None:
    method: Any = tiny_method("bicycle_gan", width=32)
    for layer in (
        method.generator.decoder[1][0],
        method.encoder.blocks[0].outer,
        method.encoded_discriminator.fine.model[2],
    ):
        weight = layer.weight
        fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
        assert weight.std().item() == pytest.approx(0.02 * math.sqrt(2 / fans), rel=0.05)
        assert not layer.bias.any()


def squared(discriminator: Any, photo: Tensor, target: float) -> float:
    """The mean squared distance of each scale's logits from the target, added up."""
    halved = avg_pool2d(photo, 3, stride=2, padding=1, count_include_pad=False)
    scales = (discriminator.fine(photo), discriminator.coarse(halved))
    return sum((logits - target).square().mean().item() for logits in scales)


@pytest.mark.parametrize(("length", "first", "second"), [(1, [0], [0]), (3, [0, 1], [1, 2]), (4, [0, 1], [2, 3])])
@pytest.mark.parametrize("label_as", ["colours", "classes"])
def test_a_step_minimises_the_papers_equations_on_the_halves_of_a_batch(
    label_as: str, length: int, first: list[int], second: list[int]
) -> None:
    method, batch = still("bicycle_gan", label_as=label_as, kl=0.1), tiny_batch(length=length)
    photo, label = batch.paired.photo, method.encode(batch.paired.label[first])
    mean, deviation = method.encoder(photo[first])
    drawn, moved = (method.noise(label, STEP, stream) for stream in ("drawn", "encoded"))
    encoded, made = method.generator(label, mean + deviation * moved), method.generator(label, drawn)
    variance = deviation.square()
    divergence = -0.5 * (1 + variance.log() - mean.square() - variance).sum(1)
    expected = {
        "generator": {
            "adversarial_encoded": squared(method.encoded_discriminator, encoded, 1),
            "adversarial_drawn": squared(method.drawn_discriminator, made, 1),
            "pairs": 10 * (encoded - photo[first]).abs().mean().item(),
            "latent": 0.5 * (method.encoder(made)[0] - drawn).abs().mean().item(),
            "kl": 0.1 * divergence.mean().item(),
        },
        "discriminators": {
            "real_encoded": squared(method.encoded_discriminator, photo[first], 1),
            "fake_encoded": squared(method.encoded_discriminator, encoded, 0),
            "real_drawn": squared(method.drawn_discriminator, photo[second], 1),
            "fake_drawn": squared(method.drawn_discriminator, made, 0),
        },
    }
    updates = list(method.step(batch, STEP))
    assert [update.groups for update in updates] == list(expected)
    for update in updates:
        values = {name: loss.item() for name, loss in update.losses.items()}
        assert values == pytest.approx(expected[update.groups], rel=1e-4)


def test_the_encoder_moves_by_the_reconstruction_and_not_by_the_code_that_was_drawn() -> None:
    method: Any = tiny_method("bicycle_gan")
    terms = next(method.step(tiny_batch(length=2), STEP)).losses

    def reached(term: str, network: nn.Module) -> bool:
        gradients = torch.autograd.grad(terms[term], list(network.parameters()), retain_graph=True, allow_unused=True)
        return any(gradient is not None and bool(gradient.any()) for gradient in gradients)

    reach = {term: (reached(term, method.generator), reached(term, method.encoder)) for term in terms}
    both, generator, encoder = (True, True), (True, False), (False, True)
    wanted = {"pairs": both, "adversarial_encoded": both, "adversarial_drawn": generator, "latent": generator}
    assert reach == wanted | {"kl": encoder}
    assert all(parameter.requires_grad for parameter in method.encoder.parameters())


def test_a_code_decides_the_photo_and_a_photo_s_style_is_its_mean_code() -> None:
    method, label = still("bicycle_gan"), tiny_batch(length=2).paired.label
    code = torch.randn(2, *method.noise_shape)
    with torch.no_grad():
        photo = method.to_photo(label, code)
        assert torch.equal(method.to_photo(label, code), photo)
        assert torch.allclose(method.to_photo(label.flip(0), code.flip(0)).flip(0), photo, atol=1e-5)
        assert (method.to_photo(label, -code) - photo).abs().mean() > 1e-3
        style = method.style_of(photo)
        assert torch.equal(style, method.encoder(photo)[0])
        assert style.shape == code.shape
    assert method.style_size == SIZE


def test_every_level_of_the_encoder_sees_the_noise_and_no_skip_does() -> None:
    network, picture, code = unet(3, width=4, levels=4).eval(), torch.rand(1, 3, 32, 48), torch.randn(1, 8)
    nn.init.normal_(network.encoder[3][0].weight)
    for level, layer in enumerate(network.encoder):
        silent = copy.deepcopy(network)
        for other, part in enumerate(silent.encoder):
            if other != level:  # the noise comes in at this level alone
                part[0].weight.data[:, :8] = 0
        given = []
        silent.encoder[level].register_forward_hook(lambda _, inputs, __, given=given: given.append(inputs[0]))
        with torch.no_grad():
            assert not torch.equal(silent(picture, code), silent(picture, -code)), level
        assert given[0].shape[1] == layer[0].in_channels
        assert not torch.equal(given[0][:, :8], given[1][:, :8])
        assert torch.equal(given[0][:, 8:], given[1][:, 8:])


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [(0.8, 0.75, {"latent"}), (0.8, 0.6, set()), (0.85, 0.71, {"latent"}), (0.4, 0.4, set())],
)
def test_a_code_that_photos_do_not_show_is_noticed_by_the_unweighted_latent_term(
    before: float, after: float, kinds: set[str]
) -> None:
    config = tiny_config("bicycle_gan", latent=0.25)
    lines = [
        {"peak_memory_mib": 1, "generator/latent": 0.25 * value, "discriminators/real_encoded": number % 2}
        for value in (before, after)
        for number in range(25)
    ]
    found = notices(lines, config)
    assert found.keys() == kinds
    assert notices(lines[1:], config) == {}, "a young run is not judged"
    assert all("lower --config.kl (it was 0.01)" in sentence for sentence in found.values())
    without = dataclasses.replace(config, latent=0.0)
    assert notices([{**line, "generator/latent": 0.0} for line in lines], without) == {}
