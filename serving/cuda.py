"""Why CUDA cannot be used although it was asked for: what the loader and the driver say, which onnxruntime tells its log alone."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import onnxruntime

_PROVIDER = ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")  # the second needs the first
_RUNTIME = "libcudart.so.13"


def why_the_provider_fails() -> str | None:
    """The loader's reason, or the driver's; None where neither knows one. For after a session fell back: it loads what the session did."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    return _loaders_reason([folder / library for library in _PROVIDER]) or _drivers_reason()


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
