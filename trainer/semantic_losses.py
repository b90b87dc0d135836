"""The losses of label -> photo with a discriminator that segments: OASIS, USIS, the semi-paired method, SPADE.

Pure functions, computed in fp32 or better. A discriminator's logits are Float[B,S+1,H,W]: number 0 means "generated", number k+1 class k;
labels are Long[B,H,W] in 0..S-1 or IGNORE, which weighs nothing but where "generated" is the truth. The non-saturating logistic loss of
an unconditional discriminator is `losses.cross_entropy_logits`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, relu

from trainer.batch import IGNORE, LabelMap, Photo, Scores
from trainer.networks.precision import in_fp32
from trainer.networks.synchronised import sum_over_processes

_NONE = -1
"""The target of a pixel that weighs nothing; 255 could be a class's number plus one."""


def class_weights(label: LabelMap, count: int) -> Tensor:
    """w_c = B H W / (K n_c) over all processes' batches, Float[count]; 0 for a class that is absent (Schonfeld et al., Eq. 1).

    n_c is how many pixels have class c, K how many classes are present; so the mean over all pixels is 1, void ones counting as 0. All
    processes must call.

    # Unlike the paper: its formula lacks the 1/K, which the released code has.
    """
    index = torch.where(label == IGNORE, count, label).reshape(-1)
    own = index.new_zeros(count + 1).scatter_add_(0, index, torch.ones_like(index))  # whole numbers: exact on every device
    together = sum_over_processes(own).double()
    pixels, everything = together[:-1], together.sum()
    kinds = (pixels > 0).sum().clamp(min=1)
    return torch.where(pixels > 0, everything / (kinds * pixels.clamp(min=1)), 0.0).float()


def segmentation(scores: Scores, label: LabelMap, weights: Tensor) -> Tensor:
    """-w_m log softmax(scores)[m+1], the mean over *all* pixels, void ones too, which add 0 (Schonfeld et al., Eq. 1 and 2).

    The discriminator minimises it on real photos, the generator on its own. scores Float[B,S+1,H,W], weights Float[S].
    """
    target = torch.where(label == IGNORE, _NONE, label + 1)
    weights = torch.cat([weights.new_zeros(1), weights])
    return cross_entropy(_wide(scores), target, weight=_wide(weights), ignore_index=_NONE, reduction="sum") / label.numel()


def generated_everywhere(scores: Scores) -> Tensor:
    """-log softmax(scores)[0], the mean over all pixels, void ones too, unweighted: the discriminator on generated photos (Eq. 1)."""
    return -torch.log_softmax(_wide(scores), 1)[:, 0].mean()


def segmentation_cycle(scores: Scores, label: LabelMap, weights: Tensor) -> Tensor:
    """-w_m log softmax(scores without number 0)[m], the mean over all pixels (Eskandar et al., section 2.2, the cycle loss).

    "The output fake class is ignored": its logit is dropped *before* the softmax, so that it cannot be reduced by being less "generated".
    """
    target = torch.where(label == IGNORE, _NONE, label)
    return cross_entropy(_wide(scores[:, 1:]), target, weight=_wide(weights), ignore_index=_NONE, reduction="sum") / label.numel()


def label_mix_mask(label: LabelMap, bits: Tensor) -> Tensor:
    """Each pixel's bit by its class, Float[B,1,H,W] (Schonfeld et al., section 3.3).

    bits Bool[S+1]: one for each class and one, the last, for void; the caller draws them, anew for each batch.
    """
    classes = len(bits) - 1
    return bits.float()[torch.where(label == IGNORE, classes, label)].unsqueeze(1)


def mixed_by(mask: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """M real + (1 - M) fake, for photos and for their logits alike."""
    return mask * real + (1 - mask) * fake


def label_mix_consistency(mixed_scores: Scores, real_scores: Scores, fake_scores: Scores, mask: Tensor) -> Tensor:
    """(D(mix(x, x')) - mix(D(x), D(x')))^2, the mean over all logits; gradients flow through all three (Schonfeld et al., Eq. 3)."""
    return (_wide(mixed_scores) - mixed_by(mask, _wide(real_scores), _wide(fake_scores))).square().mean()


def lazy_r1(critic: Callable[[Photo], Tensor], photo: Photo, *, gamma: float, every: int) -> Tensor:
    """every (gamma/2) |grad D(x)|^2 at real photos, the mean over samples, the sum over pixels (Mescheder et al., Eq. 9).

    To be added at each `every`-th step only; the factor makes up for the steps without. Computed in fp32 whatever surrounds it.

    # Unlike the released code of USIS: the penalty is scaled, not the rest of the discriminator's loss.
    """
    photo = _wide(photo.detach()).requires_grad_()
    with torch.enable_grad(), in_fp32(photo):
        (gradient,) = torch.autograd.grad(critic(photo).sum(), photo, create_graph=True)
    return every * gamma / 2 * gradient.square().sum((1, 2, 3)).mean()


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """The sum over layers of the mean (D_l(x) - D_l(x'))^2 (Eskandar et al., L_fm). The real features are targets: no gradient."""
    return torch.stack([(_wide(one.detach()) - _wide(other)).square().mean() for one, other in zip(real, fake, strict=True)]).sum()


def feature_matching_l1(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """The sum over layers, the mean over discriminators of the mean |D_l(x) - D_l(x')| (Wang et al., pix2pixHD, Eq. 4, as in SPADE).

    real, fake: what `MultiScalePatchGAN` answers; the last of each scale, its logits, is left out.
    """
    scales = [
        torch.stack([(_wide(one.detach()) - _wide(other)).abs().mean() for one, other in zip(known[:-1], made[:-1], strict=True)]).sum()
        for known, made in zip(real, fake, strict=True)
    ]
    return torch.stack(scales).mean()


def hinge(logits: Tensor, *, real: bool) -> Tensor:
    """max(0, 1 - D) for real, max(0, 1 + D) for fake: the discriminator of SPADE. Its generator minimises -D, `minus_mean`."""
    return relu(1 - _wide(logits) if real else 1 + _wide(logits)).mean()


def minus_mean(logits: Tensor) -> Tensor:
    """-D(x'), the generator's side of the hinge game."""
    return -_wide(logits).mean()


def _wide(values: Tensor) -> Tensor:
    """At least fp32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
