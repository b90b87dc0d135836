"""What the machine can do: which device, whether it computes in bf16, how much memory was used."""

import resource
from typing import Literal

import torch

from trainer.errors import UserError


def device_named(name: str) -> torch.device:
    """auto, cpu, cuda or cuda:N as a device. `cuda` without CUDA is an error, never a silent fall to the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is not a device; say auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        build = f"torch {torch.__version__}, built {'for CUDA ' + torch.version.cuda if torch.version.cuda else 'without CUDA'}"
        raise UserError(f"--device {name}: no CUDA device is found here ({build}); use --device cpu, or install the driver")
    return device


def moves_in_bf16(device: torch.device, precision: Literal["auto", "bf16", "fp32"]) -> bool:
    """Whether training runs under bf16 autocast: where asked for, or where the hardware computes in bf16."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def memory_peak(device: torch.device) -> int:
    """MiB: the peak of the device's allocator on CUDA, of the process on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) >> 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
