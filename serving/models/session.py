"""ONNX Runtime sessions on the requested device, and the reason where CUDA cannot be used."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime

from serving.errors import DeviceError, ModelError
from serving.models.manifest import Direction, StyleGraph, read_graph
from serving.settings import Device, Settings

logger = logging.getLogger("fewpair.serving")
CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_DRIVER = "libcuda.so.1"
_BATCH_ON_CUDA = 4
_CUDA_HINT = "Check the driver (nvidia-smi), and pip install '.[serve,cuda]' in a clone of the project."


def open_session(
    direction: Direction | StyleGraph, *, device: Device, threads: int, deterministic: bool
) -> onnxruntime.InferenceSession:
    """Open the session of a graph. Raises DeviceError where CUDA is required and cannot be used, else ModelError."""
    reason = "the CPU was chosen" if device == "cpu" else why_no_cuda()
    if device == "cuda" and reason is not None:
        hint = "Say --device auto to use the CPU where there is no CUDA."
        raise DeviceError(f"device cuda is required, but {reason}.", hint=hint)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Each session has its own threads; those of one that has just run would spin on the cores that the next one needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena holds no weights, so that all of it is given back after a run (`CancelToken`).
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.use_deterministic_compute = deterministic
    providers: list[Any] = [CPU]
    if reason is None:
        onnxruntime.preload_dlls(directory="")  # finds the CUDA wheels; the provider alone does not
        # An exhaustive search would time all algorithms for each new size of upload, and choose differently each time.
        providers.insert(0, (_CUDA, {"cudnn_conv_algo_search": "DEFAULT" if deterministic else "HEURISTIC"}))
    chosen = direction.int8 if reason is not None and direction.int8 and has_vnni() else direction
    graph = read_graph(chosen)
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=providers)
    except Exception as error:
        message = f"{chosen.file} cannot be loaded by onnxruntime: {first_line(error)}."
        raise ModelError(message, hint="Export it again.") from error
    if device != "cpu" and session.get_providers()[0] != _CUDA:
        why = reason or f"onnxruntime {onnxruntime.__version__} fell back to the CPU; its messages above say why"
        if device == "cuda":
            raise DeviceError(f"device cuda is required, but {why}.", hint=_CUDA_HINT)
        if _has_driver():  # without a driver CUDA was not expected
            _warn_once(f"the models run on the CPU although there is an NVIDIA driver: {why}. {_CUDA_HINT}")
    _check_names(direction, chosen.file, session)
    return session


def largest_batch(settings: Settings) -> int:
    """Return how many pictures a run may take; on the CPU a larger run only takes longer."""
    return settings.batch or (1 if settings.device == "cpu" or why_no_cuda() else _BATCH_ON_CUDA)


def why_no_cuda() -> str | None:
    """Return why CUDA cannot be used here, or None where it can be tried."""
    if _CUDA not in onnxruntime.get_available_providers():
        return "the installed onnxruntime is built for the CPU only; install onnxruntime-gpu instead of onnxruntime"
    return None if _has_driver() else f"there is no NVIDIA driver ({_DRIVER} cannot be loaded)"


@cache
def has_vnni() -> bool:
    """Return whether this CPU multiplies 8-bit numbers exactly; x86 CPUs without VNNI saturate."""
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _has_driver() -> bool:
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@cache
def _warn_once(message: str) -> None:
    """Log a warning that each graph of each model would repeat."""
    logger.warning("%s", message)


def _check_names(direction: Direction | StyleGraph, file: Path, session: onnxruntime.InferenceSession) -> None:
    promised, present = set(direction.input_names), {node.name for node in session.get_inputs()}
    if promised != present:
        message = f"{file} takes {sorted(present)}, its manifest promises {sorted(promised)}."
        raise ModelError(message, hint="Export it again.")
    absent = direction.output_names - {node.name for node in session.get_outputs()}
    if absent:
        raise ModelError(f"{file} has no output {', '.join(sorted(absent))}.", hint="Export it again.")
