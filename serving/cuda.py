"""Why CUDA or TensorRT cannot be used although it was asked for: what loader and driver say, which onnxruntime tells its log alone."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import onnxruntime

_PROVIDER = ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")  # the second needs the first
TENSORRT = "TensorrtExecutionProvider"
_TENSORRT_PROVIDER = ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_tensorrt.so")
_TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10")  # the second needs the first
_RUNTIME = "libcudart.so.13"


def why_no_tensorrt() -> str | None:
    """The reason why TensorRT cannot be used where CUDA can, or None where nothing speaks against trying.

    Loads its libraries, from their wheel where that is installed: onnxruntime looks for them on the loader's path alone.
    """
    if TENSORRT not in onnxruntime.get_available_providers():
        return "the installed onnxruntime is built without TensorRT; install onnxruntime-gpu"
    reason = _loaders_reason([_in_wheel(library) for library in _TENSORRT_LIBRARIES])
    return reason and f"TensorRT 10 cannot be loaded ({reason})"


def why_the_provider_fails(*, tensorrt: bool = False) -> str | None:
    """The loader's reason, or the driver's; None where neither knows one. For after a session fell back: it loads what the session did."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    return _loaders_reason([folder / library for library in (_TENSORRT_PROVIDER if tensorrt else _PROVIDER)]) or _drivers_reason()


def _in_wheel(library: str) -> Path:
    """The library of the wheel, or its bare name."""
    wheel = importlib.util.find_spec("tensorrt_libs")
    folders = [] if wheel is None else wheel.submodule_search_locations or []
    return next((path for folder in folders if (path := Path(folder) / library).is_file()), Path(library))


def _loaders_reason(libraries: Sequence[Path]) -> str | None:
    """Why one of these cannot be loaded, without the paths of this machine."""
    for library in libraries:
        try:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            return str(error).replace(f"{library.parent}/", "")
    return None


def _drivers_reason(library: str = _RUNTIME) -> str | None:
    """What the CUDA runtime says when it is asked for devices, with the versions of both sides."""
    try:
        runtime = ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    count, driver, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failure = runtime.cudaGetDeviceCount(ctypes.byref(count))
    if not failure and count.value:
        return None
    runtime.cudaDriverGetVersion(ctypes.byref(driver))
    runtime.cudaRuntimeGetVersion(ctypes.byref(version))
    runtime.cudaGetErrorString.restype = ctypes.c_char_p
    said = runtime.cudaGetErrorString(failure).decode() if failure else "there is no device"
    return f"{said} (the driver speaks CUDA {_spelled(driver.value)}, the runtime CUDA {_spelled(version.value)})"


def _spelled(version: int) -> str:
    """13000 as 13.0; a driver that is not there speaks 0."""
    return f"{version // 1000}.{version % 1000 // 10}" if version else "not at all"
