"""Normalisation layers."""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, instance_norm


class InstanceNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) over each sample's and channel's pixels; no affine, no running statistics.

    A sample's result does not depend on its batch mates, in training as in use; `eval()` changes nothing. Under bf16 autocast torch
    accumulates the statistics in fp32. Needs more than one pixel.
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        return instance_norm(features, eps=self.eps)


class BatchNorm(nn.Module):
    """Batch norm with scale and shift that never uses running statistics: pix2pix has those of the batch at test time too.

    In training the statistics are the batch's. After `eval()` they are each picture's own, which is what pix2pix computes with its test
    batches of one; so an answer does not depend on its batch mates, and running averages of the weights need no statistics that fit them.
    With training batches of one, training and use are the same function. Needs more than one value a channel.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            return batch_norm(features, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return instance_norm(features, weight=self.weight, bias=self.bias, eps=self.eps)
