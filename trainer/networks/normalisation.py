"""Normalisation layers."""

from torch import Tensor, nn
from torch.nn.functional import instance_norm


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
