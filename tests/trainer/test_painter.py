"""The painter: its generator, its discriminators, DiffAugment, and the pseudo-labels of unpaired photos."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn.functional import conv2d, interpolate, pad

from tests.trainer.factories import CLASSES, tiny_batch, tiny_config, tiny_method, tiny_run, tiny_size, trained
from tests.trainer.test_augment import draws
from trainer import losses
from trainer.augment import diff_augmented
from trainer.batch import IGNORE, Batch, Domain, Pairs
from trainer.commands.session import check_run, start
from trainer.data.catalogue import open_dataset
from trainer.data.selection.choose import select
from trainer.data.synthetic import scenes
from trainer.errors import UserError
from trainer.methods import METHODS
from trainer.networks.init import SpectralConv2d
from trainer.networks.projected import ProjectedDiscriminator
from trainer.networks.pyramid import load_segmenter
from trainer.networks.pyramid_generator import RIDGE, PyramidGenerator
from trainer.training.loop import train_step
from trainer.training.state import TrainState

SIZE = tiny_size("painter")


def photos(length: int, seed: int = 0) -> torch.Tensor:
    return tiny_batch(length=length, size=SIZE, seed=seed).paired.photo


def test_diff_augment_moves_and_cuts_photo_and_condition_alike() -> None:
    """A condition that marks bright pixels still marks what were the bright pixels, and 0 where nothing is left of
    them.
    """
    marks = (torch.rand(8, 1, *SIZE) < 0.5).float()
    photo = (2 * marks - 1).expand(-1, 3, -1, -1)
    seen, condition = diff_augmented(photo, torch.cat([marks, 1 - marks], 1), draws(8))
    assert not torch.equal(condition[:, :1], marks)
    for one, other in zip(seen, condition, strict=True):
        bright, dark, gone = one[:, other[0] > 0], one[:, other[1] > 0], one[:, other.sum(0) == 0]
        assert bright.min() > dark.max()
        assert not gone.any()


def test_diff_augment_changes_real_and_generated_photos_alike() -> None:
    condition = torch.zeros(4, 1, *SIZE)
    first, _ = diff_augmented(photos(4), condition, draws(4))
    second, _ = diff_augmented(photos(4), condition, draws(4))
    other, _ = diff_augmented(photos(4), condition, draws(4, step=1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_diff_augment_passes_gradients_to_the_photo() -> None:
    photo = photos(2).requires_grad_()
    seen, _ = diff_augmented(photo, torch.zeros(2, 1, *SIZE), draws(2))
    seen.square().sum().backward()
    assert photo.grad is not None
    assert all(gradient.any() for gradient in photo.grad)


def test_without_its_finest_levels_the_generator_gives_the_coarse_part_of_its_photo() -> None:
    torch.manual_seed(0)
    generator = PyramidGenerator(4, widths=(8, 8, 8, 8, 4, 4), hidden=4, code=4, pictures=2).eval()
    label = torch.zeros(1, 4, *SIZE)
    label[:, 1, 16:] = label[:, 0, :16] = 1
    noise = torch.randn(1, 5)
    half = interpolate(label, scale_factor=0.5, mode="area")
    with torch.no_grad():
        coarse, whole = generator(half, noise, 1), generator(label, noise)
    # the finest level begins at zero, so the whole photo is the half one, enlarged before the tanh
    enlarged = interpolate(torch.atanh(coarse), scale_factor=2.0, mode="bilinear", align_corners=False)
    assert coarse.shape == (1, 3, SIZE[0] // 2, SIZE[1] // 2)
    torch.testing.assert_close(whole, torch.tanh(enlarged), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="skip 2 leaves no level with a picture: the finest 2 have one"):
        generator(half, noise, 2)


def test_the_random_mixing_of_the_projected_discriminator_is_never_trained() -> None:
    method = tiny_method("painter")
    before = copy.deepcopy(method.projected.state_dict())
    state = TrainState.create(method)
    train_step(state, tiny_batch(size=SIZE), steps=6)
    after = method.projected.state_dict()
    for name, value in before.items():
        if name.endswith("weight"):
            assert name.startswith("across") == torch.equal(value, after[name]), name


def test_each_map_of_the_projected_discriminator_sees_the_coarser_ones() -> None:
    discriminator = ProjectedDiscriminator((4, 8))
    fine, coarse = torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)
    before, after = (discriminator.eval()([fine, each]) for each in (coarse, coarse + 1))
    assert [logits.shape for logits in before] == [(1, 1, 8, 8), (1, 1, 4, 4)]
    assert not torch.equal(before[0], after[0])


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("segmenter"), "mean_teacher", steps=2).path


def with_segmenter(name: str, segmenter: Path, **changes: Any) -> Any:
    """A tiny method on the class table of the segmenter's run."""
    config = tiny_config(name, segmenter=str(segmenter), **changes)
    domain = Domain("classes", scenes.CLASSES)
    return METHODS[name](config, domain, size=SIZE, seed=0)


def tiny_painter(segmenter: Path, **changes: Any) -> Any:
    return with_segmenter("painter", segmenter, **changes)


def test_reading_a_segmenter_leaves_the_random_state_of_a_resumed_run_as_it_is(segmenter: Path) -> None:
    before = torch.get_rng_state()
    load_segmenter(segmenter, classes=scenes.CLASSES.count)
    assert torch.equal(torch.get_rng_state(), before)


def test_unpaired_photos_are_labelled_where_the_segmenter_is_confident(segmenter: Path) -> None:
    network = load_segmenter(segmenter, classes=tiny_painter(segmenter).classes)
    photo = photos(2)
    with torch.no_grad():
        certainty, label = torch.softmax(network(photo), 1).max(1)
    threshold = certainty.median().item()
    method = tiny_painter(segmenter, confidence=threshold)
    method.load_pretrained()
    found = method._pseudo_label(photo)
    assert torch.equal(found, torch.where(certainty >= threshold, label, IGNORE))
    assert 0 < (found == IGNORE).float().mean() < 1


def test_the_segmenter_where_there_is_one_reads_generated_photos(segmenter: Path) -> None:
    method = with_segmenter("painter", segmenter, cycle=2.0)
    terms = train_step(TrainState.create(method), tiny_batch(size=SIZE), steps=6)
    assert torch.isfinite(terms["generator/cycle"])
    photo = photos(1)
    torch.testing.assert_close(method._read(photo), load_segmenter(segmenter, classes=method.classes)(photo))
    half = interpolate(photo, scale_factor=0.5).requires_grad_()
    scores = method._read(half)
    assert scores.shape[-2:] == half.shape[-2:]
    (gradient,) = torch.autograd.grad(scores.square().sum(), half)
    assert gradient.abs().sum() > 0
    alone = train_step(TrainState.create(tiny_method("painter", cycle=2.0)), tiny_batch(size=SIZE), steps=6)
    assert "generator/cycle" not in alone


def test_pseudo_labels_of_smaller_photos_are_made_at_the_full_size(segmenter: Path) -> None:
    method = tiny_painter(segmenter, confidence=0.0)
    method.load_pretrained()
    small = interpolate(photos(1), scale_factor=0.5, mode="area")
    assert method._pseudo_label(small).shape == (1, SIZE[0] // 2, SIZE[1] // 2)


def test_the_unpaired_half_is_read_only_with_a_segmenter(segmenter: Path) -> None:
    assert tiny_painter(segmenter).reads == {"pairs", "unpaired photos"}
    assert tiny_method("painter").reads == {"pairs"}
    method = tiny_painter(segmenter)
    state = TrainState.create(method)
    batch = tiny_batch(size=SIZE)
    half = Batch(
        *(Pairs(interpolate(each.photo, scale_factor=0.5), each.label[:, ::2, ::2]) for each in vars(batch).values())
    )
    empty = Pairs(batch.paired.photo[:0], batch.paired.label[:0])
    for each in (batch, half, Batch(empty, batch.unpaired)):
        terms = train_step(state, each, steps=6)
        assert all(torch.isfinite(loss) for loss in terms.values())


def test_a_checkpoint_does_not_hold_the_frozen_networks(segmenter: Path) -> None:
    method = tiny_painter(segmenter)
    method.load_pretrained()
    assert {name.split(".")[0] for name in method.state_dict()} == {"generator", "style", "conditional", "projected"}


def test_a_segmenter_of_another_method_or_class_table_is_refused(segmenter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 11 classes, but this dataset has 3"):
        load_segmenter(segmenter, classes=CLASSES.count)
    with pytest.raises(UserError, match="cannot be read as a run of mean_teacher"):
        load_segmenter(tmp_path, classes=3)
    for name in ("config.json", "last.ckpt"):
        shutil.copytree(segmenter, tmp_path / name)
        (tmp_path / name / name).write_bytes((segmenter / name).read_bytes()[:100])
        with pytest.raises(UserError, match=f"{name} cannot be read as a run of mean_teacher"):
            load_segmenter(tmp_path / name, classes=scenes.CLASSES.count)


def test_a_hybrid_starts_from_the_segmenter_and_trains_it(segmenter: Path) -> None:
    method = with_segmenter("hybrid", segmenter, label_as="classes", hide_void=True, features=3.0)
    start = load_segmenter(segmenter, classes=scenes.CLASSES.count).state_dict()
    own = method.label_generator.state_dict()
    assert all(torch.equal(own[name], value) for name, value in start.items())
    terms = train_step(TrainState.create(method), tiny_batch(size=SIZE), steps=6)
    assert all(torch.isfinite(loss) for loss in terms.values())
    assert terms["generators/pairs_features"] > 0
    after = method.label_generator.state_dict()
    assert not torch.equal(after["decoder.head.1.weight"], start["decoder.head.1.weight"])
    with pytest.raises(UserError, match="label-as classes"):
        with_segmenter("hybrid", segmenter)


def test_the_hybrids_label_discriminator_sees_the_known_maps_void_in_fakes_too() -> None:
    seen = []
    for hide in (False, True):
        method: Any = tiny_method("hybrid", hide_void=hide)
        maps: list[torch.Tensor] = []
        method.label_discriminator.register_forward_hook(lambda _, given, __, maps=maps: maps.append(given[0]))
        batch = tiny_batch(size=(32, 48))
        batch.unpaired.label[:, :8] = IGNORE
        next(iter(method.step(batch, 0)))
        seen.append(maps)
        known, fake = maps
        assert torch.equal(known[1, :, :8], fake[1, :, :8]) == hide
        assert not torch.equal(known[1, :, 8:], fake[1, :, 8:])


def test_hiding_void_is_refused_where_labels_are_pictures() -> None:
    with pytest.raises(UserError, match="hide_void needs label maps over classes"):
        METHODS["hybrid"](tiny_config("hybrid", hide_void=True), Domain("picture"), size=(32, 48), seed=0)


def test_a_segmenter_reads_the_photos_of_semipaired_back(segmenter: Path) -> None:
    method = with_segmenter("semipaired", segmenter, reverse="teacher", ema_discriminator=0.9)
    terms = train_step(TrainState.create(method), tiny_batch(size=SIZE), steps=6)
    assert all(torch.isfinite(loss) for loss in terms.values())
    assert not any("teacher" in name for name in method.state_dict())
    photo, label = torch.rand(1, 3, *SIZE) * 2 - 1, tiny_batch(size=SIZE).paired.label
    network = load_segmenter(segmenter, classes=method.classes)
    weights = losses.class_weights(label, method.classes)
    expected = losses.segmentation_cycle(torch.cat([torch.zeros(1, 1, *SIZE), network(photo)], 1), label, weights)
    assert method._cycle(method._read_back(photo), label).item() == pytest.approx(expected.item())
    with pytest.raises(UserError, match="go together"):
        with_segmenter("semipaired", segmenter)
    with pytest.raises(UserError, match="cannot be read as a run of mean_teacher"):  # before a run's folder is made
        with_segmenter("semipaired", segmenter / "nowhere", reverse="teacher").load_pretrained()


def test_a_segmenter_that_learned_from_other_labelled_photos_is_refused(segmenter: Path, tmp_path: Path) -> None:
    root = segmenter.parent / "data"
    dataset = open_dataset("folders", root)
    run = tiny_run("painter", config=tiny_config("painter", segmenter=str(segmenter)), data="folders", root=str(root))
    start(tmp_path / "run", run, dataset, select(dataset, k=2, unpaired=4, seed=0), device="cpu")
    others = next(
        found
        for found in (select(dataset, k=2, unpaired=4, seed=seed) for seed in range(1, 20))
        if found.pairs != select(dataset, k=2, unpaired=4, seed=0).pairs
    )
    with pytest.raises(
        UserError, match=r"labelled photos that are not among this run's pairs .* --pairs .*pairs\.json"
    ):
        start(tmp_path / "other", run, dataset, others, device="cpu")


def test_a_segmenter_of_other_classes_is_refused_though_there_are_as_many(segmenter: Path, tmp_path: Path) -> None:
    shutil.copytree(segmenter.parent / "data", root := tmp_path / "data")
    table = root / "classes.csv"
    names = open_dataset("folders", root).label_domain.classes.names
    table.write_text(table.read_text().replace(names[1], "another"))
    dataset = open_dataset("folders", root)
    run = tiny_run("painter", config=tiny_config("painter", segmenter=str(segmenter)), data="folders", root=str(root))
    with pytest.raises(UserError, match=r"was trained with other classes than those of .*data"):
        check_run(run, dataset, select(dataset, k=2, unpaired=4, seed=0))


def test_semipaired_can_judge_unpaired_photos_by_a_projected_discriminator() -> None:
    method = tiny_method("semipaired", unpaired_discriminator="projected", r1=0.0, features=3.0)
    batch, before = tiny_batch(size=SIZE), copy.deepcopy(method.unpaired_discriminator.state_dict())
    terms = train_step(TrainState.create(method), batch, steps=6)
    assert all(torch.isfinite(loss) for loss in terms.values())
    assert terms["generator/features"] > 0
    after = method.unpaired_discriminator.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.partition(".")[0] for name in moved} == {"heads", "rms"}, "the random mixing is never trained"
    scale = method._features(batch.unpaired.photo)[0].square().mean().sqrt()
    torch.testing.assert_close(after["rms"][0], scale, rtol=1e-3, atol=1e-3)
    assert not any(name.startswith("_encoder") for name in method.state_dict())


def test_a_photos_code_is_compared_with_the_one_expected_for_its_label_map() -> None:
    mean, deviation = torch.randn(3, 5), torch.rand(3, 5) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(losses.gaussian_kl(mean, deviation), expected)


def test_noise_changes_the_code_and_moves_the_grain() -> None:
    torch.manual_seed(0)
    generator = PyramidGenerator(4, widths=(8, 8, 8, 8, 4, 4), hidden=4, code=4, pictures=2).eval()
    label = torch.zeros(1, 4, *SIZE)
    label[:, 1] = 1
    code, noise = torch.zeros(1, 4), torch.randn(1, 5)
    with torch.no_grad():
        same = generator.paint(label, code, noise), generator.paint(label, code, noise)
        moved, recoded = generator.paint(label, code, noise + 0.1), generator.paint(label, code + 1, noise)
    assert torch.equal(*same)
    assert not torch.equal(same[0], moved)
    assert not torch.equal(same[0], recoded)


def test_the_prior_is_scikit_learns_ridge_regression_and_its_deviation_that_of_the_codes() -> None:
    draw = torch.Generator().manual_seed(0)
    shares, code = torch.rand(40, 12 * 12, generator=draw), torch.randn(40, 3, generator=draw)
    deviation = torch.rand(40, 3, generator=draw)
    prior = PyramidGenerator(12, widths=(8, 8, 8, 8, 4, 4), hidden=4, code=3, pictures=2).prior
    prior.fit(shares, code, deviation)
    expected = torch.from_numpy(Ridge(alpha=RIDGE * 40).fit(shares.double(), code.double()).predict(shares.double()))
    torch.testing.assert_close(prior(shares, torch.zeros(40, 3)), expected.float(), rtol=1e-4, atol=1e-4)
    spread = ((code - expected) ** 2 + deviation**2).mean(0).sqrt()
    torch.testing.assert_close(prior(shares, torch.ones(40, 3)), (expected + spread).float(), rtol=1e-4, atol=1e-4)


def test_a_photos_style_is_its_code_whatever_its_label_map() -> None:
    method = tiny_method("painter").eval()
    photo = photos(1)
    style = method.style_of(photo)
    label = torch.zeros(1, *SIZE, dtype=torch.long)
    with torch.no_grad():
        before = method.to_photo(label, style)
        method.generator.prior.bias.fill_(5.0)
        assert torch.equal(method.to_photo(label, style), before)
        assert not torch.equal(method.to_photo(label, torch.zeros_like(style)), before)
    torch.testing.assert_close(style[:, :-1], method.style(photo)[0])


def test_a_spectral_convolution_mirrors_at_the_border_where_asked() -> None:
    convolution = SpectralConv2d(2, 3, 3, padding=1, padding_mode="reflect").eval()
    picture = torch.randn(1, 2, 5, 6)
    mirrored = pad(picture, (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(convolution(picture), conv2d(mirrored, convolution.weight, convolution.bias))


def test_averaged_statistics_hold_no_buffer_that_a_checkpoint_lacks() -> None:
    method = tiny_method("painter")
    method.generator.register_buffer("unsaved", torch.zeros(1), persistent=False)
    state = TrainState.create(method)
    state.estimate_statistics([tiny_batch(size=SIZE)])
    assert state.statistics.keys() <= method.state_dict().keys()
    assert "generator.grain" in state.statistics
