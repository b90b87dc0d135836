"""Spectral norm: convolutions that carry it, its vectors brought up to date with their weights, and a network in which it is worked in."""

import copy
from collections.abc import Iterator
from typing import TypeVar, cast

import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized

Network = TypeVar("Network", bound=nn.Module)


def xavier(convolution: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, its weight Xavier-normal with gain 0.02 and its bias 0: the initialisation of SPADE, OASIS and USIS."""
    nn.init.xavier_normal_(convolution.weight, gain=0.02)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def spectral(convolution: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, its bias 0 and its weight divided by its largest singular value (Miyato et al., Eq. 8).

    In train mode each forward pass moves the vectors u and v by one power iteration; in eval mode they stand still.

    # Unlike the released codes: the weight begins as torch's convolutions do, and not by `xavier`, which there reaches the weights under
    # the norm too. The division takes the scale out of the answers, but a step of Adam would at first be as long as such a weight: u and v
    # cannot follow it, and in a run of hundreds of steps that start is not forgotten.
    """
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    parametrizations.spectral_norm(convolution)
    return convolution


@torch.no_grad()
def settle(network: nn.Module, *, iterations: int = 10) -> None:
    """Bring u and v of every spectral norm up to date with its weight, as they must be where weights were put in its place (EMA)."""
    for convolution, norm in _carriers(network):
        was = norm.training
        norm.train()
        for _ in range(iterations):
            _ = convolution.weight
        norm.train(was)


def folded(network: Network) -> Network:
    """A copy in eval mode whose spectral norms are worked into plain weights: what is exported. It answers as the network in eval does."""
    plain = copy.deepcopy(network).eval()
    for convolution, _ in list(_carriers(plain)):
        parents = [(module, name) for module in plain.modules() for name, child in module.named_children() if child is convolution]
        for parent, name in parents:
            setattr(parent, name, _plain(convolution))
    return plain


@torch.no_grad()
def _plain(convolution: nn.Conv2d) -> nn.Conv2d:
    """A convolution anew with the divided weight. (torch's `remove_parametrizations` would spoil the class that copies share.)"""
    kernel = cast(tuple[int, int], convolution.kernel_size)
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        kernel,
        stride=cast(tuple[int, int], convolution.stride),
        padding=cast(tuple[int, int], convolution.padding),
        bias=convolution.bias is not None,
        device=convolution.weight.device,
    ).eval()
    plain.weight.copy_(convolution.weight)
    if convolution.bias is not None and plain.bias is not None:
        plain.bias.copy_(convolution.bias)
    return plain


def _carriers(network: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.Module]]:
    """The convolutions with a spectral norm, and their norm."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and is_parametrized(module, "weight"):
            (norm,) = cast(nn.ModuleDict, module.parametrizations)["weight"].children()
            if isinstance(norm, _SpectralNorm):
                yield module, norm
