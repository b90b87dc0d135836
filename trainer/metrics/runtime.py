"""Where onnxruntime runs what judges photos: on the evaluation's own device, or on the CPU, which is then said."""

import sys
from typing import Any

import torch

CUDA = "CUDAExecutionProvider"


def open_session(content: bytes, device: torch.device, *, what: str) -> Any:
    """A session over an ONNX file's bytes, on `device` where onnxruntime can; where it cannot, on the CPU, with a line on stderr."""
    import onnxruntime  # which training does without

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    providers: list[object] = ["CPUExecutionProvider"]
    built_for_cuda = CUDA in onnxruntime.get_available_providers()
    if device.type == "cuda" and built_for_cuda:
        preload_cuda()
        providers.insert(0, (CUDA, {"device_id": device.index or 0}))
    session = onnxruntime.InferenceSession(content, options, providers=providers)
    if device.type == "cuda" and session.get_providers()[0] != CUDA:
        why = "could not start it" if built_for_cuda else "is built without it"
        print(
            f"{what} runs on the CPU, not on {device}: onnxruntime {onnxruntime.__version__} {why}; for CUDA: "
            "pip install '.[cuda]' in a clone of the project",
            file=sys.stderr,
        )
    return session


def preload_cuda() -> None:
    """Let onnxruntime find the CUDA libraries of installed packages: without it the provider falls back to the CPU."""
    import onnxruntime

    if CUDA in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls(directory="")
