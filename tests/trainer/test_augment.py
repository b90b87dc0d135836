"""Strong augmentation: what moves together, what stays where it is, and what never leaves its range."""

import numpy as np
import pytest
import torch

from trainer.augment import class_mixed, colour_jittered, drawn_warps, rescaled, warped, warped_label
from trainer.batch import IGNORE, random


def draws(count: int, *, step: int = 0, seed: int = 0) -> list[np.random.Generator]:
    return [random(seed, step, "test", index) for index in range(count)]


def stairs(length: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Photos whose red says which label their pixels have: blocks of 8 pixels, class c painted c / 5 - 1/2; class 5 is
    void.
    """
    generator = torch.Generator().manual_seed(3)
    blocks = torch.randint(0, 6, (length, 6, 8), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    photo = (blocks / 5 - 0.5).unsqueeze(1).repeat(1, 3, 1, 1)
    return photo, torch.where(blocks == 5, IGNORE, blocks)


def test_a_label_is_rescaled_with_its_photo() -> None:
    photo, label = stairs()
    for step in range(10):
        seen, drawn = rescaled(photo, label, draws(2, step=step), strength=1.0)
        assert seen.shape == photo.shape
        inside = drawn != IGNORE
        agree = (((seen[:, 0] + 0.5) * 5).round() == drawn)[inside]
        assert inside.any()
        assert agree.float().mean() > 0.75  # the rest lies on edges between blocks, where the photo is blended
        assert not torch.equal(seen, photo)


def test_what_a_reduced_photo_does_not_cover_is_void() -> None:
    photo, label = torch.zeros(1, 3, 40, 60), torch.zeros(1, 40, 60, dtype=torch.long)
    shares = [
        (rescaled(photo, label, draws(1, step=step), strength=1.0)[1] == IGNORE).float().mean().item()
        for step in range(40)
    ]
    # the smallest is 1 / 1.5 a side, so at most 1 - (1 / 1.5)^2 is uncovered, and the widening of the sides changes
    # that little
    assert max(shares) == pytest.approx(1 - 1 / 1.5**2, abs=0.1)
    assert min(shares) == 0
    covered = rescaled(photo, label, draws(1, step=shares.index(max(shares))), strength=1.0)[1]
    assert set(covered.unique().tolist()) == {0, IGNORE}


def test_strength_0_changes_nothing() -> None:
    photo, label = stairs()
    seen, drawn = rescaled(photo, label, draws(2), strength=0.0)
    assert torch.equal(seen, photo)
    assert torch.equal(drawn, label)
    assert torch.equal(colour_jittered(photo, draws(2), strength=0.0), photo)


def test_augmentation_is_a_function_of_its_generators() -> None:
    photo, label = stairs()

    def all_of(step: int) -> list[torch.Tensor]:
        moved = rescaled(photo, label, draws(2, step=step), strength=1.0)
        return [*moved, colour_jittered(photo, draws(2, step=step), strength=1.0)]

    assert all(torch.equal(one, same) for one, same in zip(all_of(4), all_of(4), strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(all_of(4), all_of(5), strict=True))


def test_a_sample_is_augmented_as_it_would_be_alone() -> None:
    photo, label = stairs(3)
    together = rescaled(photo, label, draws(3), strength=1.0)
    alone = rescaled(photo[2:], label[2:], draws(3)[2:], strength=1.0)
    torch.testing.assert_close(together[0][2:], alone[0])
    assert torch.equal(together[1][2:], alone[1])
    torch.testing.assert_close(
        colour_jittered(photo, draws(3), strength=1.0)[2:], colour_jittered(photo[2:], draws(3)[2:], strength=1.0)
    )


def test_colour_jitter_keeps_the_range_the_size_and_every_edge() -> None:
    photo = torch.full((1, 3, 32, 48), -0.6)
    photo[:, :, :, 24:] = 0.6
    for step in range(30):
        painted = colour_jittered(photo, draws(1, step=step), strength=1.0)
        assert painted.shape == photo.shape
        assert painted.abs().max() <= 1
        left, right = painted[..., :20].mean(), painted[..., 28:].mean()
        assert right > left  # what was brighter still is


def test_colour_jitter_makes_dusk_of_day() -> None:
    photo = torch.full((1, 3, 16, 16), 0.2)
    levels = torch.tensor([colour_jittered(photo, draws(1, step=step), strength=1.0).mean() for step in range(200)])
    assert levels.min() < -0.5
    assert levels.max() > 0.6


def test_some_photos_lose_their_colour() -> None:
    photo = torch.rand(1, 3, 16, 16) * 0.4 - 0.2
    spreads = torch.tensor(
        [colour_jittered(photo, draws(1, step=step), strength=1.0)[0].std(0).mean() for step in range(100)]
    )
    clean = spreads < 1e-4
    assert 1 <= clean.sum() <= 25


def test_mixed_classes_are_whole_and_bring_their_photo() -> None:
    photo, label = stairs()
    under = torch.full_like(photo, 0.9), torch.full_like(label, 4)
    seen, drawn = class_mixed(photo, label, under, draws(2), preference=torch.ones(5))
    taken = seen[:, 0] != 0.9
    for each, chosen, mask in zip(label, drawn, taken, strict=True):
        classes = set(each[mask].tolist())
        assert len(classes) == len(set(each.unique().tolist()) - {IGNORE}) // 2
        assert IGNORE not in classes
        for index in classes:
            assert bool(mask[each == index].all())
        assert torch.equal(chosen, torch.where(mask, each, 4))
    assert torch.equal(seen, torch.where(taken.unsqueeze(1), photo, under[0]))


def test_preferred_classes_are_mixed_in_more_often() -> None:
    label = torch.arange(4).repeat_interleave(8).repeat(16, 1).unsqueeze(0)
    photo, under = torch.zeros(1, 3, 16, 32), (torch.ones(1, 3, 16, 32), torch.full((1, 16, 32), IGNORE))
    counts = torch.zeros(4)
    for step in range(300):
        _, drawn = class_mixed(photo, label, under, draws(1, step=step), preference=torch.tensor([8.0, 1.0, 1.0, 0.0]))
        counts += torch.tensor([bool((drawn == index).any()) for index in range(4)])
    # one of the three that may be taken is, so 240, 30 and 30 of 300 are expected
    torch.testing.assert_close(counts, torch.tensor([240.0, 30.0, 30.0, 0.0]), atol=25, rtol=0)


def test_nothing_is_pasted_from_a_label_that_is_all_void() -> None:
    photo, label = torch.zeros(1, 3, 8, 8), torch.full((1, 8, 8), IGNORE)
    under = torch.ones(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
    seen, drawn = class_mixed(photo, label, under, draws(1), preference=torch.ones(3))
    assert torch.equal(seen, under[0])
    assert torch.equal(drawn, under[1])


def test_warps_are_as_exact_under_autocast_as_without() -> None:
    warps = drawn_warps([random(0, 0, "test", 0)], (256, 512), translation=20, rotation=10, shear=5)
    photo, label = torch.rand(1, 3, 256, 512) * 2 - 1, torch.randint(0, 5, (1, 256, 512))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = warped(photo, warps), *warped_label(label, warps)
    for one, other in zip(under, (warped(photo, warps), *warped_label(label, warps)), strict=True):
        assert torch.equal(one, other)
