"""TrainState: everything that a training step changes, and so everything that a checkpoint holds."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainer.batch import Batch
from trainer.distributed import any_process, gather, rank, world
from trainer.errors import UserError
from trainer.methods.base import Method, ParameterGroup
from trainer.networks.ema import EMA, in_place_of
from trainer.networks.frozen import keeping_buffers
from trainer.training.checkpointing import STATISTICS, RunDir, last_good


@dataclass
class TrainState:
    """A method with an optimiser and, where asked for, an EMA for each parameter group, and its position in the run."""

    method: Method
    groups: dict[str, ParameterGroup]
    optimisers: dict[str, torch.optim.Adam]
    averages: dict[str, EMA]
    step: int = 0
    elapsed: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    """Batch statistics estimated for the averaged weights of this step: buffers of the method, by name."""

    @classmethod
    def create(cls, method: Method) -> "TrainState":
        """The state at step 0."""
        groups = method.parameter_groups()
        names = {parameter: name for name, parameter in method.named_parameters()}
        optimisers = {
            name: torch.optim.Adam(group.parts(), lr=group.lr, betas=group.betas, fused=True)
            for name, group in groups.items()
        }
        averages = {
            name: EMA({names[parameter]: parameter for parameter in group.parameters()}, decay=group.ema)
            for name, group in groups.items()
            if group.ema is not None
        }
        return cls(method.train(), groups, optimisers, averages)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the averaged weights and their batch statistics stand in for the live ones."""
        buffers = dict(self.method.named_buffers())
        with self._averaged_weights(), in_place_of({name: buffers[name] for name in self.statistics}, self.statistics):
            yield

    def estimate_statistics(self, batches: Iterable[Batch]) -> None:
        """Estimate batch statistics for the averaged weights, which no training step has seen.

        It starts from the live buffers, so the result does not depend on how often it was done before.
        """
        with self._averaged_weights(), keeping_buffers(self.method):
            networks = self.method.estimate_statistics(batches)
            wanted = {id(buffer) for network in networks for buffer in network.buffers()}
            saved = self.method.state_dict(keep_vars=True)  # buffers that are not saved are no statistics
            self.statistics = {name: value.clone() for name, value in saved.items() if id(value) in wanted}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds. All processes must call; the first one's is complete."""
        parameters = {name: parameter.detach() for name, parameter in self.method.named_parameters()}
        own = {  # what differs between processes: pools and other buffers, and torch's random state
            "method": {name: value for name, value in self.method.state_dict().items() if name not in parameters},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }
        return {
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
            "method": parameters,
            "averaged": {name: average.state_dict() for name, average in self.averages.items()}
            | {STATISTICS: self.statistics},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "own": gather(own),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises UserError where another number of processes saved it."""
        if len(state["own"]) != world():
            raise UserError(f"this run was saved by {len(state['own'])} processes; resume with as many, not {world()}")
        self.step, self.elapsed, self.best = state["step"], state["elapsed"], state["best"]
        own = state["own"][rank()]
        self.method.load_state_dict(state["method"] | own["method"])
        for name, average in self.averages.items():
            average.load_state_dict(state["averaged"][name])
        self.statistics = dict(state["averaged"].get(STATISTICS, {}))
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
            for parameter, moments in optimiser.state.items():  # in its memory layout, as a fused optimiser takes them
                same = {key: value for key, value in moments.items() if value.shape == parameter.shape}
                moments |= {key: torch.empty_like(parameter).copy_(value) for key, value in same.items()}
        torch.set_rng_state(own["random"].cpu())
        if own["random_cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(own["random_cuda"].cpu())

    def not_finite(self) -> list[str]:
        """The names of the weights, live and averaged, that hold a value that is not finite."""
        weights: dict[str, Tensor] = dict(self.method.named_parameters())
        for name, average in self.averages.items():
            weights |= {f"{name} (averaged) {key}": value for key, value in average.state_dict().items()}
        finite = torch.stack([torch.isfinite(weight).all() for weight in weights.values()]).tolist()
        return [name for name, sound in zip(weights, finite, strict=True) if not sound]

    def _averaged_weights(self) -> AbstractContextManager[None]:
        """Inside, the averaged weights stand in for the live ones, which come back afterwards, bit for bit."""
        averaged = {name: value for ema in self.averages.values() for name, value in ema.state_dict().items()}
        live = dict(self.method.named_parameters())
        return in_place_of({name: live[name] for name in averaged}, averaged)


def refuse_not_finite(folder: RunDir, state: TrainState, losses: dict[str, Tensor], device: torch.device) -> None:
    """Raise UserError, on all processes, where a loss or a weight is not finite, so that none is saved."""
    bad = [f"the loss {name}" for name, loss in losses.items() if not torch.isfinite(loss)]
    bad = bad or [f"the weight {name}" for name in state.not_finite()]
    if any_process(bool(bad), device):
        raise UserError(
            f"{bad[0] if bad else 'a loss of another process'} is not finite at step {state.step}; "
            f"{last_good(folder)}. Go on from there with fewpair train --resume {folder.path}; where that ends the "
            "same way, start again with a lower --config.lr or with --precision fp32"
        )
