"""Spectral norm: convolutions that carry it, its vectors brought up to date with their weights, and a network in which it is worked in."""

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

Network = TypeVar("Network", bound=nn.Module)


def xavier(convolution: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, its weight Xavier-normal with gain 0.02 and its bias 0: the initialisation of SPADE, OASIS and USIS."""
    nn.init.xavier_normal_(convolution.weight, gain=0.02)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def spectral(convolution: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, initialised by `xavier` and then divided by its largest singular value (Miyato et al., Eq. 8).

    In train mode each forward pass moves the vectors u and v by one power iteration; in eval mode they stand still.
    """
    return parametrizations.spectral_norm(xavier(convolution))


@torch.no_grad()
def settle(network: nn.Module, *, iterations: int = 10) -> None:
    """Bring u and v of every spectral norm up to date with its weight, as they must be where weights were put in its place (EMA)."""
    for convolution in _carriers(network):
        norm = convolution.parametrizations.weight[0]  # type: ignore[index, union-attr]
        was = norm.training
        norm.train()
        for _ in range(iterations):
            _ = convolution.weight
        norm.train(was)


def folded(network: Network) -> Network:
    """A copy in eval mode whose spectral norms are worked into plain weights: what is exported. It answers as the network in eval does."""
    plain = copy.deepcopy(network).eval()
    for convolution in list(_carriers(plain)):
        remove_parametrizations(convolution, "weight", leave_parametrized=True)
    return plain


def _carriers(network: nn.Module) -> Iterator[nn.Module]:
    """The convolutions with a spectral norm. A method's other parametrisations, were there any, are not touched."""
    for module in network.modules():
        if is_parametrized(module, "weight") and hasattr(module.parametrizations.weight[0], "_power_method"):  # type: ignore[index, union-attr]
            yield module
