"""The adversarial games against their equations, and what the methods do with them."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.factories import tiny_batch, tiny_method
from trainer.games import GAMES, GameName

REAL, FAKE = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3) + 0.5


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def slow(name: GameName, real: list[float], fake: list[float]) -> tuple[float, float]:
    """(the discriminator's loss, the generator's), patch by patch."""
    pairs = list(zip(real, fake, strict=True))
    if name == "vanilla":
        critic = [0.5 * (-math.log(sigmoid(r)) - math.log(1 - sigmoid(f))) for r, f in pairs]
        generator = [-math.log(sigmoid(f)) for f in fake]
    elif name == "lsgan":
        critic = [0.5 * ((r - 1) ** 2 + f**2) for r, f in pairs]
        generator = [(f - 1) ** 2 for f in fake]
    elif name == "hinge":
        critic = [max(0, 1 - r) + max(0, 1 + f) for r, f in pairs]
        generator = [-f for f in fake]
    elif name == "relativistic":
        critic = [-math.log(sigmoid(r - f)) for r, f in pairs]
        generator = [-math.log(sigmoid(f - r)) for r, f in pairs]
    else:
        mean_real, mean_fake = np.mean(real), np.mean(fake)
        critic = [0.5 * ((r - mean_fake - 1) ** 2 + (f - mean_real + 1) ** 2) for r, f in pairs]
        generator = [0.5 * ((f - mean_real - 1) ** 2 + (r - mean_fake + 1) ** 2) for r, f in pairs]
    return float(np.mean(critic)), float(np.mean(generator))


@pytest.mark.parametrize("name", GAMES)
def test_a_game_agrees_with_its_equations(name: GameName) -> None:
    game = GAMES[name]
    critic, generator = slow(name, REAL.flatten().tolist(), FAKE.flatten().tolist())
    assert game.critic(REAL, FAKE).item() == pytest.approx(critic, rel=1e-5)
    assert game.generator(FAKE, REAL if game.compares else None).item() == pytest.approx(generator, rel=1e-5)


@pytest.mark.parametrize("name", GAMES)
def test_a_better_discriminator_pays_less_and_a_better_forger_too(name: GameName) -> None:
    game = GAMES[name]
    low, high = torch.full((1, 1, 2, 2), -0.5), torch.full((1, 1, 2, 2), 0.5)
    assert game.critic(high, low) < game.critic(low, high)
    known = torch.zeros(1, 1, 2, 2) if game.compares else None
    assert game.generator(high, known) < game.generator(low, known)


@pytest.mark.parametrize("name", GAMES)
def test_a_game_is_computed_in_fp32(name: GameName) -> None:
    game, logits = GAMES[name], torch.randn(1, 1, 4, 4).bfloat16()
    assert game.critic(logits, -logits).dtype == torch.float32
    assert game.generator(logits, -logits).dtype == torch.float32


def test_a_relativistic_generator_without_real_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="compared with real samples"):
        GAMES["relativistic"].generator(FAKE, None)


def test_the_logits_of_real_samples_carry_no_gradient_and_are_asked_for_only_where_they_count() -> None:
    critic = torch.nn.Conv2d(3, 1, 4)
    picture = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert GAMES["lsgan"].known(critic, picture) is None
    known = GAMES["relativistic"].known(critic, picture)
    assert known is not None
    assert not known.requires_grad


def played(name: str, **changes: Any) -> dict[str, float]:
    """Every loss of one step."""
    method = tiny_method(name, **changes)
    return {f"{update.player}/{term}": loss.item() for update in method.step(tiny_batch(), 0) for term, loss in update.losses.items()}


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan", "hybrid", "tripathy"])
def test_the_named_game_is_the_one_that_is_played(method: str) -> None:
    by_game = {name: played(method, game=name) for name in GAMES}
    adversarial = [name for name in by_game["lsgan"] if "adversarial" in name or name.startswith("critic")]
    assert adversarial
    for term in by_game["lsgan"]:
        values = {round(losses[term], 7) for losses in by_game.values()}
        assert len(values) == (len(GAMES) if term in adversarial else 1), term


def test_the_distance_weighs_pairs_and_cycles_as_its_name_says() -> None:
    by_name = {name: played("hybrid", distance=name, cycle_distance=name) for name in ("l1", "l2", "half")}
    for term in ("pairs_label", "pairs_photo", "cycle_label", "cycle_photo"):
        l1, l2, half = (losses[f"generators/{term}"] for losses in by_name.values())
        assert l1 != pytest.approx(l2, rel=1e-3)
        assert half == pytest.approx((l1 + l2) / 2, rel=1e-4)
    assert by_name["l1"]["generators/identity_photo"] == by_name["l2"]["generators/identity_photo"]


def test_with_class_scores_the_label_s_distance_is_cross_entropy_whatever_its_name() -> None:
    one, other = (played("hybrid", label_as="classes", distance=name, cycle_distance=name) for name in ("l1", "l2"))
    for term in ("pairs_label", "cycle_label"):
        assert one[f"generators/{term}"] == other[f"generators/{term}"]
    assert one["generators/pairs_photo"] != other["generators/pairs_photo"]
