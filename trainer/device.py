"""What the machine can do: which device, whether it computes in bf16, how much memory was used."""

import re
import resource
from typing import Literal

import torch

from trainer.errors import UserError


def device_named(name: str) -> torch.device:
    """auto, cpu, cuda or cuda:N as a device. `cuda` without CUDA is an error, never a silent fall to the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"--device {name} is not a device; say auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: torch {torch.__version__} finds no such CUDA device; use --device cpu, or install the "
            "driver"
        )
    return device


def resolve_precision(precision: Literal["auto", "bf16", "fp32"], device: torch.device) -> Literal["bf16", "fp32"]:
    """Return the arithmetic of training: what was asked for, or for "auto" bf16 where the hardware computes in it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        supported = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bf16" if supported else "fp32"


def memory_peak(device: torch.device) -> int:
    """MiB: the peak of the device's allocator on CUDA, of the process on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) >> 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
