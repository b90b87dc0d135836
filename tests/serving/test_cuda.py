"""CUDA or TensorRT that was demanded and is not there: the server does not start, and says the loader's or the driver's reason."""

import importlib.metadata
import importlib.util
import shutil
import sys
from pathlib import Path

import onnxruntime
import pytest

from serving import session
from serving.cuda import _drivers_reason, _loaders_reason, why_no_tensorrt
from serving.errors import DeviceError, ServingError
from serving.session import why_no_cuda
from serving.settings import Settings
from serving.translator import load_model
from tests.serving.factory import write_model
from tests.serving.process import free_port, launch

HAS_GPU_WHEEL = any(distribution.name == "onnxruntime-gpu" for distribution in importlib.metadata.distributions())
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="speaks of Linux's loader"),
    pytest.mark.skipif(why_no_cuda() is None, reason="this machine has a driver"),
]


def put_a_driver(folder):
    """A library by the driver's name, with nothing of the driver in it."""
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libm." in line}
    shutil.copy(loaded.pop(), folder / "libcuda.so.1")


@pytest.mark.skipif(not HAS_GPU_WHEEL, reason="onnxruntime here is built for the CPU only")
def test_a_driver_that_is_of_no_use_is_an_error_at_the_start_with_the_loaders_reason(models, tmp_path):
    put_a_driver(tmp_path)
    ended = launch(tmp_path, "--models", str(models), "--device", "cuda", "--port", str(free_port()), LD_LIBRARY_PATH=str(tmp_path))
    assert ended.returncode == 2
    said = ended.stderr.splitlines()[-2]
    assert said.startswith("device cuda was demanded, but onnxruntime")
    assert "fell back to CPUExecutionProvider because " in said
    assert any(reason in said for reason in ("undefined symbol", "cannot be loaded", "cannot open shared object file"))
    assert "/" not in said.partition("because")[2]


def test_the_loaders_reason_names_the_library_without_the_folder(tmp_path):
    (tmp_path / "libnothing.so").write_text("no library")
    assert _loaders_reason([tmp_path / "libnothing.so"]) == "libnothing.so: file too short"


def test_a_runtime_that_is_absent_is_the_reason():
    assert "libnowhere.so.9" in str(_drivers_reason("libnowhere.so.9"))


def refused(models, tmp_path, **variables):
    ended = launch(tmp_path, "--models", str(models), "--device", "tensorrt", "--port", str(free_port()), **variables)
    assert ended.returncode == 2
    sentence, hint = ended.stderr.splitlines()[-2:]
    assert "say --device cuda or auto" in hint
    return sentence


def test_tensorrt_without_a_driver_is_an_error_at_the_start(models, tmp_path):
    assert refused(models, tmp_path).startswith("device tensorrt was demanded, but ")


@pytest.mark.skipif(not HAS_GPU_WHEEL or importlib.util.find_spec("tensorrt_libs"), reason="speaks of TensorRT's absence alone")
def test_tensorrt_without_its_library_is_an_error_at_the_start_with_the_loaders_reason(models, tmp_path):
    put_a_driver(tmp_path)
    said = refused(models, tmp_path, LD_LIBRARY_PATH=str(tmp_path))
    assert said.startswith("device tensorrt was demanded, but TensorRT 10 cannot be loaded (libnvinfer.so.10: cannot open shared object")


def test_tensorrt_of_a_build_without_it_is_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert why_no_tensorrt() == "the installed onnxruntime is built without TensorRT; install onnxruntime-gpu"


def test_tensorrt_is_loaded_from_its_wheel_where_that_is_installed(tmp_path, monkeypatch):
    (tmp_path / "tensorrt_libs").mkdir()
    (tmp_path / "tensorrt_libs" / "libnvinfer.so.10").write_text("no library")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider"])
    assert why_no_tensorrt() == "TensorRT 10 cannot be loaded (libnvinfer.so.10: file too short)"


def test_a_session_with_tensorrt_has_cuda_behind_it_and_one_that_falls_back_to_cuda_is_refused(tmp_path, monkeypatch):
    given = []

    class FallenBack(onnxruntime.InferenceSession):
        def __init__(self, graph, options, providers):
            given.extend(one if isinstance(one, str) else one[0] for one in providers)
            super().__init__(graph, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    for name in ("why_no_cuda", "why_no_tensorrt"):
        monkeypatch.setattr(session, name, lambda: None)
    monkeypatch.setattr(session, "_loads", lambda library: True)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda directory: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    with pytest.raises(DeviceError, match=r"device tensorrt was demanded, but onnxruntime .* fell back to CUDAExecutionProvider"):
        load_model(write_model(tmp_path / "tiny"), device="tensorrt", threads=1)
    assert given == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def test_tensorrt_and_deterministic_do_not_go_together():
    with pytest.raises(ServingError, match="device tensorrt and deterministic do not go together"):
        Settings.from_environment({"FEWPAIR_DEVICE": "tensorrt", "FEWPAIR_DETERMINISTIC": "on"})
