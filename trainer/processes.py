"""Several processes that train one run together, started by torchrun: who is who, and what they share."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """This process's rank among `world`. Alone (world 1) everything here does nothing."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that evaluates, logs and saves."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every gradient becomes its mean over the processes. A missing one counts as zero, so that no process waits for another."""
        if self.world == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        together /= self.world
        for gradient, mean in zip(gradients, together.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Scalars as their mean over the processes."""
        if not values:
            return {}
        stacked = torch.stack([value.float() for value in values.values()])
        if self.world > 1:
            dist.all_reduce(stacked)
            stacked /= self.world
        return dict(zip(values, stacked.tolist(), strict=True))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any process raises this flag; all must ask."""
        if self.world == 1:
            return flag
        raised = torch.tensor(float(flag), device=device)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised)

    def gather(self, value: Any) -> Sequence[Any]:
        """On the first process the values of all by rank, elsewhere nothing; all must call."""
        if self.world == 1:
            return [value]
        values: list[Any] | None = [None] * self.world if self.first else None
        dist.gather_object(value, values)
        return values or []

    def wait(self) -> None:
        """Until all have come here."""
        if self.world > 1:
            dist.barrier()


ALONE = Processes()
"""The one process of a run that was not started by torchrun."""


def join(device: torch.device) -> tuple[Processes, torch.device]:
    """Take this process's place among those that torchrun started, and its own device; alone where it was not."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return ALONE, device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size()), device
