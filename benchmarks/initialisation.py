"""The effect of initialisation on OASIS's discriminator: features, spectral norms (docs/methods/oasis.md).

python benchmarks/initialisation.py --root CAMVID
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, normalize
from torch.nn.utils.parametrize import is_parametrized

from trainer.batch import Photo
from trainer.data.catalogue import open_dataset
from trainer.data.loader import Loader
from trainer.data.selection.choose import select
from trainer.methods.semipaired import SemiPaired
from trainer.networks.frozen import keeping_buffers
from trainer.networks.init import update_spectral_norm
from trainer.networks.segmenting_discriminator import SegmentingDiscriminator
from trainer.recipes import RECIPES
from trainer.training.checkpointing import build_method
from trainer.training.loop import train_step
from trainer.training.state import TrainState


@dataclass(frozen=True)
class Options:
    """What is measured."""

    root: Path
    """CamVid's folder."""
    start: Literal["torch", "xavier", "torch scaled"] = "torch"
    """"torch scaled": torch's initial weights times 0.035, about as small as the others; spectral norm divides that out
    of the answers.
    """
    steps: tuple[int, ...] = (0, 1, 10, 50, 200)
    """After so many steps it is looked at."""
    feature_matching: float = 1e-4
    lr_discriminator: float = 2e-4
    width: int = 8
    size: tuple[int, int] = (64, 128)
    settled: bool = False
    """Bring the vectors of spectral norm up to date after each step of the discriminator, so that no estimate lags
    behind.
    """
    gains: bool = True
    """Measure the largest gain of convolutions too, which takes minutes at full width."""


def main(asked: Options) -> None:
    """Train `semipaired` on 73 pairs without its VGG loss, and print what is found in the discriminator at the asked
    steps.
    """
    torch.set_num_threads(1)
    base = RECIPES["semipaired-compact"]
    config = replace(
        base.config,
        width=asked.width,
        perceptual=0.0,
        feature_matching=asked.feature_matching,
        lr_discriminator=asked.lr_discriminator,
        initialisation="xavier" if asked.start == "xavier" else "torch",
    )
    run = replace(base, root=str(asked.root), config=config, size=asked.size, steps=max(asked.steps), precision="fp32")
    dataset = open_dataset("camvid", asked.root)
    method = build_method(run, dataset.label_domain)
    assert isinstance(method, SemiPaired)
    if asked.start == "torch scaled":
        for _, convolution in carriers(method.discriminator):
            raw(convolution).data.mul_(0.035)
    state = TrainState.create(method)
    if asked.settled:
        state.optimisers["discriminator"].register_step_post_hook(lambda *_: update_spectral_norm(method.discriminator))
    loader = Loader(dataset, select(dataset, k=73, unpaired=None, seed=0), size=run.size, batch=2, seed=0)
    photos = torch.cat([loader.batch(1000 + step).paired.photo for step in range(2)])
    before: dict[str, Tensor] = {}
    for step in range(max(asked.steps) + 1):
        if step in asked.steps:
            print(
                f"{asked.start}, fm {asked.feature_matching:g}, lr {asked.lr_discriminator:g}, step {step}", flush=True
            )
            report(method.discriminator, photos, before, gains=asked.gains)
            if step:
                gradients(method.discriminator, state.optimisers["discriminator"])
        if step == max(asked.steps):
            break
        before = {name: raw(convolution).detach().clone() for name, convolution in carriers(method.discriminator)}
        losses = train_step(state, loader.batch(step), steps=run.steps)
        state.step += 1
        if step + 1 in asked.steps:
            print("  losses:", ", ".join(f"{name} {float(loss):.3g}" for name, loss in losses.items()))


@torch.no_grad()
def report(network: SegmentingDiscriminator, photos: Photo, before: dict[str, Tensor], *, gains: bool) -> None:
    """Print the root mean square of every block's features, and what becomes of the weights under spectral norm."""
    with keeping_buffers(network):
        for sigma, iterations in (("estimated", 0), ("exact", 50)):
            update_spectral_norm(network, iterations=iterations)
            features = network.eval().with_features(photos)[1]
            blocks = " ".join(f"{float(block.square().mean().sqrt()):.3g}" for block in features)
            print(f"  rms of blocks, {sigma} sigma: {blocks}")
    divided, operators, ranks, changes = [], [], [], []
    for name, convolution in carriers(network):
        weight, matrix = convolution.weight, raw(convolution).flatten(1)
        largest = float(torch.linalg.matrix_norm(matrix, ord=2))
        divided.append(float(torch.linalg.matrix_norm(weight.flatten(1), ord=2)))
        if gains and weight.shape[2] == 3:
            operators.append(operator_norm(weight / divided[-1]))
        ranks.append(float(matrix.square().sum()) / largest**2)
        if name in before:
            changes.append(float((raw(convolution) - before[name]).norm() / before[name].norm()))
    network.train()
    print(f"  sigma / estimate: median {median(divided):.3f}, most {max(divided):.3f}")
    if gains:
        print(f"  gain of a 3x3 convolution with sigma 1: median {median(operators):.2f}, most {max(operators):.2f}")
    print(f"  |W|^2 / sigma^2: median {median(ranks):.1f}")
    if changes:
        print(f"  the last step's |change| / |W|: median {median(changes):.3f}, most {max(changes):.3f}")


def gradients(network: SegmentingDiscriminator, adam: torch.optim.Optimizer) -> None:
    """Print how large the last gradient was beside the root of Adam's second moment, which it is divided by.

    With the family's beta of 0 for the first moment, that one *is* the last gradient.
    """
    states = [adam.state[raw(convolution)] for _, convolution in carriers(network)]
    last = [float(state["exp_avg"].square().mean().sqrt()) for state in states]
    usual = [math.sqrt(float(state["exp_avg_sq"].mean()) / (1 - 0.999 ** float(state["step"]))) for state in states]
    shares = [now / then for now, then in zip(last, usual, strict=True)]
    print(
        f"  last gradient: median rms {median(last):.2g}; beside Adam's root mean square so far: median "
        f"{median(shares):.3f}"
    )


def carriers(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    """The convolutions with spectral norm."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and is_parametrized(module, "weight"):
            yield name, module


def raw(convolution: nn.Conv2d) -> Tensor:
    """The weight before the division."""
    weight = convolution.parametrizations["weight"].original  # type: ignore[index, union-attr]
    assert isinstance(weight, Tensor)
    return weight


def operator_norm(weight: Tensor, *, side: int = 16, iterations: int = 50) -> float:
    """The largest singular value of the convolution on pictures of side x side, with padding 1."""
    picture = normalize(
        torch.randn(1, weight.shape[1], side, side, generator=torch.Generator().manual_seed(0)).flatten(), dim=0
    )
    picture = picture.view(1, weight.shape[1], side, side)
    length = 0.0
    for _ in range(iterations):
        picture = conv_transpose2d(conv2d(picture, weight, padding=1), weight, padding=1)
        length = float(picture.norm())
        picture = picture / length
    return math.sqrt(length)


def median(values: list[float]) -> float:
    """The middle value."""
    return float(torch.tensor(values).median())


if __name__ == "__main__":
    main(tyro.cli(Options))
