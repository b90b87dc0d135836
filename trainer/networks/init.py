"""Weight initialisation, and convolutions with spectral norm."""

from typing import Any, Literal, TypeVar, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from trainer.networks.frozen import in_fp32

Initialisation = Literal["torch", "xavier"]
"""torch: layers with spectral norm begin as torch's convolutions do. xavier: small, as in the released codes."""
Network = TypeVar("Network", bound=nn.Module)
Layer = TypeVar("Layer", bound=nn.Conv2d | nn.ConvTranspose2d | nn.Linear)


def initialise(choice: Initialisation, *networks: nn.Module) -> None:
    """Initialise fresh networks as the config asks; "torch" leaves them as they were built.

    "xavier" draws the weight of every convolution and linear layer, Xavier-normal with gain 0.02 (under spectral norm
    the weight before the division), and sets biases to 0, as OASIS, USIS, SPADE and BicycleGAN do. Raises ValueError.

    # Unlike the released codes: the vectors of spectral norm are updated here, not in the first training steps.
    """
    if choice not in get_args(Initialisation):
        raise ValueError(f"initialisation {choice!r}: give {' or '.join(get_args(Initialisation))}")
    if choice == "torch":
        return
    for network in networks:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                xavier(module)
        update_spectral_norm(network, iterations=15)  # as many as torch's spectral norm begins with


def xavier(layer: Layer) -> Layer:
    """Initialise a layer in place: weight Xavier-normal with gain 0.02, bias 0 (SPADE, OASIS, USIS)."""
    parametrized = is_parametrized(layer, "weight")
    weight = cast(nn.ModuleDict, layer.parametrizations)["weight"].original if parametrized else layer.weight
    nn.init.xavier_normal_(cast(Tensor, weight), gain=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight is divided by its largest singular value (Miyato et al., Eq. 8); its bias begins at 0.

    In train mode each forward pass moves the vectors u and v by one power iteration; in eval mode they stay. The
    division and the iteration are computed in fp32 under autocast.

    # Unlike the released codes: weights begin as torch's, unless the method asks for `initialise("xavier")`.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int, **options: Any) -> None:
        super().__init__(channels_in, channels_out, kernel_size, **options)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        parametrizations.spectral_norm(self)

    def forward(self, input: Tensor) -> Tensor:
        with in_fp32(input):
            weight = self.weight
        if self.padding_mode == "zeros":
            return conv2d(input, weight, self.bias, self.stride, self.padding)
        assert not isinstance(self.padding, str)
        rows, columns = self.padding
        padded = pad(input, (columns, columns, rows, rows), mode=self.padding_mode)
        return conv2d(padded, weight, self.bias, self.stride)


@torch.no_grad()
def update_spectral_norm(network: nn.Module, *, iterations: int = 10) -> None:
    """Update u and v of every spectral norm for weights that were put in place (EMA)."""
    for convolution in _spectral_convolutions(network):
        (norm,) = cast(nn.ModuleDict, convolution.parametrizations)["weight"].children()
        was = norm.training
        norm.train()
        for _ in range(iterations):
            _ = convolution.weight
        norm.train(was)


def fuse_spectral_norm(network: Network) -> Network:
    """Put the divided weights in place of the parametrised ones, in eval mode, for export; returns the network."""
    for convolution in _spectral_convolutions(network.eval()):
        remove_parametrizations(convolution, "weight")
    return network


def _spectral_convolutions(network: nn.Module) -> list[SpectralConv2d]:
    return [module for module in network.modules() if isinstance(module, SpectralConv2d)]
