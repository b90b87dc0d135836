"""Tripathy's four discriminators see what the poster says, in each of the two phases."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.factories import losses_of, tiny_batch, tiny_method
from trainer import labels
from trainer.batch import Batch
from trainer.errors import UserError
from trainer.methods import tripathy

DISCRIMINATORS = ("label_discriminator", "photo_discriminator", "label_pair_discriminator", "photo_pair_discriminator")


def spied(method: Any, batch: Batch, step: int) -> dict[str, dict[str, list[Tensor]]]:
    """What each discriminator was shown in one step, by group and discriminator, in order."""
    shown: dict[str, list[Tensor]] = {name: [] for name in DISCRIMINATORS}
    handles = [
        getattr(method, name).register_forward_pre_hook(
            lambda module, given, name=name: shown[name].append(given[0].detach().clone())
        )
        for name in DISCRIMINATORS
    ]
    seen: dict[str, dict[str, list[Tensor]]] = {}
    for update in method.step(batch, step):
        seen[update.groups] = {name: list(pictures) for name, pictures in shown.items()}
        for pictures in shown.values():
            pictures.clear()
    for handle in handles:
        handle.remove()
    return seen


def translations(method: Any, photo: Tensor, drawn: Tensor) -> dict[str, Tensor]:
    """G1(x), G2(y), G1(G2(y)) and G2(G1(x)) in the poster's names."""
    with torch.no_grad():
        fake_label, fake_photo = method.probabilities(method.label_generator(photo)), method.photo_generator(drawn)
        return {
            "G1(x)": fake_label,
            "G2(y)": fake_photo,
            "G1(G2(y))": method.probabilities(method.label_generator(fake_photo)),
            "G2(G1(x))": method.photo_generator(fake_label),
        }


@pytest.mark.parametrize("label_as", ["colours", "classes"])
@pytest.mark.parametrize("step", [0, 2])
def test_each_discriminator_judges_the_picture_and_the_condition_of_its_phase(label_as: str, step: int) -> None:
    method, batch = tiny_method("tripathy", label_as=label_as, paired_steps=2), tiny_batch()
    half = batch.paired if step < 2 else batch.unpaired
    x, y = half.photo, method.encode(half.label)
    made = translations(method, x, y) | {"x": x, "y": y}
    # discriminator: (real, fake), each a judged picture and, of D3 and D4, its condition
    poster = {
        "label_discriminator": (["y"], ["G1(x)"]),
        "photo_discriminator": (["x"], ["G2(y)"]),
        "label_pair_discriminator": (["y", "x"], ["G1(x)", "x"])
        if step < 2
        else (["y", "G2(y)"], ["G1(G2(y))", "G2(y)"]),
        "photo_pair_discriminator": (["x", "y"], ["G2(y)", "y"])
        if step < 2
        else (["x", "G1(x)"], ["G2(G1(x))", "G1(x)"]),
    }
    seen = spied(method, batch, step)
    for name, pictures in poster.items():
        real, fake = (torch.cat([made[each] for each in row], 1) for row in pictures)
        assert len(seen["generators"][name]) == 1
        assert torch.allclose(seen["generators"][name][0], fake, atol=1e-6), name
        assert len(seen["discriminators"][name]) == 2
        assert torch.allclose(seen["discriminators"][name][0], real, atol=1e-6), name
        assert torch.allclose(seen["discriminators"][name][1], fake, atol=1e-6), name


@pytest.mark.parametrize(("step", "read"), [(0, "paired"), (1, "paired"), (2, "unpaired"), (9, "unpaired")])
def test_the_first_phase_reads_the_pairs_alone_and_the_second_the_unpaired_half_alone(step: int, read: str) -> None:
    method, one, other = tiny_method("tripathy", paired_steps=2), tiny_batch(seed=1), tiny_batch(seed=2)
    mixed = Batch(one.paired, other.unpaired) if read == "paired" else Batch(other.paired, one.unpaired)
    assert losses_of(method, mixed, step) == losses_of(method, one, step) != losses_of(method, other, step)
    assert ("generators/pairs_label" in losses_of(method, one, step)) == (read == "paired")


def test_the_losses_are_least_squares_and_100_l1() -> None:
    method, batch = tiny_method("tripathy"), tiny_batch()
    x, drawn = batch.paired.photo, labels.colors(batch.paired.label, method.classes)
    made = translations(method, x, drawn)
    generators, discriminators = (update.losses for update in method.step(batch, 0))
    with torch.no_grad():
        judged = method.label_pair_discriminator(torch.cat([made["G1(x)"], x], 1))
        known = method.label_pair_discriminator(torch.cat([drawn, x], 1))
    assert generators["adversarial_label_pair"].item() == pytest.approx(((judged - 1) ** 2).mean().item(), rel=1e-4)
    assert discriminators["label_pair"].item() == pytest.approx(
        0.5 * (((known - 1) ** 2).mean() + (judged**2).mean()).item(), rel=1e-4
    )
    counted = (batch.paired.label != 255)[:, None].expand_as(drawn)
    assert generators["pairs_label"].item() == pytest.approx(
        100 * (made["G1(x)"] - drawn).abs()[counted].mean().item(), rel=1e-4
    )
    assert generators["pairs_photo"].item() == pytest.approx(100 * (made["G2(y)"] - x).abs().mean().item(), rel=1e-4)
    assert (tripathy.Config().reconstruction, tripathy.Config().cycle, tripathy.Config().gan_loss) == (100, 1, "lsgan")


def test_a_run_that_ends_before_its_second_phase_is_refused_with_the_papers_share() -> None:
    tiny_method("tripathy", paired_steps=2).check_steps(8)
    with pytest.raises(UserError, match=r"paired-steps 20000 of --steps 2000.*--config\.paired-steps 500"):
        tiny_method("tripathy", paired_steps=20_000).check_steps(2000)
