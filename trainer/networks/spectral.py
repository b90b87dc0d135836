"""Spectral norm: convolutions that carry it, its vectors brought up to date with their weights, and a network in which it is worked in."""

import copy
from collections.abc import Iterator
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized

Network = TypeVar("Network", bound=nn.Module)
Layer = TypeVar("Layer", bound=nn.Conv2d | nn.Linear)


def xavier(layer: Layer) -> Layer:
    """The same layer, its weight Xavier-normal with gain 0.02 and its bias 0: the initialisation of SPADE, OASIS and USIS.

    Under spectral norm it is the weight before the division that is drawn; `settle` then brings the norm's vectors up to date.
    """
    drawn = cast(nn.ModuleDict, layer.parametrizations)["weight"].original if is_parametrized(layer, "weight") else layer.weight
    nn.init.xavier_normal_(cast(Tensor, drawn), gain=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def spectral(convolution: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, its bias 0 and its weight divided by its largest singular value (Miyato et al., Eq. 8).

    In train mode each forward pass moves the vectors u and v by one power iteration; in eval mode they stand still.

    # Unlike the released codes: the weight begins as torch's convolutions do. There `xavier` reaches the weights under the norm too, as it
    # does here where a method is asked for that (`redraw`). The division takes the scale out of the answers, but not out of the training:
    # a step of Adam, which has one length for all weights, turns a weight of gain 0.02 some thirty times as far.
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
