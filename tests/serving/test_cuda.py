"""CUDA that is required or missing: an error or a warning that says why, on machines without it."""

import importlib.metadata
import logging
import shutil
import sys
from pathlib import Path

import onnxruntime
import pytest

from serving.errors import DeviceError
from serving.models import session
from tests.serving.backends import model_of
from tests.serving.factory import write_model
from tests.serving.process import free_port, launch

HAS_GPU_WHEEL = any(distribution.name == "onnxruntime-gpu" for distribution in importlib.metadata.distributions())
DRIVER = "libcuda.so.1"


@pytest.fixture
def machine(monkeypatch):
    """Pretends that there is a driver or none, and that onnxruntime has CUDA but falls back to the CPU."""
    start = onnxruntime.InferenceSession

    def pretend(*, driver, providers=("CUDAExecutionProvider", "CPUExecutionProvider")):
        monkeypatch.setattr(session, "_has_driver", lambda: driver)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(providers))
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda directory: None)
        monkeypatch.setattr(
            onnxruntime,
            "InferenceSession",
            lambda graph, options, providers: start(graph, options, providers=["CPUExecutionProvider"]),
        )

    session._warn_once.cache_clear()
    yield pretend
    session._warn_once.cache_clear()


def test_cuda_that_is_demanded_and_cannot_be_there_is_refused_with_the_reason(tmp_path, machine):
    folder = write_model(tmp_path / "tiny", directions=("to_label",))
    machine(driver=False)
    with pytest.raises(DeviceError, match=r"cuda is required, but there is no NVIDIA driver"):
        model_of(folder, device="cuda")
    machine(driver=True, providers=("CPUExecutionProvider",))
    with pytest.raises(DeviceError, match=r"cuda is required, but .* built for the CPU only; install onnxruntime-gpu"):
        model_of(folder, device="cuda")


def test_a_driver_that_is_there_but_not_used_is_said_once_with_what_is_missing(tmp_path, machine, caplog):
    machine(driver=True)
    with caplog.at_level(logging.WARNING):
        for name in ("one", "two"):
            assert model_of(write_model(tmp_path / name), device="auto").provider == "CPUExecutionProvider"
    assert len(caplog.messages) == 1
    assert "fell back to the CPU; its messages above say why" in caplog.text
    assert "pip install '.[serve,cuda]' in a clone" in caplog.text
    with pytest.raises(DeviceError, match=r"fell back to the CPU.*serve,cuda"):
        model_of(tmp_path / "one", device="cuda")


@pytest.mark.parametrize(("device", "driver"), [("auto", False), ("cpu", True)])
def test_where_the_cpu_is_what_was_meant_nothing_is_said(tmp_path, machine, caplog, device, driver):
    machine(driver=driver)
    model_of(write_model(tmp_path / "tiny", directions=("to_label",)), device=device)
    assert not caplog.messages


@pytest.mark.skipif(not HAS_GPU_WHEEL or sys.platform != "linux", reason="needs Linux's loader and onnxruntime's CUDA")
@pytest.mark.skipif(session.why_no_cuda() is None, reason="this machine has a driver")
def test_a_driver_that_does_not_work_is_an_error_at_the_start_with_the_loaders_reason(models, tmp_path):
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libm." in line}
    shutil.copy(loaded.pop(), tmp_path / DRIVER)  # a library with the driver's name and nothing of the driver in it
    options = ("--models", str(models), "--device", "cuda", "--port", str(free_port()))
    ended = launch(tmp_path, *options, LD_LIBRARY_PATH=str(tmp_path))
    assert ended.returncode == 2
    assert "fell back to the CPU; its messages above say why" in ended.stderr.splitlines()[-1]
    said = ended.stdout + ended.stderr
    assert "undefined symbol" in said or "cannot open shared object file" in said, said
