"""Everything that a training step changes, so everything that a checkpoint holds."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainer.average import Average, in_place_of
from trainer.batch import Batch
from trainer.errors import UserError
from trainer.methods.base import Method, Player
from trainer.networks.frozen import keeping_buffers
from trainer.processes import Processes

ESTIMATES = "estimates"
"""The name of a checkpoint's batch statistics among its averages; they are read with the averaged weights."""


@dataclass
class Trainee:
    """A method with its players' optimisers and averages, and where in its run it is."""

    method: Method
    players: dict[str, Player]
    optimisers: dict[str, torch.optim.Adam]
    averages: dict[str, Average]
    step: int = 0
    elapsed: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    estimates: dict[str, Tensor] = field(default_factory=dict)
    """What `refresh` estimated for the averaged weights: buffers of the method, by name."""

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights, and the estimates that belong to them, in the place of the live ones, which come back afterwards."""
        buffers = dict(self.method.named_buffers())
        with self._averaged_weights(), in_place_of({name: buffers[name] for name in self.estimates}, self.estimates):
            yield

    def refresh(self, batches: Iterable[Batch]) -> None:
        """Estimate batch statistics for the averaged weights, which no training step has seen; for methods that have such.

        It begins at the live buffers and not at the last estimates, so it is the same however often it was done before.
        """
        with self._averaged_weights(), keeping_buffers(self.method):
            networks = self.method.refresh(batches)
            wanted = {id(buffer) for network in networks for buffer in network.buffers()}
            self.estimates = {name: buffer.clone() for name, buffer in self.method.named_buffers() if id(buffer) in wanted}

    def not_finite(self) -> list[str]:
        """The names of the weights, live and averaged, that hold a value that is not finite."""
        weights: dict[str, torch.Tensor] = dict(self.method.named_parameters())
        for name, average in self.averages.items():
            weights |= {f"{name} (averaged) {key}": value for key, value in average.state_dict().items()}
        finite = torch.stack([torch.isfinite(weight).all() for weight in weights.values()]).tolist()
        return [name for name, sound in zip(weights, finite, strict=True) if not sound]

    def state(self, processes: Processes) -> dict[str, Any] | None:
        """What a checkpoint holds: tensors and plain values only. Nothing on any process but the first; all must call."""
        own = processes.gather(self._own_state())
        if not processes.first:
            return None
        return {
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
            "method": {name: parameter.detach() for name, parameter in self.method.named_parameters()},
            "averaged": {name: average.state_dict() for name, average in self.averages.items()} | {ESTIMATES: self.estimates},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "own": list(own),
        }

    def load(self, state: dict[str, Any], processes: Processes) -> None:
        """Go back to where a checkpoint was saved. Raises UserError where that was another number of processes."""
        if len(state["own"]) != processes.world:
            raise UserError(f"this run was saved by {len(state['own'])} processes; resume it with as many, not {processes.world}")
        self.step, self.elapsed, self.best = state["step"], state["elapsed"], state["best"]
        own = state["own"][processes.rank]
        self.method.load_state_dict(state["method"] | own["method"])
        for name, average in self.averages.items():
            average.load_state_dict(state["averaged"][name])
        self.estimates = dict(state["averaged"].get(ESTIMATES, {}))
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        torch.set_rng_state(own["random"].cpu())
        if own["random_cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(own["random_cuda"].cpu())

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        with ExitStack() as swapped:
            for average in self.averages.values():
                swapped.enter_context(average.in_place())
            yield

    def _own_state(self) -> dict[str, Any]:
        """What differs between processes: pools and other buffers, and torch's random numbers."""
        shared = {name for name, _ in self.method.named_parameters()}
        return {
            "method": {name: value for name, value in self.method.state_dict().items() if name not in shared},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }
