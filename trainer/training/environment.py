"""What environment.json records of the machine that trains a run."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("fewpair", "torch", "torchvision", "numpy", "pillow", "onnx", "onnxruntime-gpu")


def environment() -> dict[str, Any]:
    """Where a run takes place: versions, machine and, where there is one, the commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": _commit(),
        "versions": {each.name: each.version for each in distributions() if each.name in PACKAGES},
        "command": sys.argv[1:],
    }


def _commit() -> str:
    """The commit of the project's checkout: not that of another repository in which the package is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return "unknown"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else ()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
