"""CUDA that was demanded and is not there: the server does not start, and its sentence holds the loader's or the driver's reason."""

import importlib.metadata
import shutil
import sys
from pathlib import Path

import pytest

from serving.cuda import _drivers_reason, _loaders_reason
from serving.translator import why_no_cuda
from tests.serving.process import free_port, launch

HAS_GPU_WHEEL = any(distribution.name == "onnxruntime-gpu" for distribution in importlib.metadata.distributions())
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="speaks of Linux's loader"),
    pytest.mark.skipif(why_no_cuda() is None, reason="this machine has a driver"),
]


@pytest.mark.skipif(not HAS_GPU_WHEEL, reason="onnxruntime here is built for the CPU only")
def test_a_driver_that_is_of_no_use_is_an_error_at_the_start_with_the_loaders_reason(models, tmp_path):
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libm." in line}
    shutil.copy(loaded.pop(), tmp_path / "libcuda.so.1")  # a library by the driver's name, with nothing of the driver in it
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
