"""What processes that train one run together must sum: a differentiable sum over them, and the batch norm that stands on it."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.networks.spectral import settle


def world() -> int:
    """How many processes train together; 1 where torchrun did not start this one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among those that train together; 0 where torchrun did not start it."""
    return dist.get_rank() if world() > 1 else 0


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's tensor, on each of them; all must call. Alone: the tensor itself.

    Its gradient is the sum of theirs, so that what is differentiated is the sum of the processes' losses.
    """
    return values if world() == 1 else _Sum.apply(values)


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm without affine, whose statistics in training are those of all processes' batches together (on CPU and CUDA).

    Float[B,C,H,W] -> the same shape: equal to torch's BatchNorm2d over the union of the batches, in the features, their gradients and the
    running statistics; the batches may differ in length. All processes must pass it equally often. In eval mode and alone it *is*
    torch's. (torch.nn.SyncBatchNorm refuses the CPU.)
    """

    alone = False
    """Whether this process takes its own batch only, as where just the first one works."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or self.alone or world() == 1:
            return super().forward(features)
        normalised, mean, variance = normalised_over_processes(features, eps=self.eps)
        momentum = 0.1 if self.momentum is None else self.momentum
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance, momentum)
            self.num_batches_tracked.add_(1)
        return normalised


def normalised_over_processes(features: Tensor, *, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(var + eps) with the statistics of all processes' Float[B,C,H,W]; the mean and the unbiased variance, Float[C].

    Statistics are taken in fp32. Two sums and not one: E[x^2] - E[x]^2 loses all digits where the mean is far from zero.
    """
    wide = features.float()
    pixels = wide.new_full((1,), wide.numel() / wide.shape[1])
    own_variance, own_mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    together = sum_over_processes(torch.cat([pixels * own_mean, pixels]))
    mean, count = together[:-1] / together[-1], together[-1].detach()
    variance = sum_over_processes(pixels * (own_variance + (own_mean - mean).square())) / count
    normalised = (wide - mean.view(1, -1, 1, 1)) * torch.rsqrt(variance + eps).view(1, -1, 1, 1)
    return normalised.to(features.dtype), mean.detach(), variance.detach() * count / (count - 1)


def refresh_statistics(network: nn.Module, inputs: Iterable[tuple[Tensor, ...]]) -> int:
    """Estimate the batch norms' running statistics anew, as the plain mean over these inputs; returns how many there were.

    For averaged weights (EMA), whose statistics no training step has ever seen. Spectral-norm vectors are first
    brought up to date with the weights. Works in this process alone, without gradients, and leaves every mode as it was; what the
    buffers held is lost, so the live network's are to be kept by `frozen.keeping_buffers`.

    # Unlike the released code: a mean over all batches, where OASIS lets torch's momentum of 0.1 forget all but the last twenty or so.
    """
    settle(network)
    norms = [module for module in network.modules() if isinstance(module, SynchronisedBatchNorm)]
    modes = [(module, module.training) for module in network.modules()]
    momenta = [norm.momentum for norm in norms]
    passed = 0
    try:
        network.eval()
        for norm in norms:
            norm.train().reset_running_stats()
            norm.momentum, norm.alone = None, True
        with torch.no_grad():
            for each in inputs if norms else ():
                network(*each)
                passed += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.alone = momentum, False
        for module, training in modes:
            module.training = training
    if norms and not passed:
        raise ValueError("statistics cannot be estimated from no input at all")
    return passed


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0])
