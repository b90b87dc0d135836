"""What every method promises, over all of METHODS; and what single papers say."""

import copy
from typing import Any

import pytest
import torch

from tests.trainer.factories import SIZE, VARIANTS, losses_of, tiny_batch, tiny_method, tiny_size, variant_name
from trainer.batch import Batch, Domain
from trainer.commands.session import SMALLEST
from trainer.methods import METHODS, hybrid
from trainer.methods.base import Method
from trainer.training.loop import train_step
from trainer.training.state import TrainState

over_methods = pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=variant_name)


def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {
        key for key, value in before.items() if isinstance(value, torch.Tensor) and not torch.equal(value, after[key])
    }


def parameters_of(method: Method, group: str) -> set[str]:
    own = {id(parameter) for module in method.parameter_groups()[group].modules for parameter in module.parameters()}
    return {name for name, parameter in method.named_parameters() if id(parameter) in own}


@over_methods
def test_every_loss_a_method_yields_reaches_the_group_that_minimises_it(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes)
    for update in method.step(tiny_batch(size=tiny_size(name)), 0):
        group = method.parameter_groups()[update.groups]
        parameters = [parameter for module in group.modules for parameter in module.parameters()]
        for term, loss in update.losses.items():
            assert loss.ndim == 0, term
            assert loss.dtype == torch.float32, term
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients), (
                f"{update.groups}/{term}"
            )


@over_methods
def test_every_parameter_belongs_to_one_group_and_every_weight_learns(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes)
    owned = [name for group in method.parameter_groups() for name in parameters_of(method, group)]
    assert sorted(owned) == sorted(name for name, parameter in method.named_parameters() if parameter.requires_grad)
    state = TrainState.create(method)
    before = copy.deepcopy(method.state_dict())
    for step in range(3):
        state.step = step
        train_step(state, tiny_batch(size=tiny_size(name), seed=step), steps=6)
    # biases may stand still: instance norm takes them out, and a relativistic loss does not see the discriminator's
    # last one
    weights = {name for name, each in method.named_parameters() if each.ndim > 1 and each.requires_grad}
    assert weights <= moved(before, method.state_dict())


@over_methods
def test_a_step_under_bf16_leaves_no_autocast_behind_and_yields_fp32_losses(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes)
    losses = train_step(TrainState.create(method), tiny_batch(size=tiny_size(name)), steps=6, bf16=True)
    assert not torch.is_autocast_enabled("cpu")
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


@over_methods
def test_the_smallest_size_that_is_accepted_can_be_trained_at(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes)
    side = -(-max(SMALLEST, method.smallest) // method.multiple_of) * method.multiple_of
    method = METHODS[name](method.config, method.label_domain, size=(side, side), seed=0)
    losses = train_step(TrainState.create(method), tiny_batch(size=(side, side)), steps=6)
    assert all(torch.isfinite(loss) for loss in losses.values())


@over_methods
def test_a_method_translates_in_the_directions_it_offers_and_in_no_other(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes).eval()
    half = tiny_batch(length=2, size=tiny_size(name)).paired
    if "to_label" in method.directions:
        label = method.to_label(half.photo)
        assert label.shape == (2, *tiny_size(name))
        assert label.dtype == torch.long
        assert label.max() < 3
        scores = method.label_scores(half.photo)
        if scores is not None:
            assert scores.shape == (2, 3, *tiny_size(name))
            assert torch.equal(scores.argmax(1), label)
    else:
        with pytest.raises(NotImplementedError):
            method.to_label(half.photo)
    if "to_photo" in method.directions:
        noise = None if method.noise_shape is None else torch.randn(2, *method.noise_shape)
        photo = method.to_photo(half.label, noise)
        assert photo.shape == (2, 3, *tiny_size(name))
        assert photo.abs().max() <= 1
    else:
        with pytest.raises(NotImplementedError):
            method.to_photo(half.label)


@over_methods
def test_a_method_reads_only_the_halves_that_it_says_it_needs(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes)
    full, empty = tiny_batch(size=tiny_size(name)).paired, tiny_batch(length=1, size=tiny_size(name))
    nothing = type(full)(full.photo[:0], full.label[:0])
    batch = Batch(full if "pairs" in method.reads else nothing, empty.unpaired if method.reads - {"pairs"} else nothing)
    losses = train_step(TrainState.create(method), batch, steps=6)
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].spares_a_half and name != "painter"])
@pytest.mark.parametrize("empty", ["paired", "unpaired"])
def test_a_method_that_spares_a_half_takes_its_step_without_it(name: str, empty: str) -> None:
    # The painter reads unpaired photos only with a trained segmenter: see test_painter.
    method, batch = tiny_method(name), tiny_batch()
    nothing = type(batch.paired)(batch.paired.photo[:0], batch.paired.label[:0])
    halves = {"paired": batch.paired, "unpaired": batch.unpaired} | {empty: nothing}
    before = copy.deepcopy(method.state_dict())
    losses = train_step(TrainState.create(method), Batch(**halves), steps=6)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert {name for name, parameter in method.named_parameters() if parameter.ndim > 1} <= moved(
        before, method.state_dict()
    )


@pytest.mark.parametrize("name", ["hybrid", "pix2pix", "cyclegan", "tripathy", "bicycle_gan"])
def test_a_label_side_of_pictures_is_translated_as_pictures(name: str) -> None:
    torch.manual_seed(0)
    pictures = Domain("picture")
    config = tiny_method(name).config
    method = METHODS[name](config, pictures, size=SIZE, seed=0)
    batch = tiny_batch()
    halves = [type(half)(half.photo, half.photo.flip(0) * 0.5) for half in (batch.paired, batch.unpaired)]
    train_step(TrainState.create(method), Batch(*halves), steps=6)
    shape = batch.paired.photo.shape
    assert "to_label" not in method.directions or method.to_label(batch.paired.photo).shape == shape
    noise = method.noise_shape and torch.randn(len(batch.paired.photo), *method.noise_shape)
    assert "to_photo" not in method.directions or method.eval().to_photo(halves[0].label, noise).shape == shape


@pytest.mark.parametrize("name", ["supervised", "spade", "cc_fpse", "oasis", "tcr", "usis", "semipaired"])
def test_a_method_over_classes_says_that_it_needs_them(name: str) -> None:
    with pytest.raises(ValueError, match="class table"):
        METHODS[name](tiny_method(name).config, Domain("picture"), size=SIZE, seed=0)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("hybrid", ["discriminators", "generators"]),
        ("pix2pix", ["discriminator", "generator"]),
        ("cyclegan", ["generators", "discriminators"]),
        ("supervised", ["segmenter"]),
        ("tripathy", ["generators", "discriminators"]),
    ],
)
def test_the_groups_move_in_the_order_of_their_paper(name: str, order: list[str]) -> None:
    # the others: test_step_equations, and the files of their papers
    assert [update.groups for update in tiny_method(name).step(tiny_batch(size=tiny_size(name)), 0)] == order


def test_the_hybrid_has_the_papers_weights() -> None:
    config = hybrid.Config()
    assert (config.adversarial, config.cycle, config.identity, config.reconstruction) == (1, 10, 10, 150)
    assert (config.pool, config.lr, config.width, config.blocks) == (50, 2e-4, 64, 9)
    terms = list(tiny_method("hybrid").step(tiny_batch(), 0))[1].losses
    assert set(terms) == {
        f"{term}_{side}" for term in ("adversarial", "cycle", "identity", "pairs") for side in ("label", "photo")
    }


@pytest.mark.parametrize("label_as", ["colours", "classes"])
def test_a_hybrid_step_on_both_halves_is_the_sum_of_the_two_halves(label_as: str) -> None:
    batch = tiny_batch()
    nothing = type(batch.paired)(batch.paired.photo[:0], batch.paired.label[:0])

    def losses(paired: Any, unpaired: Any) -> dict[str, float]:
        return losses_of(tiny_method("hybrid", label_as=label_as), Batch(paired, unpaired))

    both = losses(batch.paired, batch.unpaired)
    pairs, rest = losses(batch.paired, nothing), losses(nothing, batch.unpaired)
    assert set(both) - set(rest) == {"generators/pairs_label", "generators/pairs_photo"}
    for term, value in both.items():
        assert value == pytest.approx(pairs[term] + rest.get(term, 0.0), rel=1e-4), term


@pytest.mark.parametrize("name", ["hybrid", "cyclegan"])
@pytest.mark.parametrize("label_as", ["colours", "classes"])
def test_the_cycle_loss_has_a_gradient_in_both_generators(name: str, label_as: str) -> None:
    method = tiny_method(name, label_as=label_as)
    update = next(update for update in method.step(tiny_batch(), 0) if update.groups == "generators")
    for term in ("cycle_photo", "cycle_label"):
        for generator in (method.label_generator, method.photo_generator):
            gradients = torch.autograd.grad(update.losses[term], list(generator.parameters()), retain_graph=True)
            assert sum(gradient.abs().sum() for gradient in gradients) > 0


def test_the_hybrid_keeps_its_pools_per_half_and_side_and_only_the_discriminators_see_them() -> None:
    method = tiny_method("hybrid")
    for step in range(5):
        for _ in method.step(tiny_batch(seed=step), step):
            pass
    assert {name: pool.stored for name, pool in method.pools.items()} == {
        "paired_label": 3,
        "paired_photo": 3,
        "unpaired_label": 3,
        "unpaired_photo": 3,
    }


@pytest.mark.parametrize("label_as", ["colours", "classes"])
def test_a_cycle_loss_without_gradient_is_logged_at_its_value_and_moves_nothing(label_as: str) -> None:
    alive, dead = (tiny_method("hybrid", label_as=label_as, cycle_gradient=switch) for switch in (True, False))
    terms, dead_terms = (list(method.step(tiny_batch(), 0))[1].losses for method in (alive, dead))
    for term in ("cycle_photo", "cycle_label"):
        assert terms[term].requires_grad
        assert not dead_terms[term].requires_grad
        assert dead_terms[term].item() == pytest.approx(terms[term].item(), rel=1e-6)
