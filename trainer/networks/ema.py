"""Exponential moving averages of weights: of a parameter group, to evaluate and export; of a network, as a teacher."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def in_place_of(live: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the tensors of `live` hold `values`; afterwards what they held before, bit for bit."""
    with torch.no_grad():
        kept = {name: tensor.detach().clone() for name, tensor in live.items()}
        for name, tensor in live.items():
            tensor.copy_(values[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in live.items():
                tensor.copy_(kept[name])


class EMA:
    """averaged <- d averaged + (1 - d) weights, with d = min(decay, (1 + t) / (10 + t)) for short runs.

    The average is kept in fp32 beside the parameters it follows, under their names in the method's state dict.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], *, decay: float) -> None:
        self._decay = decay
        self._live = parameters
        self._averaged = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def update(self, t: int) -> None:
        """Update the average after step t (counted from 0)."""
        _follow(self._averaged, self._live, decay=self._decay, t=t)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return dict(self._averaged)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what `state_dict` returned."""
        for name, averaged in self._averaged.items():
            averaged.copy_(state[name])


class Teacher(nn.Module):
    """A copy of a network that follows its weights as `EMA` does, used while the network learns (mean teacher).

    Tarvainen and Valpola 2017, section 2. Its weights are buffers: part of the state, and no optimiser moves them.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self._decay = decay
        for module in self.network.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach().clone())

    def follow(self, network: nn.Module, t: int) -> None:
        """Follow the network's weights after step t (counted from 0)."""
        _follow(dict(self.network.named_buffers()), dict(network.named_parameters()), decay=self._decay, t=t)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network(*inputs)


def _follow(averaged: Mapping[str, Tensor], live: Mapping[str, Tensor], *, decay: float, t: int) -> None:
    """Update the averages of `live` in place after step t."""
    weight = 1 - min(decay, (1 + t) / (10 + t))
    torch._foreach_lerp_([averaged[name] for name in live], [each.detach() for each in live.values()], weight)
