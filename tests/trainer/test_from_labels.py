"""Methods that make photos from label maps: updates, noise, frozen network, batch statistics."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.factories import (
    CLASSES,
    buffers_of,
    losses_of,
    material_for,
    tiny_batch,
    tiny_label,
    tiny_method,
    trained,
)
from tests.trainer.test_perceptual import partial, saved
from trainer.augment import drawn_warps, warped, warped_label
from trainer.batch import IGNORE, random
from trainer.data.loader import Loader
from trainer.labels import one_hot
from trainer.methods import base
from trainer.methods.from_labels import FromLabels
from trainer.training.checkpointing import load_method
from trainer.training.loop import train_step
from trainer.training.state import TrainState

BATCH = tiny_batch(length=2, size=(64, 64))
FROM_LABELS = ["spade", "oasis", "tcr", "usis", "semipaired"]
NOISY = [name for name in FROM_LABELS if name != "spade"]


def method_after(name: str, *, steps: int = 2, **changes: Any) -> Any:
    """A tiny method after a few steps, so that its batch statistics are no longer the first ones."""
    method = tiny_method(name, **changes)
    state = TrainState.create(method)
    for step in range(steps):
        state.step = step
        train_step(state, BATCH, steps=6)
    return method


def test_void_has_a_channel_of_its_own_and_every_pixel_one_channel() -> None:
    label = tiny_label(2, size=(64, 64))
    encoded = tiny_method("oasis").encode(label)
    assert encoded.shape == (2, CLASSES.count + 1, 64, 64)
    assert (encoded.sum(1) == 1).all()
    assert torch.equal(encoded[:, -1] == 1, label == IGNORE)
    assert torch.equal(encoded[:, :-1], one_hot(label, CLASSES.count))


@pytest.mark.parametrize(
    ("name", "streams"),
    [
        ("oasis", ["generator", "discriminator"]),
        ("tcr", ["generator", "consistency", "discriminator"]),
        ("usis", ["generator", "segmenter"]),
        ("semipaired", ["generator", "discriminator", "unpaired", "critic"]),
    ],
)
def test_every_update_has_noise_of_its_own(name: str, streams: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, torch.Tensor]] = []
    plain = FromLabels.noise

    def watched(self: FromLabels, label: torch.Tensor, i: int, stream: str) -> torch.Tensor:
        drawn.append((stream, plain(self, label, i, stream)))
        return drawn[-1][1]

    monkeypatch.setattr(FromLabels, "noise", watched)
    for _ in tiny_method(name).step(BATCH, 5):
        pass
    assert [stream for stream, _ in drawn] == streams
    values = torch.cat([noise for _, noise in drawn])
    assert len(torch.unique(values, dim=0)) == len(values)


def test_noise_is_a_function_of_seed_step_stream_and_index_and_differs_between_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, label = tiny_method("oasis"), BATCH.paired.label
    first = method.noise(label, 3, "generator")
    assert torch.equal(first, method.noise(label, 3, "generator"))
    assert not torch.equal(first, method.noise(label, 4, "generator"))
    assert torch.equal(first[:1], method.noise(label[:1], 3, "generator"))
    monkeypatch.setattr(base, "rank", lambda: 1)
    assert not torch.isin(method.noise(label, 3, "generator"), first).any()


@pytest.mark.parametrize("name", NOISY)
def test_the_same_noise_gives_the_same_photo_in_every_batch_position_and_other_noise_another(name: str) -> None:
    method = method_after(name).eval()
    label, noise = tiny_label(3, size=(64, 64), seed=7), torch.randn(3, *method.noise_shape)
    with torch.inference_mode():
        together = method.to_photo(label, noise)
        turned = method.to_photo(label.flip(0), noise.flip(0)).flip(0)
        other = method.to_photo(label, -noise)
    assert torch.allclose(together, turned, atol=1e-6)
    assert not torch.allclose(together, other, atol=1e-6)


def test_a_photo_without_its_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise Float\[B,4\]"):
        tiny_method("oasis").to_photo(BATCH.paired.label)


def test_the_unpaired_update_leaves_the_discriminator_unchanged_and_trains_the_generator() -> None:
    method = tiny_method("semipaired")
    updates = method.step(BATCH, 1)
    next(updates), next(updates)
    before, modes = (
        copy.deepcopy(method.discriminator.state_dict()),
        [module.training for module in method.discriminator.modules()],
    )
    update = next(updates)
    after = method.discriminator.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "weights and spectral-norm vectors"
    assert [module.training for module in method.discriminator.modules()] == modes
    gradients = torch.autograd.grad(
        update.losses["cycle"], list(method.generator.parameters()), retain_graph=True, allow_unused=True
    )
    assert sum(gradient.abs().sum() for gradient in gradients if gradient is not None) > 0
    assert all(
        gradient is None
        for gradient in torch.autograd.grad(
            update.losses["adversarial_unpaired"],
            list(method.discriminator.parameters()),
            allow_unused=True,
            retain_graph=True,
        )
    )


def test_the_cycle_loss_cannot_be_reduced_by_being_less_generated() -> None:
    method = tiny_method("semipaired")
    louder = copy.deepcopy(method)
    with torch.no_grad():
        louder.discriminator.finish.bias[0] += 5
    before, after = losses_of(method, BATCH, 1), losses_of(louder, BATCH, 1)
    assert before["generator/cycle"] == pytest.approx(after["generator/cycle"], rel=1e-6)
    assert before["generator/adversarial"] != pytest.approx(after["generator/adversarial"], rel=1e-2)


def test_the_ablations_of_the_paper_are_choices() -> None:
    assert "generator/feature_matching" not in losses_of(tiny_method("semipaired", feature_matching=0.0), BATCH, 1)
    assert tiny_method("semipaired").perceptual is None
    assert tiny_method("semipaired", rare_classes="throughout").rare_classes == "throughout"
    unfrozen = tiny_method("semipaired", reverse="unfrozen")
    updates = unfrozen.step(BATCH, 1)
    next(updates), next(updates)
    before = buffers_of(unfrozen.discriminator)
    next(updates)
    assert any(not torch.equal(value, before[name]) for name, value in unfrozen.discriminator.named_buffers())


@pytest.mark.parametrize("name", ["spade", "oasis", "semipaired"])
def test_the_vgg_loss_is_the_generator_s_on_pairs_and_its_weight_counts(name: str, tmp_path: Path) -> None:
    path = str(saved(partial(), tmp_path / "vgg_little.pth"))
    once, twice = (next(tiny_method(name, perceptual=weight, vgg=path).step(BATCH, 1)) for weight in (1.0, 2.0))
    assert once.groups == "generator"
    assert twice.losses["perceptual"].item() == pytest.approx(2 * once.losses["perceptual"].item(), rel=1e-6)
    method = tiny_method(name, perceptual=1.0, vgg=path)
    terms = next(method.step(BATCH, 1)).losses
    gradients = torch.autograd.grad(terms["perceptual"], list(method.generator.parameters()), allow_unused=True)
    assert sum(gradient.abs().sum() for gradient in gradients if gradient is not None) > 0
    assert not any("perceptual" in key for key in method.state_dict()), "a checkpoint does not hold VGG's weights"


def test_the_segmenter_of_photos_is_the_discriminator_without_generated_and_void() -> None:
    method = method_after("semipaired").eval()
    with torch.inference_mode():
        logits, scores = method.discriminator(BATCH.paired.photo), method.label_scores(BATCH.paired.photo)
    assert logits.shape[1] == CLASSES.count + 2
    assert torch.equal(scores, logits[:, 1 : 1 + CLASSES.count])


def test_r1_comes_every_so_often_and_weighs_as_much_more() -> None:
    term = "discriminator/r1"
    losses = [losses_of(tiny_method("usis", r1_every=3), BATCH, i) for i in range(5)]
    assert [term in each for each in losses] == [True, False, False, True, False]
    once, thrice = (losses_of(tiny_method("usis", r1_every=every), BATCH)[term] for every in (1, 3))
    assert thrice == pytest.approx(3 * once, rel=1e-5)
    assert term not in losses_of(tiny_method("usis", r1=0.0), BATCH)


def test_averages_follow_once_a_step_however_often_a_group_moves() -> None:
    method = tiny_method("semipaired")
    state = TrainState.create(method)
    before = {name: value.clone() for name, value in state.averages["generator"].state_dict().items()}
    state.step = 4
    train_step(state, BATCH, steps=6)
    live, decay = dict(method.named_parameters()), min(method.config.ema, 5 / 14)
    for name, averaged in state.averages["generator"].state_dict().items():
        assert torch.allclose(averaged, decay * before[name] + (1 - decay) * live[name], atol=1e-6), name


@pytest.mark.parametrize("name", ["spade", "usis"])
def test_averaged_weights_are_saved_with_batch_statistics_of_their_own(name: str, tmp_path: Path) -> None:
    run = trained(tmp_path, name, steps=3, batch=2).run
    averaged, raw = (
        load_method(tmp_path / "run", checkpoint="last", weights=weights)[0] for weights in ("averaged", "raw")
    )
    saved, live = buffers_of(averaged.generator), buffers_of(raw.generator)
    means = [key for key in saved if "running_mean" in key]
    assert means
    assert not any(torch.equal(saved[key], live[key]) for key in means)
    dataset, selection = material_for(run)
    loader = Loader(dataset, selection, size=run.size, batch=run.batch, seed=run.seed)
    for key, buffer in averaged.generator.named_buffers():
        buffer.copy_(live[key])  # where the run begins its estimates
    averaged.estimate_statistics(loader.batch(step) for step in range(3))
    again = buffers_of(averaged.generator)
    assert all(torch.allclose(again[key], saved[key], rtol=1e-4, atol=1e-6) for key in means), (
        "estimated on the batches of the run"
    )


def test_a_checkpoint_between_two_evaluations_gets_its_statistics_when_it_is_loaded(tmp_path: Path) -> None:
    folders = {
        every: trained(tmp_path / str(every), "spade", steps=3, batch=2, keep=(2,), evaluate_every=every)
        for every in (2, 3)
    }
    evaluated, between = (folders[every].load("step-000002")["averaged"]["estimates"] for every in (2, 3))
    assert evaluated
    assert not between
    first, second = (
        buffers_of(load_method(folder.path, checkpoint="step-000002")[0].generator) for folder in folders.values()
    )
    assert all(torch.allclose(first[name], second[name], rtol=1e-4, atol=1e-6) for name in first if "running" in name)


@pytest.mark.parametrize("rotation", [0.0, 30.0])
def test_a_warp_moves_a_label_as_it_moves_a_photo(rotation: float) -> None:
    label = torch.zeros(1, 40, 60, dtype=torch.long)
    label[:, 10:25, 20:45] = 1
    draws = [random(0, 0, "warp")]
    warps = drawn_warps(draws, (40, 60), translation=5.0, rotation=rotation, shear=0.0)
    turned, inside = warped_label(label, warps)
    photo = warped(one_hot(label, 2)[:, 1:].expand(-1, 3, -1, -1), warps)[:, :1]
    sure = (inside == 1) & ((photo < 0.05) | (photo > 0.95))
    assert sure.float().mean() > 0.6
    assert torch.equal(turned.unsqueeze(1)[sure] == 1, photo[sure] > 0.5)
    assert (turned[inside.squeeze(1) == 0] == IGNORE).float().mean() > 0.5
    assert 0.5 < (turned == 1).float().sum() / (label == 1).float().sum() < 1.1, "turned, neither enlarged nor skewed"
