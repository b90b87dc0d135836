"""Normalisation layers, and batch-norm statistics for averaged weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, instance_norm
from torch.optim.swa_utils import update_bn

from trainer.networks.encoders import Encoder
from trainer.networks.init import update_spectral_norm


class BatchNorm(nn.Module):
    """Batch norm with scale and shift and without running statistics, as in pix2pix.

    In train mode the statistics are the batch's, in eval mode each picture's own, as in pix2pix's test batches of one.
    So samples do not influence one another in eval mode, and averaged weights need no statistics.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            return batch_norm(features, None, None, self.weight, self.bias, training=True)
        return instance_norm(features, weight=self.weight, bias=self.bias)


def estimate_statistics(network: nn.Module, inputs: Iterable[tuple[Tensor, ...]]) -> None:
    """Estimate the running statistics of every batch norm, as the mean over these inputs, for averaged weights.

    Vectors of spectral norm are updated first. The previous buffers are lost: keep them with `frozen.keeping_buffers`.

    # Unlike the released code: a mean over all batches, where OASIS's momentum of 0.1 forgets most of them.
    """
    update_spectral_norm(network)
    with network.register_forward_pre_hook(lambda _, given: given[0]["inputs"]):  # update_bn passes one input alone
        update_bn(({"inputs": each} for each in inputs), network)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Synchronise the batch norms of a network's children between processes, but for those with a pretrained encoder.

    An encoder's norms keep their statistics, and timm's hold the activations too.
    """
    for name, child in network.named_children():
        if not any(isinstance(module, Encoder) for module in child.modules()):
            setattr(network, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
