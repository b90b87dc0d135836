"""pix2pixHD: exact sizes of the networks, the stages of a run, instance edges."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from tests.trainer import publishers
from tests.trainer.factories import (
    SIZE,
    count,
    differences,
    killed_after,
    material_for,
    small_run,
    tiny_batch,
    tiny_config,
    tiny_method,
    tiny_run,
)
from tests.trainer.test_step_equations import judges_by_least_squares, minimises, still
from trainer.batch import IGNORE, Batch, Domain, Pairs
from trainer.commands.session import check_run, resume
from trainer.data.loader import Loader
from trainer.errors import UserError
from trainer.export import parity
from trainer.export.graphs import draw_graph
from trainer.labels import borders
from trainer.methods import METHODS
from trainer.networks.patchgan import MultiScalePatchGAN, halved
from trainer.networks.resnet import LocalEnhancer, ResNetGenerator
from trainer.training.checkpointing import create_run, load_method
from trainer.training.loop import train_step
from trainer.training.state import TrainState

BATCH = tiny_batch(length=2)
STAGES = {"global_steps": 2, "frozen_steps": 2}
"""Steps 0 and 1 are of the global generator alone, 2 and 3 of the enhancer alone, the others of both."""


def global_generator(channels: int, *, width: int = 64, blocks: int = 9, halvings: int = 4) -> ResNetGenerator:
    return ResNetGenerator(channels, 3, width=width, blocks=blocks, tanh=True, halvings=halvings)


def test_the_networks_have_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        generators = {channels: global_generator(channels) for channels in (36, 35, 3)}
        enhancer = LocalEnhancer(36, width=32, features=64)
        discriminators = [count(MultiScalePatchGAN(36, width=64, scales=n, spectral=False)) for n in (1, 2, 3)]
        compact = [count(global_generator(12, width=width, blocks=6, halvings=3)) for width in (32, 16)]
        compact.append(count(MultiScalePatchGAN(12, width=32, scales=2, spectral=False)))
    assert {channels: count(each) for channels, each in generators.items()} == {
        36: 182_546_755,
        35: 182_543_619,
        3: 182_443_267,
    }
    assert count(enhancer) == 319_715
    assert count(generators[36].model[:-3]) + count(enhancer) == 182_857_059
    assert discriminators == [2_801_601, 5_603_202, 8_404_803]
    assert compact == [7_879_331, 1_976_659, 1_400_770]


def test_the_maps_of_a_discriminator_have_the_published_sizes() -> None:
    with torch.device("meta"):
        network = MultiScalePatchGAN(36, width=2, scales=1, spectral=False)
        (scale,) = network(torch.zeros(1, 3, 512, 1024), torch.zeros(1, 36, 512, 1024))
    assert [tuple(each.shape[2:]) for each in scale] == [(257, 513), (129, 257), (65, 129), (66, 130), (67, 131)]


def test_a_discriminator_sees_the_same_pictures_in_the_first_stage_as_later() -> None:
    network = MultiScalePatchGAN(3, width=2, scales=3, spectral=False)
    photo, label = torch.rand(1, 3, 32, 48), torch.rand(1, 3, 32, 48)
    all_scales, coarse = network(photo, label), network(halved(photo), halved(label), skip=1)
    assert [scale[-1].shape for scale in coarse] == [scale[-1].shape for scale in all_scales[1:]]
    assert all(torch.equal(one[-1], other[-1]) for one, other in zip(coarse, all_scales[1:], strict=True))


def test_weights_begin_as_released() -> None:
    network = MultiScalePatchGAN(36, width=64, scales=1, spectral=False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_borders_are_marked_on_both_sides() -> None:
    ids = torch.tensor([[[1, 1, 1], [1, 1, 2], [1, 1, 1]], [[5, 5, IGNORE], [5, 5, IGNORE], [7, 5, IGNORE]]])
    expected = [[[0, 0, 1], [0, 1, 1], [0, 0, 1]], [[0, 1, 1], [1, 1, 1], [1, 1, 1]]]
    assert borders(ids).tolist() == [[[[float(value) for value in row] for row in each]] for each in expected]


def moved_in(state: TrainState, step: int) -> set[str]:
    """The networks of which a weight moves in this step; the discriminators one by one."""
    before = copy.deepcopy(dict(state.method.named_parameters()))
    state.step = step
    train_step(state, BATCH, steps=6)
    moved = [name for name, each in state.method.named_parameters() if not torch.equal(each, before[name])]
    return {".".join(name.split(".")[: 3 if name.startswith("discriminator") else 1]) for name in moved}


def test_the_global_generator_rests_while_the_enhancer_begins_and_moves_with_it_afterwards() -> None:
    state = TrainState.create(tiny_method("pix2pixhd", **STAGES))
    coarse = {"discriminator.critics.1", "discriminator.critics.2"}
    every = coarse | {"discriminator.critics.0"}
    assert [moved_in(state, step) for step in range(6)] == [
        {"photo_generator"} | coarse,
        {"photo_generator"} | coarse,
        {"enhancer"} | every,
        {"enhancer"} | every,
        {"photo_generator", "enhancer"} | every,
        {"photo_generator", "enhancer"} | every,
    ]


def test_in_the_last_stage_every_loss_reaches_both_parts_of_the_generator() -> None:
    method = tiny_method("pix2pixhd", global_steps=0, frozen_steps=0)
    update = next(method.step(BATCH, 0))
    assert update.groups == ("global", "enhancer")
    assert set(update.losses) == {"adversarial", "feature_matching"}
    for loss in update.losses.values():
        for part in (method.photo_generator.model[:-3], method.enhancer):
            gradients = torch.autograd.grad(loss, list(part.parameters()), retain_graph=True)
            assert sum(gradient.abs().sum() for gradient in gradients) > 0


def test_the_rate_falls_to_zero_in_each_stage() -> None:
    method = tiny_method("pix2pixhd", global_steps=10, frozen_steps=2)
    for group in method.parameter_groups().values():
        rates = [group.schedule(step, 20) for step in range(20)]
        assert rates[:10] == rates[10:] == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize("i", [0, 2])
def test_a_step_minimises_the_equations_of_the_paper(i: int) -> None:
    method = still("pix2pixhd", feature_matching=3.0, **STAGES)
    photo, label = BATCH.paired.photo, BATCH.paired.label
    if i < 2:
        photo, label = halved(photo), label[:, ::2, ::2]
    drawn = method.encode(label)
    if i < 2:
        fake = method.photo_generator(drawn)
    else:
        fake = method.enhancer(drawn, method.photo_generator.model[:-3](halved(drawn)))
    known, judged = (method.discriminator(each, drawn, skip=int(i < 2)) for each in (photo, fake))
    assert len(judged) == (2 if i < 2 else 3)
    matched = sum(
        (one - other).abs().mean().item()
        for x, y in zip(known, judged, strict=True)
        for one, other in zip(x[:4], y[:4], strict=True)
    )
    first, second = method.step(BATCH, i)
    adversarial = sum((scale[4] - 1).square().mean().item() for scale in judged)
    minimises(
        first, "global" if i < 2 else "enhancer", adversarial=adversarial, feature_matching=3 * matched / len(judged)
    )
    judges_by_least_squares(second, known, judged)


def test_photos_are_the_global_generator_s_enlarged_until_the_enhancer_is_trained() -> None:
    method, label = tiny_method("pix2pixhd", **STAGES), BATCH.paired.label
    state = TrainState.create(method)
    moved_in(state, 1)
    small = method.photo_generator(method.encode(label[:, ::2, ::2]))
    assert torch.allclose(method.to_photo(label), interpolate(small, scale_factor=2.0, mode="bilinear"))
    moved_in(state, 2)
    drawn = method.encode(label)
    sharp = method.enhancer(drawn, method.photo_generator.features(halved(drawn)))
    assert torch.equal(method.to_photo(label), sharp)


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_that_is_killed_in_a_stage_is_resumed_bit_for_bit(step: int, tmp_path: Path) -> None:
    run = small_run(tmp_path, "pix2pixhd", config=tiny_config("pix2pixhd", **STAGES), steps=6, save_every=1)
    _, selection = material_for(run)
    unbroken, broken = (create_run(tmp_path / name, run, selection) for name in ("unbroken", "broken"))
    resume(unbroken, device="cpu")
    with killed_after(step):
        resume(broken, device="cpu")
    early, _, saved = load_method(broken.path, checkpoint="last")
    assert saved == step - 1
    assert early.enhanced == (saved > 2)
    resume(broken, device="cpu")
    assert differences(unbroken.load("last"), broken.load("last")) == []


def test_edges_come_from_the_instance_maps_that_the_dataset_has_or_else_from_the_classes(tmp_path: Path) -> None:
    config = tiny_config("pix2pixhd", edges="instances")
    root = str(publishers.cityscapes(tmp_path))
    run = tiny_run("pix2pixhd", config=config, data="cityscapes-34", root=root)
    dataset, selection = material_for(run)
    method: Any = check_run(run, dataset, selection)
    loader = Loader(dataset, selection, size=SIZE, batch=2, seed=0, sides=method.sides)
    batch = loader.batch(0)
    label, instances = batch.paired.label, batch.paired.sides["instances"]
    assert torch.equal(method.encode(label, instances)[:, -1:], borders(instances))
    assert torch.equal(method.encode(label)[:, -1:], borders(label))
    blank = Batch(Pairs(batch.paired.photo, label, {"instances": torch.zeros_like(instances)}), batch.unpaired)
    one, other = (next(method.step(each, 0)).losses["adversarial"].item() for each in (batch, blank))
    assert one != other


def test_pictures_on_the_label_side_have_no_edges() -> None:
    method = METHODS["pix2pixhd"](tiny_config("pix2pixhd"), Domain("picture"), size=SIZE, seed=0)
    half = Pairs(BATCH.paired.photo, BATCH.paired.photo.flip(0))
    state = TrainState.create(method)
    for state.step in range(3):
        train_step(state, Batch(half, half), steps=6)
    assert torch.equal(method.encode(half.label), half.label)
    assert method.to_photo(half.label).shape == half.photo.shape


def test_stages_that_do_not_fit_into_the_steps_are_refused_with_the_remedy() -> None:
    method = tiny_method("pix2pixhd", global_steps=400, frozen_steps=40)
    method.check_steps(441)
    with pytest.raises(UserError, match=r"global-steps 200 --config\.frozen-steps 10"):
        method.check_steps(300)
    with pytest.raises(ValueError, match="give 2 or more"):
        tiny_method("pix2pixhd", scales=1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_graph_of_the_first_stage_agrees_with_torch() -> None:
    method = tiny_method("pix2pixhd")
    parity.prove(draw_graph(method, "to_photo", size=SIZE), method, size=SIZE)
