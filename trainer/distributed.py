"""The processes that torchrun started to train one run together; in a single process these functions do nothing."""

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def join(device: torch.device) -> torch.device:
    """Join the processes that torchrun started, if it did, and return this one's device."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        if device.index is not None:
            torch.cuda.set_device(device)  # whose random state a checkpoint holds
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def world() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process among them. The first, 0, evaluates, logs and saves."""
    return dist.get_rank() if world() > 1 else 0


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes; a missing one counts as zero.

    One that is missing on all stays so: Adam would count a step of zero.
    """
    if world() == 1:
        return
    moving = list(parameters)
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in moving]
    flags = torch.tensor([each.grad is not None for each in moving]).to(gradients[0])
    *means, counts = (sum_over_processes(torch.cat([*map(torch.flatten, gradients), flags])) / world()).split(
        [*(each.numel() for each in moving), len(moving)]
    )
    for parameter, mean, count in zip(moving, means, counts.tolist(), strict=True):
        # In the parameter's memory layout: a fused optimiser takes both as they lie in memory.
        parameter.grad = torch.empty_like(parameter).copy_(mean.view_as(parameter)) if count else None


def sum_over_processes(values: Tensor) -> Tensor:
    """Return the sum of every process's tensor, without a gradient. All processes must call."""
    if world() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on any process. All must call."""
    return bool(sum_over_processes(torch.tensor(float(flag), device=device)))


def gather(value: Any) -> list[Any]:
    """Return the values of all processes by rank, on the first process; elsewhere an empty list. All must call."""
    if world() == 1:
        return [value]
    values: list[Any] | None = [None] * world() if rank() == 0 else None
    dist.gather_object(value, values)
    return values or []


def wait() -> None:
    """Wait until all processes have called this."""
    if world() > 1:
        dist.barrier()
