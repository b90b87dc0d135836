"""onnxruntime sessions for feature extractors, judges and parity."""

import onnxruntime
import torch

from trainer.errors import UserError

CUDA = "CUDAExecutionProvider"


def open_session(model: bytes, device: torch.device | str = "cpu") -> onnxruntime.InferenceSession:
    """Open a model on the device. Raises UserError where that is CUDA and onnxruntime cannot use it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    device = torch.device(device)
    if device.type != "cuda":
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if CUDA in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls(directory="")  # CUDA libraries of installed packages
        providers = [(CUDA, {"device_id": device.index or 0})]
        session = onnxruntime.InferenceSession(model, options, providers=providers)
        if session.get_providers()[0] == CUDA:
            return session
    raise UserError(f"--device {device}: onnxruntime cannot use CUDA here; use --device cpu, or install fewpair[cuda]")
