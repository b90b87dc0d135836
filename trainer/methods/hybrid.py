"""The hybrid translator of Shukla et al.: CycleGAN with a relativistic GAN loss, and an L1 term on the few pairs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer import losses
from trainer.batch import Batch, Domain
from trainer.errors import UserError
from trainer.labels import counted
from trainer.methods.base import ParameterGroup, PicturePool, Update
from trainer.methods.translator import Translator, TranslatorConfig
from trainer.networks.encoders import DEFAULT as ENCODER
from trainer.networks.encoders import features_of, load_encoder
from trainer.networks.patchgan import Patch, PatchGAN, smallest_side
from trainer.networks.projected import relative_l1
from trainer.networks.pyramid import load_segmenter


@dataclass(frozen=True)
class Config(TranslatorConfig):
    """The choices of `hybrid`; the defaults are the paper's (Shukla et al., section 4)."""

    gan_loss: losses.GanLossName = "relativistic"
    """The adversarial loss; the released code has relativistic-average as its alternative."""
    patch: Patch = 70
    """Receptive field of the discriminators in pixels."""
    distance: losses.Distance = "l1"
    """Of an output from its pair: l1 (the paper), l2, or half of each; on colours and photos."""
    cycle_distance: losses.Distance = "l1"
    """The same for the cycle loss."""
    cycle_gradient: bool = True
    """Off: the cycle loss is logged but has no gradient, as in the released code."""
    adversarial: float = 1.0
    """lambda_1, on the adversarial loss."""
    cycle: float = 10.0
    """lambda_2, on the cycle loss."""
    identity: float = 10.0
    """lambda_3, on the identity loss; only where label and photo have equally many channels (colours)."""
    reconstruction: float = 150.0
    """lambda_4, on the L1 loss of the pairs."""
    cycle_cross_entropy: float = 3.0
    """With label_as=classes, stands for lambda_2 on the label side."""
    pairs_cross_entropy: float = 30.0
    """With label_as=classes, stands for lambda_4 on the label side."""
    hide_void: bool = False
    """Show the label discriminator generated maps with the void pixels of the known map (ours): real maps have void."""
    features: float = 0.0
    """Weight of the relative L1 distance in a frozen EfficientNet-Lite0's features, on the pairs' photos (ours)."""
    segmenter: str | None = None
    """A run of `mean_teacher` that the label generator starts from (ours; label_as=classes); None: random weights."""
    pool: int = 50
    """Fakes kept for the discriminators, for each half and side."""


class Hybrid(Translator):
    """Two generators against two unconditional 70x70 discriminators, on pairs and on unpaired samples alike.

    L = lambda_1 L_GAN + lambda_2 L_cycle + lambda_3 L_idt on both halves, + lambda_4 L_L1 on the pairs (Eq. 6). The
    discriminators move first, then the generators, as in the released code.

    # Unlike the released code: one step takes a paired and an unpaired batch and sums their losses (there, an epoch
    takes all pairs, then everything unpaired); the cycle loss has its gradient; the real logit of the generators' loss
    is the current sample's (there, from a pool of reals); all pools hold `pool` fakes (there, 10 for the pairs).
    """

    config_class = Config
    reads = frozenset({"pairs", "unpaired photos", "unpaired label maps"})
    paths = ("segmenter",)
    spares_a_half = True

    def __init__(self, config: Config, label_domain: Domain, *, size: tuple[int, int], seed: int) -> None:
        super().__init__(config, label_domain, size=size, seed=seed)
        if config.hide_void and label_domain.classes is None:
            raise UserError("hide_void needs label maps over classes; the label side of this dataset is pictures")
        if config.segmenter:
            if not self.as_scores:
                raise UserError(f"segmenter {config.segmenter} answers class scores: add --config.label-as classes")
            self.label_generator = load_segmenter(Path(config.segmenter), classes=self.channels).requires_grad_(True)
        else:
            self.label_generator = self.build_generator("to_label")
        self.multiple_of = self.label_generator.multiple_of
        self.photo_generator = self.build_generator("to_photo")
        self.label_discriminator = PatchGAN(self.channels, width=config.width, patch=config.patch)
        self.photo_discriminator = PatchGAN(3, width=config.width, patch=config.patch)
        self.smallest = smallest_side(config.patch)
        self._features = [load_encoder(ENCODER)] if config.features else []  # in a list: not in the checkpoint
        self.pools = torch.nn.ModuleDict(
            {
                f"{half}_{kind}": PicturePool(config.pool, seed=seed, stream=f"pool/{half}/{kind}")
                for half in ("paired", "unpaired")
                for kind in ("label", "photo")
            }
        )

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        return {
            "discriminators": self.adam(self.label_discriminator, self.photo_discriminator, ema=False),
            "generators": self.adam(self.label_generator, self.photo_generator, ema=True),
        }

    def step(self, batch: Batch, i: int) -> Iterator[Update]:
        # Both halves go through the networks as one batch: instance norm keeps samples apart, so the losses are those
        # of two batches.
        config, split = self.config, len(batch.paired.photo)
        gan = losses.GAN_LOSSES[config.gan_loss]
        photo = torch.cat([batch.paired.photo, batch.unpaired.photo])
        label = torch.cat([batch.paired.label, batch.unpaired.label])
        drawn = self.encode(label)

        def each_half(loss: Callable[[Tensor, Any], Tensor], one: Tensor, other: Tensor | None) -> Tensor:
            """The loss on the paired half plus that on the unpaired one; an empty half costs 0."""
            halves = [slice(0, split), slice(split, None)]
            terms = [loss(one[half], None if other is None else other[half]) for half in halves if len(one[half])]
            return torch.stack(terms).sum()

        with_identity = not self.as_scores and config.identity > 0
        raw_label, same_label = _twice(self.label_generator, photo, drawn if with_identity else None)
        fake_photo, same_photo = _twice(self.photo_generator, drawn, photo if with_identity else None)
        fake_label = self.probabilities(raw_label)

        shown_label = torch.where(counted(label) > 0, fake_label, drawn) if config.hide_void else fake_label
        label_d, photo_d = self.label_discriminator, self.photo_discriminator
        old_label, old_photo = self._pooled("label", shown_label, split, i), self._pooled("photo", fake_photo, split, i)
        terms = {
            "label": each_half(gan.discriminator, label_d(drawn), label_d(old_label)),
            "photo": each_half(gan.discriminator, photo_d(photo), photo_d(old_photo)),
        }
        yield Update("discriminators", terms)

        known_label, known_photo = gan.real_logits(label_d, drawn), gan.real_logits(photo_d, photo)
        with torch.set_grad_enabled(config.cycle_gradient):
            again_photo, again_label = self.photo_generator(fake_label), self.label_generator(fake_photo)
        cycle_label, kind = config.cycle_cross_entropy if self.as_scores else config.cycle, config.cycle_distance
        terms = {
            "adversarial_label": config.adversarial * each_half(gan.generator, label_d(shown_label), known_label),
            "adversarial_photo": config.adversarial * each_half(gan.generator, photo_d(fake_photo), known_photo),
            "cycle_photo": config.cycle * each_half(partial(losses.difference, kind=kind), again_photo, photo),
            "cycle_label": cycle_label * each_half(partial(self.label_distance, kind=kind), again_label, label),
        }
        if same_label is not None and same_photo is not None:
            terms["identity_label"] = config.identity * each_half(self.label_distance, same_label, label)
            terms["identity_photo"] = config.identity * each_half(losses.difference, same_photo, photo)
        if split:
            weight = config.pairs_cross_entropy if self.as_scores else config.reconstruction
            terms["pairs_label"] = weight * self.label_distance(raw_label[:split], batch.paired.label, config.distance)
            pairs_photo = losses.difference(fake_photo[:split], photo[:split], kind=config.distance)
            terms["pairs_photo"] = config.reconstruction * pairs_photo
            for encoder in self._features:
                real, fake = (features_of(encoder, each[:split]) for each in (photo, fake_photo))
                terms["pairs_features"] = config.features * relative_l1(real, fake)
        yield Update("generators", terms)

    def _pooled(self, kind: str, fakes: Tensor, split: int, i: int) -> Tensor:
        halves = {"paired": fakes[:split], "unpaired": fakes[split:]}
        return torch.cat([self.pools[f"{half}_{kind}"](each, i) for half, each in halves.items()])


def _twice(generator: nn.Module, picture: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The generator's translation of `picture`, and what it makes of its own output domain, in one pass."""
    if own is None:
        return generator(picture), None
    translated, same = generator(torch.cat([picture, own])).chunk(2)
    return translated, same
