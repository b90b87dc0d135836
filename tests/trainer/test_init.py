"""Weight initialisation: torch's own, or that of the released codes, under spectral norm too."""

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from tests.trainer.factories import tiny_method
from trainer.__main__ import main
from trainer.methods import METHODS
from trainer.recipes import RECIPES

WITH_THE_CHOICE = tuple(
    name
    for name, method in METHODS.items()
    if "initialisation" in {each.name for each in dataclasses.fields(method.config_class)}
)


def layers(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear, torch.Tensor]]:
    """Every convolution and linear layer with the weight that is trained: before the division, where there is spectral
    norm.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield (
                name,
                module,
                module.parametrizations["weight"].original if is_parametrized(module, "weight") else module.weight,
            )


@pytest.mark.parametrize("name", WITH_THE_CHOICE)
def test_xavier_gives_every_convolution_the_released_deviation_and_no_bias(name: str) -> None:
    found = list(
        layers(tiny_method(name, initialisation="xavier", **({"reverse": "separate"} if name == "semipaired" else {})))
    )
    assert sum(is_parametrized(layer, "weight") for _, layer, _ in found) > 10
    scaled = []
    for where, layer, weight in found:
        fan_in, fan_out = (weight[0].numel(), weight.shape[0] * weight[0, 0].numel())
        scaled.append(weight.detach().flatten() / (0.02 * math.sqrt(2 / (fan_in + fan_out))))
        assert scaled[-1].std() == pytest.approx(1, abs=6 / math.sqrt(weight.numel())), where
        assert scaled[-1].mean() == pytest.approx(0, abs=6 / math.sqrt(weight.numel())), where
        assert layer.bias is None or not layer.bias.any(), where
    assert torch.cat(scaled).std() == pytest.approx(1, abs=0.02)


def test_under_spectral_norm_the_new_weights_are_divided_by_their_own_largest_singular_value() -> None:
    method = tiny_method("semipaired", initialisation="xavier").eval()
    for where, layer, weight in layers(method.discriminator):
        if is_parametrized(layer, "weight"):
            sigma = torch.linalg.matrix_norm(weight.detach().flatten(1), ord=2)
            assert sigma < 0.2, where
            assert torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2) == pytest.approx(1, abs=0.1), where


def test_a_misspelt_choice_is_refused_on_the_command_line_and_in_a_table(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "oasis-compact", f"--root={tmp_path}", f"--out={tmp_path}/run", "--config.initialisation=xaver"])
    assert "invalid choice 'xaver'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="initialisation 'xaver': give torch or xavier"):
        tiny_method("oasis", initialisation="xaver")


@pytest.mark.parametrize("name", WITH_THE_CHOICE)
def test_the_default_is_the_released_initialisation_and_compact_recipes_take_torchs(name: str) -> None:
    assert METHODS[name].config_class().initialisation == "xavier"
    assert RECIPES[f"{name.replace('_', '-')}-compact"].config.initialisation == "torch"
