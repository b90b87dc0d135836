"""A step of each method from label maps minimises its paper's equations."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from tests.trainer.factories import CLASSES, tiny_batch, tiny_method
from trainer.augment import drawn_warps, warped, warped_label
from trainer.batch import IGNORE, random
from trainer.methods.base import Update

# a step with R1, whose LabelMix takes void and a class from the real photo, two classes from the generated one
STEP = 32
BATCH = tiny_batch(length=2, size=(64, 64))
PAIRED, UNPAIRED = BATCH.paired, BATCH.unpaired
C = CLASSES.count


def still(name: str, **changes: Any) -> Any:
    """The method in eval mode, in which a forward pass changes nothing, so that every figure can be computed again."""
    method = tiny_method(name, **changes).eval()
    stir(method, 0.1)  # at first noise and label hardly count for what is painted, nor the photo for what is read in it
    return method


@torch.no_grad()
def stir(network: torch.nn.Module, scale: float) -> None:
    for parameter in network.parameters():
        parameter.add_(scale * torch.randn_like(parameter))


def updates_of(method: Any) -> Iterator[Update]:
    """The updates of one step; the networks of each change a little before the next, as an optimiser changes them."""
    for update in method.step(BATCH, STEP):
        yield update
        for network in method.parameter_groups()[update.groups].modules:
            stir(network, 0.02)


def minimises(update: Update, group: str, **expected: float) -> None:
    assert update.groups == group
    assert {name: loss.item() for name, loss in update.losses.items()} == pytest.approx(expected, rel=1e-4)


def judges_by_least_squares(update: Update, known: Any, judged: Any) -> None:
    """The discriminator's update on the last maps of each of its scales, as in pix2pixHD."""
    minimises(
        update,
        "discriminator",
        real=sum((scale[-1] - 1).square().mean().item() for scale in known) / 2,
        fake=sum(scale[-1].square().mean().item() for scale in judged) / 2,
    )


def painted(method: Any, label: Tensor, stream: str) -> Tensor:
    return method.generator(method.encode(label), method.noise(label, STEP, stream))


def as_class(likelihood: Tensor, label: Tensor) -> float:
    """-log p of each pixel's class, the mean within a class and then over the classes present: what w_c = B H W / (K
    n_c) comes to.

    The mean of the weighted loss is over all pixels, the void ones too; but B H W is their number too, so they cancel.
    """
    present = [each for each in label.unique().tolist() if each != IGNORE]
    return -sum(likelihood[:, each][label == each].mean().item() for each in present) / len(present)


def as_real(scores: Tensor, label: Tensor) -> float:
    """Cross-entropy over "generated" and the classes and void, of which class k is number k + 1."""
    return as_class(scores.log_softmax(1)[:, 1:], label)


def as_fake(scores: Tensor) -> float:
    return -scores.log_softmax(1)[:, 0].mean().item()


def as_read_back(scores: Tensor, label: Tensor) -> float:
    """Cross-entropy over the classes alone, of which neither "generated" nor void is one."""
    return as_class(scores[:, 1 : 1 + C].log_softmax(1), label)


def squared_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return sum((first - second).square().mean().item() for first, second in zip(one, other, strict=True))


def unconditional(method: Any, fake: Tensor) -> dict[str, float]:
    """The losses of D_u between unpaired photos and generated ones, with R1 on the photos."""
    network = getattr(method, "unpaired_discriminator", None) or method.discriminator
    config, photo = method.config, UNPAIRED.photo.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(photo).sum(), photo)
    return {
        "real": softplus(-network(photo)).mean().item(),
        "fake": softplus(network(fake)).mean().item(),
        "r1": config.r1_every * config.r1 / 2 * gradient.square().sum().item() / len(photo),
    }


def test_the_batch_of_these_tests_has_void_and_halves_whose_classes_weigh_otherwise() -> None:
    shares = [[(half.label == each).float().mean().item() for each in (0, 1, 2, IGNORE)] for half in (PAIRED, UNPAIRED)]
    assert min(min(each) for each in shares) > 0.05
    assert max(abs(one - other) for one, other in zip(*shares, strict=True)) > 0.02


def test_semipaired_minimises_its_equations_in_its_order() -> None:
    method = still("semipaired", feature_matching=3.0, cycle=2.0, adversarial=0.5, label_mix=0.0)
    updates, discriminator = updates_of(method), method.discriminator

    scores, features = discriminator.with_features(painted(method, PAIRED.label, "generator"))
    known = discriminator.with_features(PAIRED.photo)[1]
    assert len(known) == 12
    minimises(
        next(updates),
        "generator",
        adversarial=as_real(scores, PAIRED.label),
        feature_matching=3 * squared_distance(known, features),
    )

    update = next(updates)  # on photos of the generator that has moved
    fake = painted(method, PAIRED.label, "discriminator")
    minimises(
        update,
        "discriminator",
        real=as_real(discriminator(PAIRED.photo), PAIRED.label),
        fake=as_fake(discriminator(fake)),
    )

    update = next(updates)  # by the discriminator that has moved
    fake = painted(method, UNPAIRED.label, "unpaired")
    minimises(
        update,
        "generator",
        cycle=2 * as_read_back(discriminator(fake), UNPAIRED.label),
        adversarial_unpaired=0.5 * softplus(-method.unpaired_discriminator(fake)).mean().item(),
    )

    update = next(updates)
    minimises(update, "unpaired_discriminator", **unconditional(method, painted(method, UNPAIRED.label, "critic")))
    assert next(updates, None) is None


@pytest.mark.parametrize(("reverse", "reader"), [("unfrozen", "discriminator"), ("separate", "segmenter")])
def test_a_reverse_mapper_of_the_ablations_learns_from_the_current_generator(reverse: str, reader: str) -> None:
    method = still("semipaired", reverse=reverse, cycle=2.0, adversarial=0.5)
    updates, network = updates_of(method), getattr(method, reader)
    next(updates), next(updates)

    update = next(updates)
    fake = painted(method, UNPAIRED.label, "unpaired")
    minimises(
        update,
        "generator",
        cycle=2 * as_read_back(network(fake), UNPAIRED.label),
        adversarial_unpaired=0.5 * softplus(-method.unpaired_discriminator(fake)).mean().item(),
    )

    update = next(updates)
    fake = painted(method, UNPAIRED.label, "critic")
    minimises(update, reader, cycle=2 * as_read_back(network(fake), UNPAIRED.label))
    minimises(next(updates), "unpaired_discriminator", **unconditional(method, fake))
    assert next(updates, None) is None


def test_usis_minimises_its_equations_in_its_order() -> None:
    method = still("usis", segmentation=2.0)
    updates = updates_of(method)

    fake = painted(method, UNPAIRED.label, "generator")
    minimises(
        next(updates),
        "generator",
        segmentation=2 * as_real(method.segmenter(fake), UNPAIRED.label),
        adversarial=softplus(-method.discriminator(fake)).mean().item(),
    )

    update = next(updates)
    fake = painted(method, UNPAIRED.label, "segmenter")
    minimises(update, "segmenter", segmentation=as_real(method.segmenter(fake), UNPAIRED.label))
    minimises(next(updates), "discriminator", **unconditional(method, fake))
    assert next(updates, None) is None


@pytest.mark.parametrize("name", ["oasis", "tcr"])
def test_oasis_and_tcr_minimise_their_equations_in_their_order(name: str) -> None:
    method = still(name, label_mix=4.0, **({"consistency": 3.0} if name == "tcr" else {}))
    updates, discriminator = updates_of(method), method.discriminator

    expected = {"adversarial": as_real(discriminator(painted(method, PAIRED.label, "generator")), PAIRED.label)}
    if name == "tcr":
        expected["consistency"] = 3 * inconsistency(method)
    minimises(next(updates), "generator", **expected)

    update = next(updates)
    fake = painted(method, PAIRED.label, "discriminator")
    real_here = random(method.seed, STEP, "label mix").random(C + 1) < 0.5
    mask = torch.zeros_like(fake[:, :1])
    for number, each in enumerate((*range(C), IGNORE)):
        mask[(PAIRED.label == each).unsqueeze(1)] = float(real_here[number])
    assert real_here.tolist() == [False, False, True, True]
    mixed = discriminator(mask * PAIRED.photo + (1 - mask) * fake)
    apart = mask * discriminator(PAIRED.photo) + (1 - mask) * discriminator(fake)
    minimises(
        update,
        "discriminator",
        real=as_real(discriminator(PAIRED.photo), PAIRED.label),
        fake=as_fake(discriminator(fake)),
        label_mix=4 * (mixed - apart).square().mean().item(),
    )
    assert next(updates, None) is None


def inconsistency(method: Any) -> float:
    """The mean of |T(G(m, z)) - G(T(m), z)| where T(m) lies inside, over unpaired label maps, both with the same noise
    z.
    """
    label, config = UNPAIRED.label, method.config
    draws = [random(method.seed, STEP, "warp", index) for index in range(len(label))]
    warps = drawn_warps(draws, (64, 64), translation=config.translation, rotation=config.rotation, shear=config.shear)
    turned, inside = warped_label(label, warps)
    assert 0.3 < inside.mean() < 1
    noise = method.noise(label, STEP, "consistency")
    before = warped(method.generator(method.encode(label), noise), warps)
    after = method.generator(method.encode(turned), noise)
    return (before - after).abs().permute(0, 2, 3, 1)[inside[:, 0] == 1].mean().item()


def test_cc_fpse_minimises_its_equations_in_its_order() -> None:
    method = still("cc_fpse", feature_matching=3.0)
    updates, drawn, layers = updates_of(method), method.encode(PAIRED.label), []
    for layer in list(method.discriminator.encoder)[1:]:
        layer.register_forward_hook(lambda _, __, out: layers.append(out.detach()))

    def scores(photo: Tensor) -> list[Tensor]:
        layers.clear()
        return [scale[-1] for scale in method.discriminator(photo, drawn)]

    scores(PAIRED.photo)
    known = list(layers)
    judged = scores(method.generator(drawn))
    distances = [(one - other).abs().mean().item() for one, other in zip(known, layers, strict=True)]
    assert (len(judged), len(distances)) == (3, 4)
    minimises(
        next(updates),
        "generator",
        adversarial=-sum(each.mean().item() for each in judged) / 3,
        feature_matching=3 * sum(distances) / 4,
    )

    update = next(updates)
    real, fake = scores(PAIRED.photo), scores(method.generator(drawn))
    minimises(
        update,
        "discriminator",
        real=sum((1 - each).clamp(min=0).mean().item() for each in real) / 3,
        fake=sum((1 + each).clamp(min=0).mean().item() for each in fake) / 3,
    )
    assert next(updates, None) is None


def test_spade_minimises_its_equations_in_its_order() -> None:
    method = still("spade", feature_matching=3.0)
    updates, drawn = updates_of(method), method.encode(PAIRED.label)

    known, judged = method.discriminator(PAIRED.photo, drawn), method.discriminator(method.generator(drawn), drawn)
    matched = [
        sum((a - b).abs().mean().item() for a, b in zip(one[:-1], other[:-1], strict=True))
        for one, other in zip(known, judged, strict=True)
    ]
    assert len(matched) == 2
    minimises(
        next(updates),
        "generator",
        adversarial=-sum(scale[-1].mean().item() for scale in judged) / 2,
        feature_matching=3 * sum(matched) / 2,
    )

    update = next(updates)
    judged = method.discriminator(method.generator(drawn), drawn)
    minimises(
        update,
        "discriminator",
        real=sum((1 - scale[-1]).clamp(min=0).mean().item() for scale in known) / 2,
        fake=sum((1 + scale[-1]).clamp(min=0).mean().item() for scale in judged) / 2,
    )
    assert next(updates, None) is None
