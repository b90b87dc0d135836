"""Every loss, a pure function with its equation. All compute in fp32 and return a scalar: a mean over batch and pixels."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import cross_entropy as _cross_entropy
from torch.nn.functional import softmax, softplus

from trainer.batch import IGNORE, LabelMap, Scores
from trainer.labels import counted, one_hot

Distance = Literal["l1", "l2", "half"]


def relativistic(preferred: Tensor, other: Tensor) -> Tensor:
    """-log sigmoid(C(preferred) - C(other)), element by element (Jolicoeur-Martineau; Shukla et al., Eq. 1 and 2).

    The discriminator prefers the real sample to the fake one, the generator the fake one to the real. Sample i is set against
    sample i and patch (u,v) against patch (u,v). Unlike the paper: its equations lack the minus sign, a typo.

    preferred, other: logits of equal shape Float[B,1,h,w].
    """
    if preferred.shape != other.shape:
        raise ValueError(f"the relativistic loss pairs sample with sample: got logits {tuple(preferred.shape)} and {tuple(other.shape)}")
    return softplus(other.float() - preferred.float()).mean()


def least_squares(logits: Tensor, *, real: bool) -> Tensor:
    """(D - 1)^2 for real, D^2 for fake (LSGAN as in CycleGAN, Zhu et al., section 4). The discriminator's 1/2 is the method's."""
    return (logits.float() - float(real)).square().mean()


def cross_entropy_logits(logits: Tensor, *, real: bool) -> Tensor:
    """-log sigmoid(D) for real, -log(1 - sigmoid(D)) for fake (pix2pix, Isola et al., Eq. 1, non-saturating for the generator)."""
    sign = -1.0 if real else 1.0
    return softplus(sign * logits.float()).mean()


def difference(one: Tensor, other: Tensor, weight: Tensor | None = None, *, kind: Distance = "l1") -> Tensor:
    """How far two pictures are apart: l1, l2 (mean squared), or half = 1/2 l1 + 1/2 l2 (the UCSD report, section 5)."""
    if kind == "l1":
        return absolute_difference(one, other, weight)
    if kind == "l2":
        return squared_difference(one, other, weight)
    return 0.5 * (absolute_difference(one, other, weight) + squared_difference(one, other, weight))


def absolute_difference(one: Tensor, other: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean |one - other| (L1; Shukla et al., Eq. 3 to 5). `weight` Float[B,1,H,W] takes void pixels out of the mean."""
    return _weighted_mean((one.float() - other.float()).abs(), weight)


def squared_difference(one: Tensor, other: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean (one - other)^2 (L2). `weight` Float[B,1,H,W] takes void pixels out of the mean."""
    return _weighted_mean((one.float() - other.float()).square(), weight)


def cross_entropy(scores: Scores, label: LabelMap) -> Tensor:
    """-log softmax(scores)[label], the mean over the pixels that are not void; 0 where all are."""
    total = _cross_entropy(scores.float(), label, ignore_index=IGNORE, reduction="sum")
    return total / (label != IGNORE).sum().clamp(min=1)


def soft_dice(scores: Scores, label: LabelMap) -> Tensor:
    """1 - 2 sum(p t) / (sum p + sum t), the sums over all pixels of the batch that are not void, the mean over the classes it holds.

    p = softmax(scores), t the one-hot truth (Milletari et al. 2016, V-Net, section 3, with plain sums below the line instead of sums of
    squares). A class of few pixels weighs as much as one of many. 0 where all pixels are void.
    """
    truth = one_hot(label, scores.shape[1])
    probability = softmax(scores.float(), 1) * counted(label)
    overlap = (probability * truth).sum((0, 2, 3))
    held = truth.sum((0, 2, 3))
    present = held > 0
    dice = 1 - 2 * overlap / (probability.sum((0, 2, 3)) + held).clamp(min=1.0)
    return (dice * present).sum() / present.sum().clamp(min=1)


def _weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return values.mean()
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1.0)
