"""Context managers around networks: frozen weights, kept buffers, and fp32 under autocast."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in eval mode and its parameters take no gradient; gradients to its *inputs* flow.

    Afterwards modes, `requires_grad` and all buffers (spectral norm, batch statistics) are what they were. The backward
    may come after the `with` (Eskandar et al., section 2.1).
    """
    modes = [(module, module.training) for module in network.modules()]
    required = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        with keeping_buffers(network):
            network.eval().requires_grad_(False)
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in required:
            parameter.requires_grad_(requires_grad)


def in_fp32(tensor: Tensor) -> AbstractContextManager[object]:
    """No autocast on the tensor's device: for last layers and gradient penalties, which need more than bf16's 8 bits.

    Tensors that enter must be brought to fp32 by the caller.
    """
    kind = tensor.device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


@contextmanager
def keeping_buffers(network: nn.Module) -> Iterator[None]:
    """Whatever is done to the network's buffers inside, afterwards they hold what they held before, bit for bit."""
    modules = [list(module.buffers(recurse=False)) for module in network.modules()]
    kept = [[(buffer, buffer.detach().clone(), buffer._version) for buffer in buffers] for buffers in modules]
    try:
        yield
    finally:
        with torch.no_grad():
            for module in kept:
                # Buffers that were not written to stay: a graph that waits for its backward may have saved them. A
                # module's are restored together: batch norm's counter raises its version, its statistics do not.
                if any(buffer._version != version for buffer, _, version in module):
                    for buffer, before, _ in module:
                        buffer.copy_(before)
