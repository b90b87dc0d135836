"""Losses: pure functions with their equation and source. All compute in fp32 or better and return a scalar.

Logits of discriminators that segment are Float[B,S+1,H,W]: channel 0 means "generated", channel k+1 class k. Labels are
Long[B,H,W] in 0..S-1 or IGNORE, which has no weight.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import relu, softplus

from trainer.batch import IGNORE, LabelMap, Photo, Scores
from trainer.distributed import sum_over_processes
from trainer.labels import counted, one_hot
from trainer.networks.frozen import in_fp32

Distance = Literal["l1", "l2", "half"]
GanLossName = Literal["vanilla", "lsgan", "hinge", "relativistic", "relativistic-average"]

_VOID = -1
"""Target of a pixel without weight; IGNORE (255) could be the number of a class plus one."""


# Distances of pictures and label maps


def difference(one: Tensor, other: Tensor, weight: Tensor | None = None, *, kind: Distance = "l1") -> Tensor:
    """Return mean |one - other| (l1; Shukla et al., Eq. 3 to 5), mean (one - other)^2 (l2), or half of each.

    Half of each is the UCSD report's, section 5. `weight` Float[B,1,H,W] leaves void pixels out of the mean.
    """
    if kind == "half":
        return 0.5 * (difference(one, other, weight) + difference(one, other, weight, kind="l2"))
    distance = _wide(one) - _wide(other)
    values = distance.abs() if kind == "l1" else distance.square()
    if weight is None:
        return values.mean()
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def cross_entropy(scores: Scores, label: LabelMap) -> Tensor:
    """Return -log softmax(scores)[label], the mean over the pixels that are not void; 0 if all are."""
    total = torch_cross_entropy(_wide(scores), label, ignore_index=IGNORE, reduction="sum")
    return total / (label != IGNORE).sum().clamp(min=1)


def soft_dice(scores: Scores, label: LabelMap) -> Tensor:
    """Return 1 - 2 sum(p t) / (sum p + sum t), the mean over the classes in the batch; 0 if all pixels are void.

    Sums run over all pixels that are not void; p = softmax(scores), t the one-hot truth (Milletari et al. 2016, V-Net,
    section 3, with plain sums in the denominator). Rare classes weigh as much as frequent ones.
    """
    truth = one_hot(label, scores.shape[1])
    probability = torch.softmax(_wide(scores), 1) * counted(label)
    overlap = (probability * truth).sum((0, 2, 3))
    held = truth.sum((0, 2, 3))
    present = held > 0
    dice = 1 - 2 * overlap / (probability.sum((0, 2, 3)) + held).clamp(min=1.0)
    return (dice * present).sum() / present.sum().clamp(min=1)


# GAN losses


def logistic(logits: Tensor, *, real: bool) -> Tensor:
    """Return -log sigmoid(D) for real, -log(1 - sigmoid(D)) for fake (Isola et al., Eq. 1, non-saturating)."""
    sign = -1.0 if real else 1.0
    return softplus(sign * _wide(logits)).mean()


def least_squares(logits: Tensor, *, real: bool) -> Tensor:
    """Return (D - 1)^2 for real, D^2 for fake (Mao et al. 2017); the discriminator's 1/2 is in GAN_LOSSES."""
    return (_wide(logits) - float(real)).square().mean()


def hinge(logits: Tensor, *, real: bool) -> Tensor:
    """Return max(0, 1 - D) for real, max(0, 1 + D) for fake, the discriminator's loss (Lim and Ye 2017)."""
    return relu(1 - _wide(logits) if real else 1 + _wide(logits)).mean()


def negative_mean(logits: Tensor) -> Tensor:
    """Return -D(fake): the generator's loss with `hinge`."""
    return -_wide(logits).mean()


def relativistic(preferred: Tensor, other: Tensor) -> Tensor:
    """Return -log sigmoid(C(preferred) - C(other)), sample by sample and patch by patch (Shukla et al., Eq. 1 and 2).

    The discriminator prefers real samples, the generator fake ones. Unlike the paper: its equations lack the minus
    sign, a typo. Both arguments are logits Float[B,1,h,w].
    """
    if preferred.shape != other.shape:
        shapes = f"{tuple(preferred.shape)} and {tuple(other.shape)}"
        raise ValueError(f"the relativistic loss compares sample with sample, got logits of shapes {shapes}")
    return softplus(_wide(other) - _wide(preferred)).mean()


def relativistic_average(preferred: Tensor, other: Tensor) -> Tensor:
    """Return 1/2 [mean (C(preferred) - mean C(other) - 1)^2 + mean (C(other) - mean C(preferred) + 1)^2].

    RaLSGAN (Jolicoeur-Martineau 2018, appendix); the 1/2 is from the released code of the hybrid paper.
    """
    preferred, other = _wide(preferred), _wide(other)
    return 0.5 * ((preferred - other.mean() - 1).square().mean() + (other - preferred.mean() + 1).square().mean())


@dataclass(frozen=True)
class GanLoss:
    """The losses of discriminator and generator over logits Float[B,1,h,w] of equal shape for real and fake."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    """(real, fake) -> loss."""
    generator: Callable[[Tensor, Any], Tensor]
    """(fake, real) -> loss; `real` is None unless `relativistic`."""
    relativistic: bool = False
    """Whether the generator's loss depends on the logits of real samples."""

    @torch.no_grad()
    def real_logits(self, discriminator: nn.Module, real: Tensor) -> Tensor | None:
        """Return real samples' logits for the generator's loss, without a gradient; None if it does not need them."""
        return discriminator(real) if self.relativistic else None


GAN_LOSSES: dict[GanLossName, GanLoss] = {
    "vanilla": GanLoss(
        lambda real, fake: 0.5 * (logistic(real, real=True) + logistic(fake, real=False)),
        lambda fake, real: logistic(fake, real=True),
    ),
    "lsgan": GanLoss(
        lambda real, fake: 0.5 * (least_squares(real, real=True) + least_squares(fake, real=False)),
        lambda fake, real: least_squares(fake, real=True),
    ),
    "hinge": GanLoss(
        lambda real, fake: hinge(real, real=True) + hinge(fake, real=False), lambda fake, real: negative_mean(fake)
    ),
    "relativistic": GanLoss(relativistic, relativistic, relativistic=True),
    "relativistic-average": GanLoss(relativistic_average, relativistic_average, relativistic=True),
}
"""The GAN losses by name. vanilla and lsgan halve the discriminator's loss, as Isola et al. and Zhu et al. do."""


def lazy_r1(discriminator: Callable[[Photo], Tensor], photo: Photo, *, gamma: float, every: int) -> Tensor:
    """Return every (gamma/2) |grad D(x)|^2, summed over pixels, the mean over real photos (Mescheder et al., Eq. 9).

    For every `every`-th step only; the factor makes up for the other steps. Computed in fp32 even under autocast.

    # Unlike the released code of USIS: the penalty is scaled, not the rest of the discriminator's loss.
    """
    photo = _wide(photo.detach()).requires_grad_()
    with torch.enable_grad(), in_fp32(photo):
        (gradient,) = torch.autograd.grad(discriminator(photo).sum(), photo, create_graph=True)
    return every * gamma / 2 * gradient.square().sum((1, 2, 3)).mean()


# Feature matching


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return the sum over layers of mean (D_l(x) - D_l(x'))^2 (Eskandar et al.); real features take no gradient."""
    return torch.stack(
        [difference(one.detach(), other, kind="l2") for one, other in zip(real, fake, strict=True)]
    ).sum()


def feature_matching_l1(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the sum over layers of mean |D_l(x) - D_l(x')|, the mean over scales (Wang et al., pix2pixHD, Eq. 4).

    Both arguments are outputs of `MultiScalePatchGAN`; the last of each scale, its logits, is left out.
    """
    scales = [
        torch.stack([difference(one.detach(), other) for one, other in zip(x[:-1], y[:-1], strict=True)]).sum()
        for x, y in zip(real, fake, strict=True)
    ]
    return torch.stack(scales).mean()


# Discriminators that segment: OASIS, USIS, the semi-paired method


def class_weights(label: LabelMap, count: int) -> Tensor:
    """Return w_c = B H W / (K n_c) over all processes' batches, Float[count] (Schonfeld et al., Eq. 1).

    n_c is the number of pixels of class c, K the number of classes present. All processes must call.

    # Unlike the paper: its formula lacks the 1/K, which the released code has.
    """
    index = torch.where(label == IGNORE, count, label).reshape(-1)
    own = index.new_zeros(count + 1).scatter_add_(0, index, torch.ones_like(index))  # integers: exact on every device
    together = sum_over_processes(own).double()
    pixels, everything = together[:-1], together.sum()
    kinds = (pixels > 0).sum().clamp(min=1)
    return torch.where(pixels > 0, everything / (kinds * pixels.clamp(min=1)), 0.0).float()


def segmentation(scores: Scores, label: LabelMap, weights: Tensor) -> Tensor:
    """Return -w_m log softmax(scores)[m+1], the mean over *all* pixels; void adds 0 (Schonfeld et al., Eq. 1 and 2).

    The discriminator minimises it on real photos, the generator on its own. scores Float[B,S+1,H,W], weights Float[S].
    """
    weights = torch.cat([weights.new_zeros(1), weights])
    return _weighted_cross_entropy(scores, torch.where(label == IGNORE, _VOID, label + 1), weights)


def generated_everywhere(scores: Scores) -> Tensor:
    """Return -log softmax(scores)[0], the mean over all pixels, for generated photos (Schonfeld et al., Eq. 1)."""
    return -torch.log_softmax(_wide(scores), 1)[:, 0].mean()


def segmentation_cycle(scores: Scores, label: LabelMap, weights: Tensor) -> Tensor:
    """Return -w_m log softmax(scores without channel 0)[m], the mean over all pixels (Eskandar et al., section 2.2).

    "The output fake class is ignored": its logit is dropped *before* the softmax.
    """
    return _weighted_cross_entropy(scores[:, 1:], torch.where(label == IGNORE, _VOID, label), weights)


def label_mix_mask(label: LabelMap, bits: Tensor) -> Tensor:
    """Return each pixel's bit by its class (the last for void), Float[B,1,H,W] (Schonfeld et al., section 3.3)."""
    classes = len(bits) - 1
    return bits.float()[torch.where(label == IGNORE, classes, label)].unsqueeze(1)


def mix(mask: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Return M real + (1 - M) fake, for photos and for their logits."""
    return mask * real + (1 - mask) * fake


def label_mix_consistency(mixed_scores: Scores, real_scores: Scores, fake_scores: Scores, mask: Tensor) -> Tensor:
    """Return mean (D(mix(x, x')) - mix(D(x), D(x')))^2; gradients flow through all three (Schonfeld et al., Eq. 3)."""
    return (_wide(mixed_scores) - mix(mask, _wide(real_scores), _wide(fake_scores))).square().mean()


def _weighted_cross_entropy(scores: Scores, target: Tensor, weights: Tensor) -> Tensor:
    total = torch_cross_entropy(_wide(scores), target, weight=_wide(weights), ignore_index=_VOID, reduction="sum")
    return total / target.numel()


def _wide(values: Tensor) -> Tensor:
    """Return the values in at least fp32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def gaussian_kl(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return KL(N(mean, deviation^2) || N(0, 1)), summed over the values, mean over the batch: Float[B,N] twice."""
    return 0.5 * (mean**2 + deviation**2 - 1 - 2 * deviation.log()).sum(1).mean()
