"""What every method promises, over all of METHODS; and what single papers say."""

import copy
from typing import Any

import pytest
import torch

from tests.trainer.factories import CLASSES, PHOTOS, SIZE, VARIANTS, tiny_batch, tiny_label, tiny_method, tiny_run, tiny_size, variant_name
from trainer.batch import IGNORE, Batch, Domain
from trainer.labels import nearest_class
from trainer.loop import FiniteWatch, advance, prepare
from trainer.methods import METHODS, build, hybrid
from trainer.methods.base import Method

over_methods = pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=variant_name)


def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {key for key, value in before.items() if isinstance(value, torch.Tensor) and not torch.equal(value, after[key])}


def parameters_of(method: Method, player: str) -> set[str]:
    own = {id(parameter) for module in method.players()[player].modules for parameter in module.parameters()}
    return {name for name, parameter in method.named_parameters() if id(parameter) in own}


@over_methods
def test_every_loss_a_method_yields_reaches_the_player_who_minimises_it(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes)
    for update in method.step(tiny_batch(size=tiny_size(name)), 0):
        player = method.players()[update.player]
        parameters = [parameter for module in player.modules for parameter in module.parameters()]
        for term, loss in update.losses.items():
            assert loss.ndim == 0, term
            assert loss.dtype == torch.float32, term
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients), f"{update.player}/{term}"


@over_methods
def test_no_update_moves_another_player(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes)
    trainee = prepare(method, fused=False)
    for update in method.step(tiny_batch(size=tiny_size(name)), 0):
        before = copy.deepcopy(dict(method.named_parameters()))
        player = trainee.players[update.player]
        parameters = [parameter for module in player.modules for parameter in module.parameters()]
        torch.stack(list(update.losses.values())).sum().backward(inputs=parameters)
        trainee.optimisers[update.player].step()
        changed = moved(before, dict(method.named_parameters()))
        assert changed
        assert changed <= parameters_of(method, update.player)


@over_methods
def test_every_parameter_belongs_to_one_player_and_every_weight_learns(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes)
    owned = [name for player in method.players() for name in parameters_of(method, player)]
    assert sorted(owned) == sorted(name for name, _ in method.named_parameters())
    trainee = prepare(method, fused=False)
    before = copy.deepcopy(method.state_dict())
    watch = FiniteWatch(torch.device("cpu"))
    for step in range(3):
        trainee.step = step
        advance(trainee, tiny_batch(size=tiny_size(name), seed=step), tiny_run(name), bf16=False, watch=watch)
    # biases may stand still: instance norm takes them out, and a relativistic loss does not see the critic's last one
    weights = {name for name, parameter in method.named_parameters() if parameter.ndim > 1}
    assert weights <= moved(before, method.state_dict())


@over_methods
def test_a_step_under_bf16_leaves_no_autocast_behind_and_yields_fp32_losses(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes)
    losses = advance(
        prepare(method, fused=True), tiny_batch(size=tiny_size(name)), tiny_run(name), bf16=True, watch=FiniteWatch(torch.device("cpu"))
    )
    assert not torch.is_autocast_enabled("cpu")
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


@over_methods
def test_the_same_seed_and_batch_give_the_same_losses(name: str, changes: dict[str, Any]) -> None:
    first, second = (
        advance(
            prepare(tiny_method(name, **changes), fused=False),
            tiny_batch(size=tiny_size(name)),
            tiny_run(name),
            bf16=False,
            watch=FiniteWatch(torch.device("cpu")),
        )
        for _ in range(2)
    )
    assert {key: value.item() for key, value in first.items()} == {key: value.item() for key, value in second.items()}


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
def test_a_method_without_class_scores_shows_the_colours_that_its_label_map_is_read_from(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes).eval()
    photo = tiny_batch(length=2, size=tiny_size(name)).paired.photo
    painted = method.painted_label(photo)
    if "to_label" in method.directions and method.label_scores(photo) is None:
        assert painted is not None
        assert painted.shape == photo.shape
        assert torch.equal(nearest_class(painted, CLASSES), method.to_label(photo))
    else:
        assert painted is None


@over_methods
def test_a_method_reads_only_the_halves_that_it_says_it_needs(name: str, changes: dict[str, Any]) -> None:
    method = tiny_method(name, **changes)
    needs = method.needs()
    full, empty = tiny_batch(size=tiny_size(name)).paired, tiny_batch(length=1, size=tiny_size(name))
    nothing = type(full)(full.photo[:0], full.label[:0])
    batch = Batch(full if "pairs" in needs else nothing, empty.unpaired if "unpaired" in needs else nothing)
    losses = advance(prepare(method, fused=False), batch, tiny_run(name), bf16=False, watch=FiniteWatch(torch.device("cpu")))
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].spares_a_half])
@pytest.mark.parametrize("empty", ["paired", "unpaired"])
def test_a_method_that_spares_a_half_takes_its_step_without_it(name: str, empty: str) -> None:
    method, batch = tiny_method(name), tiny_batch()
    nothing = type(batch.paired)(batch.paired.photo[:0], batch.paired.label[:0])
    halves = {"paired": batch.paired, "unpaired": batch.unpaired} | {empty: nothing}
    before = copy.deepcopy(method.state_dict())
    losses = advance(prepare(method, fused=False), Batch(**halves), tiny_run(name), bf16=False, watch=FiniteWatch(torch.device("cpu")))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert {name for name, parameter in method.named_parameters() if parameter.ndim > 1} <= moved(before, method.state_dict())


@pytest.mark.parametrize("name", ["hybrid", "pix2pix", "cyclegan", "tripathy"])
def test_a_label_side_of_pictures_is_translated_as_pictures(name: str) -> None:
    torch.manual_seed(0)
    pictures = Domain("picture")
    config = tiny_method(name).config
    method = build(name, config, photo_domain=PHOTOS, label_domain=pictures, size=SIZE, seed=0)
    batch = tiny_batch()
    halves = [type(half)(half.photo, half.photo.flip(0) * 0.5) for half in (batch.paired, batch.unpaired)]
    advance(prepare(method, fused=False), Batch(*halves), tiny_run(name), bf16=False, watch=FiniteWatch(torch.device("cpu")))
    assert method.to_label(batch.paired.photo).shape == batch.paired.photo.shape


@pytest.mark.parametrize("name", ["supervised", "spade", "oasis", "tcr", "usis", "semipaired"])
def test_a_method_over_classes_says_that_it_needs_them(name: str) -> None:
    with pytest.raises(ValueError, match="class table"):
        build(name, tiny_method(name).config, photo_domain=PHOTOS, label_domain=Domain("picture"), size=SIZE, seed=0)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("hybrid", ["critics", "generators"]),
        ("pix2pix", ["critic", "generator"]),
        ("cyclegan", ["generators", "critics"]),
        ("supervised", ["generator"]),
        ("tripathy", ["generators", "critics"]),
        ("spade", ["generator", "critic"]),
        ("oasis", ["generator", "discriminator"]),
        ("tcr", ["generator", "discriminator"]),
        ("usis", ["generator", "segmenter", "critic"]),
        ("semipaired", ["generator", "discriminator", "generator", "critic"]),
    ],
)
def test_the_players_move_in_the_order_of_their_paper(name: str, order: list[str]) -> None:
    assert [update.player for update in tiny_method(name).step(tiny_batch(size=tiny_size(name)), 0)] == order


def test_the_hybrid_has_the_papers_weights() -> None:
    config = hybrid.Config()
    assert (config.adversarial, config.cycle, config.identity, config.reconstruction) == (1, 10, 10, 150)
    assert (config.pool, config.lr, config.width, config.blocks) == (50, 2e-4, 64, 9)
    terms = list(tiny_method("hybrid").step(tiny_batch(), 0))[1].losses
    assert set(terms) == {f"{term}_{side}" for term in ("adversarial", "cycle", "identity", "pairs") for side in ("label", "photo")}


@pytest.mark.parametrize("label_as", ["colours", "classes"])
def test_a_hybrid_step_on_both_halves_is_the_sum_of_the_two_halves(label_as: str) -> None:
    batch = tiny_batch()
    nothing = type(batch.paired)(batch.paired.photo[:0], batch.paired.label[:0])

    def losses(paired: Any, unpaired: Any) -> dict[str, float]:
        method = tiny_method("hybrid", label_as=label_as)
        return {
            f"{update.player}/{term}": loss.item()
            for update in method.step(Batch(paired, unpaired), 0)
            for term, loss in update.losses.items()
        }

    both, pairs, rest = losses(batch.paired, batch.unpaired), losses(batch.paired, nothing), losses(nothing, batch.unpaired)
    assert set(both) - set(rest) == {"generators/pairs_label", "generators/pairs_photo"}
    for term, value in both.items():
        assert value == pytest.approx(pairs[term] + rest.get(term, 0.0), rel=1e-4), term


@pytest.mark.parametrize("name", ["hybrid", "cyclegan"])
@pytest.mark.parametrize("label_as", ["colours", "classes"])
def test_the_cycle_loss_has_a_gradient_in_both_generators(name: str, label_as: str) -> None:
    method = tiny_method(name, label_as=label_as)
    update = next(update for update in method.step(tiny_batch(), 0) if update.player == "generators")
    for term in ("cycle_photo", "cycle_label"):
        for generator in (method.label_generator, method.photo_generator):
            gradients = torch.autograd.grad(update.losses[term], list(generator.parameters()), retain_graph=True)
            assert sum(gradient.abs().sum() for gradient in gradients) > 0


@pytest.mark.parametrize("label_as", ["colours", "classes"])
def test_the_dead_cycle_of_the_released_code_is_logged_at_its_value_and_moves_nothing(label_as: str) -> None:
    alive, dead = (tiny_method("hybrid", label_as=label_as, cycle_gradient=switch) for switch in (True, False))
    terms, dead_terms = (list(method.step(tiny_batch(), 0))[1].losses for method in (alive, dead))
    for term in ("cycle_photo", "cycle_label"):
        assert terms[term].requires_grad
        assert not dead_terms[term].requires_grad
        assert dead_terms[term].item() == pytest.approx(terms[term].item(), rel=1e-6)
    generators = list(dead.parameters())
    with_it = torch.autograd.grad(torch.stack(list(dead_terms.values())).sum(), generators, allow_unused=True, retain_graph=True)
    without = torch.autograd.grad(
        torch.stack([loss for term, loss in dead_terms.items() if "cycle" not in term]).sum(), generators, allow_unused=True
    )
    for one, other in zip(with_it, without, strict=True):
        assert (one is None and other is None) or (one is not None and other is not None and torch.allclose(one, other))


def test_the_hybrid_keeps_its_pools_per_half_and_side_and_only_the_critics_see_them() -> None:
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


def test_the_conditional_critic_of_pix2pix_sees_input_and_output() -> None:
    method = tiny_method("pix2pix")
    assert method.critic.model[0].in_channels == 6


def test_void_in_the_label_changes_no_loss_of_supervised() -> None:
    method = tiny_method("supervised")
    photo, label = torch.rand(1, 3, *SIZE), tiny_label(1)
    half = tiny_batch().paired
    with_void = next(method.step(Batch(type(half)(photo, label), half), 0)).losses["cross_entropy"]
    scores = method.label_scores(photo)
    counted = label != IGNORE
    by_hand = -torch.log_softmax(scores, 1).permute(0, 2, 3, 1)[counted].gather(1, label[counted][:, None]).mean()
    assert with_void.item() == pytest.approx(by_hand.item(), rel=1e-5)
