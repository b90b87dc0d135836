"""First weights: torch's own, or the released codes', under spectral norm too."""

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from tests.trainer.factories import material_for, tiny_config, tiny_method, tiny_run
from trainer.__main__ import main
from trainer.experiment.trials import key_of
from trainer.methods import METHODS
from trainer.recipes import RECIPES, from_json, to_json
from trainer.rundir import build_method

WITH_THE_CHOICE = tuple(
    name for name, method in METHODS.items() if "first_weights" in {each.name for each in dataclasses.fields(method.config_class)}
)


def layers(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear, torch.Tensor]]:
    """Every convolution and linear layer with the weight that is trained: before the division, where there is spectral norm."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield name, module, module.parametrizations["weight"].original if is_parametrized(module, "weight") else module.weight


def test_the_methods_from_label_maps_have_the_choice_and_no_other() -> None:
    assert set(WITH_THE_CHOICE) == {"spade", "oasis", "tcr", "usis", "semipaired"}


@pytest.mark.parametrize("name", WITH_THE_CHOICE)
def test_xavier_gives_every_convolution_the_released_deviation_and_no_bias(name: str) -> None:
    found = list(layers(tiny_method(name, first_weights="xavier", **({"reverse": "separate"} if name == "semipaired" else {}))))
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
    method = tiny_method("semipaired", first_weights="xavier").eval()
    for where, layer, weight in layers(method.discriminator):
        if is_parametrized(layer, "weight"):
            sigma = torch.linalg.matrix_norm(weight.detach().flatten(1), ord=2)
            assert sigma < 0.2, where
            assert torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2) == pytest.approx(1, abs=0.1), where


def test_the_critic_of_wavelets_keeps_the_first_weights_of_its_equalised_rate() -> None:
    torch_s, released = (tiny_method("semipaired", first_weights=choice).critic.state_dict() for choice in ("torch", "xavier"))
    assert all(torch.equal(torch_s[name], released[name]) for name in torch_s)


@pytest.mark.parametrize("choice", ["torch", "xavier"])
def test_first_weights_are_a_function_of_the_seed(choice: str) -> None:
    def built(seed: int) -> dict[str, torch.Tensor]:
        run = tiny_run("oasis", config=tiny_config("oasis", first_weights=choice), seed=seed)
        method = tiny_method("oasis")
        return build_method(run, method.photo_domain, method.label_domain).state_dict()

    first, again, other = built(0), built(0), built(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["generator.start.weight"], other["generator.start.weight"])


def test_a_misspelt_choice_is_refused_on_the_command_line_and_in_a_table(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "oasis-compact", "--root", str(tmp_path), "--out", str(tmp_path / "run"), "--config.first-weights", "xaver"])
    assert "invalid choice 'xaver'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="first_weights 'xaver': give torch or xavier"):
        tiny_method("oasis", first_weights="xaver")


def test_runs_from_before_the_choice_load_with_torchs_first_weights() -> None:
    run = RECIPES["semipaired-compact"]
    values = to_json(run)
    del values["config"]["first_weights"]
    assert from_json(values) == run
    assert run.config.first_weights == "torch"


def test_results_from_before_the_choice_keep_their_keys() -> None:
    run = tiny_run("oasis")
    values = {name: value for name, value in dataclasses.asdict(run.config).items() if name != "first_weights"}
    fields = [(each.name, each.type, each.default) for each in dataclasses.fields(run.config) if each.name in values]
    before = dataclasses.replace(run, config=dataclasses.make_dataclass("Config", fields)(**values))
    asked = dataclasses.replace(run, config=dataclasses.replace(run.config, first_weights="xavier"))
    _, selection = material_for(run)
    assert key_of(run, selection) == key_of(before, selection) != key_of(asked, selection)


@pytest.mark.parametrize("name", WITH_THE_CHOICE)
def test_the_recipes_of_the_papers_begin_as_the_released_codes_do(name: str) -> None:
    assert RECIPES[f"{name}-paper"].config.first_weights == "xavier"
    assert RECIPES[f"{name}-compact"].config.first_weights == "torch"
