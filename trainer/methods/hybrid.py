"""The hybrid translator of Shukla et al.: CycleGAN with a relativistic game, and an L1 term on the few pairs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainer import losses
from trainer.batch import Batch, Domain
from trainer.games import GAMES, GameName
from trainer.methods.base import PicturePool, Player, Update, constant_then_linear
from trainer.methods.label_side import LabelAs, LabelSide
from trainer.methods.two_generators import TwoGenerators
from trainer.networks.patchgan import Patch, PatchGAN, smallest_side
from trainer.networks.resnet import ResNetGenerator


@dataclass(frozen=True)
class Config:
    """The choices of `hybrid`; the defaults are the paper's (Shukla et al., section 4)."""

    width: int = 64
    """Channels of the first layer of generators and discriminators."""
    blocks: int = 9
    """Residual blocks of each generator."""
    label_as: LabelAs = "colours"
    """colours: label maps are RGB pictures (the paper). classes: one-hot in, logits out, cross-entropy (our own)."""
    game: GameName = "relativistic"
    """The adversarial loss; the released code has relativistic-average as its alternative."""
    patch: Patch = 70
    """Receptive field of the discriminators in pixels."""
    distance: losses.Distance = "l1"
    """Of an output from its pair: l1 (the paper), l2, or half of each; on colours and photos."""
    cycle_distance: losses.Distance = "l1"
    """The same for the cycle loss."""
    cycle_gradient: bool = True
    """Off: the cycle loss is logged but moves nothing, as in the released code, where its reconstructions are made without gradients."""
    adversarial: float = 1.0
    """lambda_1, on the adversarial loss."""
    cycle: float = 10.0
    """lambda_2, on the cycle loss."""
    identity: float = 10.0
    """lambda_3, on the identity loss; the term exists only where label and photo have equally many channels (colours)."""
    reconstruction: float = 150.0
    """lambda_4, on the L1 loss of the pairs."""
    cycle_cross_entropy: float = 3.0
    """With label_as=classes, stands for lambda_2 on the label side."""
    pairs_cross_entropy: float = 30.0
    """With label_as=classes, stands for lambda_4 on the label side."""
    pool: int = 50
    """Fakes kept for the discriminators, for each half and side."""
    lr: float = 2e-4
    """Learning rate of Adam, constant over the first half of the steps, then linear to zero."""
    ema: float = 0.999
    """Decay of the generators' running average."""


class Hybrid(TwoGenerators):
    """Two generators against two unconditional 70x70 discriminators, on pairs and on unpaired samples alike.

    L = lambda_1 L_GAN + lambda_2 L_cycle + lambda_3 L_idt on both halves, + lambda_4 L_L1 on the pairs (Eq. 6). The discriminators move
    first, then the generators, as in the released code.

    # Unlike the released code: one step takes a paired and an unpaired batch and sums their losses (there, an epoch takes all
    # pairs and then everything unpaired); the cycle loss has its gradient (there, a commented-out guard removes it); the real logit of the
    # generators' game is the current sample's (there, one from a pool of reals); both pools hold `pool` fakes (there, 10 for the pairs).
    """

    config_class = Config
    multiple_of = ResNetGenerator.multiple_of
    spares_a_half = True

    def __init__(self, config: Config, *, photo_domain: Domain, label_domain: Domain, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, photo_domain=photo_domain, label_domain=label_domain, size=size, seed=seed)
        self.side = side = LabelSide(label_domain, config.label_as)
        width, blocks = config.width, config.blocks
        self.label_generator = ResNetGenerator(3, side.channels, width=width, blocks=blocks, tanh=not side.as_scores)
        self.photo_generator = ResNetGenerator(side.channels, 3, width=width, blocks=blocks, tanh=True)
        self.label_critic = PatchGAN(side.channels, width=width, patch=config.patch)
        self.photo_critic = PatchGAN(3, width=width, patch=config.patch)
        self.smallest = smallest_side(config.patch)
        self.pools = torch.nn.ModuleDict(
            {
                f"{half}_{kind}": PicturePool(config.pool, seed=seed, stream=f"pool/{half}/{kind}")
                for half in ("paired", "unpaired")
                for kind in ("label", "photo")
            }
        )

    def players(self) -> dict[str, Player]:
        lr, betas = self.config.lr, (0.5, 0.999)
        return {
            "critics": Player((self.label_critic, self.photo_critic), lr, betas, constant_then_linear, None),
            "generators": Player((self.label_generator, self.photo_generator), lr, betas, constant_then_linear, self.config.ema),
        }

    def needs(self) -> frozenset[Literal["pairs", "unpaired"]]:
        return frozenset({"pairs", "unpaired"})

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        # Both halves go through the networks as one batch: instance norm keeps samples apart, so the losses are those of two batches.
        config, side, split = self.config, self.side, len(batch.paired.photo)
        game, each_half = GAMES[config.game], _Halves(split)
        photo = torch.cat([batch.paired.photo, batch.unpaired.photo])
        label = torch.cat([batch.paired.label, batch.unpaired.label])
        drawn = side.encode(label)

        with_identity = side.same_as_photo and config.identity > 0
        raw_label, same_label = _twice(self.label_generator, photo, drawn if with_identity else None)
        fake_photo, same_photo = _twice(self.photo_generator, drawn, photo if with_identity else None)
        fake_label = side.painted(raw_label)

        old_label, old_photo = self._pooled("label", fake_label, split, i), self._pooled("photo", fake_photo, split, i)
        yield Update(
            "critics",
            {
                "label": each_half(game.critic, self.label_critic(drawn), self.label_critic(old_label)),
                "photo": each_half(game.critic, self.photo_critic(photo), self.photo_critic(old_photo)),
            },
        )

        known_label, known_photo = game.known(self.label_critic, drawn), game.known(self.photo_critic, photo)
        with torch.set_grad_enabled(config.cycle_gradient):
            again_photo, again_label = self.photo_generator(fake_label), self.label_generator(fake_photo)
        terms = {
            "adversarial_label": config.adversarial * each_half(game.generator, self.label_critic(fake_label), known_label),
            "adversarial_photo": config.adversarial * each_half(game.generator, self.photo_critic(fake_photo), known_photo),
            "cycle_photo": config.cycle * each_half(partial(losses.difference, kind=config.cycle_distance), again_photo, photo),
            "cycle_label": (config.cycle_cross_entropy if side.as_scores else config.cycle)
            * each_half(partial(side.distance, kind=config.cycle_distance), again_label, label),
        }
        if same_label is not None and same_photo is not None:
            terms["identity_label"] = config.identity * each_half(side.distance, same_label, label)
            terms["identity_photo"] = config.identity * each_half(losses.absolute_difference, same_photo, photo)
        if split:
            weight = config.pairs_cross_entropy if side.as_scores else config.reconstruction
            terms["pairs_label"] = weight * side.distance(raw_label[:split], batch.paired.label, config.distance)
            terms["pairs_photo"] = config.reconstruction * losses.difference(fake_photo[:split], batch.paired.photo, kind=config.distance)
        yield Update("generators", terms)

    def _pooled(self, kind: str, fakes: Tensor, split: int, i: int) -> Tensor:
        return torch.cat([self.pools[f"paired_{kind}"](fakes[:split], i), self.pools[f"unpaired_{kind}"](fakes[split:], i)])


class _Halves:
    """A loss on the paired half, the first `split` samples, plus the same on the unpaired one; a half that is empty costs nothing."""

    def __init__(self, split: int) -> None:
        self.split = split

    def __call__(self, loss: Callable[[Tensor, Any], Tensor], one: Tensor, other: Tensor | None) -> Tensor:
        halves = [slice(0, self.split), slice(self.split, None)]
        return torch.stack([loss(one[half], None if other is None else other[half]) for half in halves if len(one[half])]).sum()


def _twice(generator: nn.Module, picture: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The generator's translation of `picture`, and what it makes of its own output domain, in one pass."""
    if own is None:
        return generator(picture), None
    translated, same = generator(torch.cat([picture, own])).chunk(2)
    return translated, same
