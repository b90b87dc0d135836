"""Which arithmetic a part of a network insists on."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def in_fp32(tensor: Tensor) -> AbstractContextManager[object]:
    """A region without autocast on the tensor's device; what enters it has to be brought to fp32 by hand. Nothing where none is on.

    For last layers of discriminators and for gradient penalties, which eight bits of mantissa serve badly (methods.md E.7).
    """
    kind = tensor.device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
