"""One graph of an exported folder as an onnxruntime session on the device that was asked for, or the reason why not."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from typing import Any

import onnxruntime

from serving.cuda import TENSORRT, why_no_tensorrt, why_the_provider_fails
from serving.errors import DeviceError, ModelError
from serving.manifest import Direction, read_graph
from serving.settings import Device, Settings

logger = logging.getLogger("fewpair.serving")
CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_DRIVER = "libcuda.so.1"
_CUDA_LIBRARIES = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcufft.so.12", "libcurand.so.10", "libcudnn.so.9")
_DEMANDED = {"cuda": _CUDA, "tensorrt": TENSORRT}
_INSTEAD = {
    "cuda": "Say --device auto to use the CPU where there is no CUDA.",
    "tensorrt": "Install TensorRT 10 for CUDA 13 beside the driver, or say --device cuda or auto.",
}
_SHARED = 4  # pictures a run on a GPU, where nothing else was said; what is best there is not shown
_CUDA_REMEDY = "Check the driver (nvidia-smi), and pip install '.[serve,cuda]' in a clone of the project."


def open_session(direction: Direction, *, device: Device, threads: int, deterministic: bool) -> onnxruntime.InferenceSession:
    """The session of a graph. DeviceError where a demanded device cannot be had, ModelError where the graph is not what is promised."""
    reason = "the CPU was asked for" if device == "cpu" else why_no_cuda() or (why_no_tensorrt() if device == "tensorrt" else None)
    if device in _DEMANDED and reason is not None:
        raise DeviceError(f"device {device} was demanded, but {reason}.", hint=_INSTEAD[device])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Every session has threads of its own, and those of one that has just run would spin on the cores that the next one needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # it would keep what the largest run ever took; without it a run takes about one per cent longer
    options.use_deterministic_compute = deterministic
    providers: list[Any] = [CPU]
    if reason is None:
        onnxruntime.preload_dlls(directory="")  # without it the provider does not find the CUDA wheels, and falls back in silence
        # cuDNN's exhaustive search would time every algorithm anew for every upload of a new size, and choose as the clock says.
        providers.insert(0, (_CUDA, {"cudnn_conv_algo_search": "DEFAULT" if deterministic else "HEURISTIC"}))
    if device == "tensorrt":
        providers.insert(0, TENSORRT)  # what it cannot run goes to CUDA
    graph = read_graph(direction)
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=providers)
    except Exception as error:
        raise ModelError(f"{direction.file} cannot be loaded by onnxruntime: {first_line(error)}.", hint="Export it again.") from error
    if device != "cpu" and session.get_providers()[0] != _DEMANDED.get(device, _CUDA):
        why = reason or _why_it_fell_back(session.get_providers()[0], tensorrt=device == "tensorrt")
        if device in _DEMANDED:
            raise DeviceError(f"device {device} was demanded, but {why}.", hint=_CUDA_REMEDY)
        if _loads(_DRIVER):  # a machine without a driver was never meant to use CUDA
            _warn_once(f"the models run on the CPU although there is an NVIDIA driver: {why}. {_CUDA_REMEDY}")
    _check_names(direction, session)
    return session


def pictures_a_run(settings: Settings) -> int:
    """How many pictures share a run: as many as was said; otherwise one on the CPU, where a longer run is only a longer wait."""
    return settings.batch or (1 if settings.device == "cpu" or why_no_cuda() else _SHARED)


def why_no_cuda() -> str | None:
    """The reason why CUDA cannot be used here, or None where nothing speaks against trying."""
    if _CUDA not in onnxruntime.get_available_providers():
        return "the installed onnxruntime is built for the CPU only; install onnxruntime-gpu instead of onnxruntime"
    if not _loads(_DRIVER):
        return f"there is no NVIDIA driver ({_DRIVER} cannot be loaded)"
    return None


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _why_it_fell_back(provider: str, *, tensorrt: bool) -> str:
    missing = [library for library in _CUDA_LIBRARIES if not _loads(library)]
    why = f"{', '.join(missing)} cannot be loaded" if missing else why_the_provider_fails(tensorrt=tensorrt)
    return f"onnxruntime {onnxruntime.__version__} fell back to {provider}{f' because {why}' if why else ''}"


@cache
def _warn_once(sentence: str) -> None:
    """Two graphs a model and many models on a shelf would all say the same."""
    logger.warning("%s", sentence)


def _check_names(direction: Direction, session: onnxruntime.InferenceSession) -> None:
    promised = {direction.input.name} | ({direction.noise.name} if direction.noise else set())
    present = {node.name for node in session.get_inputs()}
    if promised != present:
        raise ModelError(f"{direction.file} takes {sorted(present)}, its manifest promises {sorted(promised)}.", hint="Export it again.")
    absent = {output.name for output in direction.outputs} - {node.name for node in session.get_outputs()}
    if absent:
        raise ModelError(f"{direction.file} has no output {', '.join(sorted(absent))}.", hint="Export it again.")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
