"""What the metrics say of devices' memory, with a driver that says what it is told to."""

from __future__ import annotations

import math
import types

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from serving.metrics import DeviceMemory, Metrics

GIB = 2**30


class Driver:
    """Two devices, of which each may begin to fail."""

    def __init__(self):
        self.used = [3 * GIB, GIB]
        self.failing = set()

    def memory(self, device):
        if device in self.failing:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return types.SimpleNamespace(used=self.used[device], total=80 * GIB, free=80 * GIB - self.used[device])


@pytest.fixture
def driver(monkeypatch):
    driver = Driver()
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(driver.used))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", driver.memory)
    return driver


def told(text):
    return {
        line.split(" ")[0].removeprefix("fewpair_device_memory_"): float(line.split(" ")[1])
        for line in text.decode().splitlines()
        if line.startswith("fewpair_device_memory_")
    }


def test_each_device_s_memory_is_asked_for_anew_at_each_look(driver):
    metrics = Metrics(devices=True)
    assert told(metrics.render()) == {
        'used_bytes{device="0"}': 3 * GIB,
        'total_bytes{device="0"}': 80 * GIB,
        'used_bytes{device="1"}': GIB,
        'total_bytes{device="1"}': 80 * GIB,
    }
    driver.used[1] = 5 * GIB
    assert told(metrics.render())['used_bytes{device="1"}'] == 5 * GIB


def test_a_server_on_the_cpu_asks_no_driver(monkeypatch):
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: pytest.fail("the driver was asked"))
    assert told(Metrics().render()) == {}


@pytest.mark.parametrize(
    "error",
    [pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED), pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), OSError("libnvml")],
)
def test_without_a_driver_nothing_is_reported_and_the_rest_is(monkeypatch, error):
    def fails():
        raise error

    monkeypatch.setattr(pynvml, "nvmlInit", fails)
    text = Metrics(devices=True).render()
    assert told(text) == {}
    assert b"fewpair_requests_inside" in text


def test_a_device_that_begins_to_fail_has_no_number_until_it_answers_again_and_the_others_have_theirs(driver, caplog):
    registry = CollectorRegistry()
    devices = DeviceMemory(registry)
    devices.look()
    driver.failing.add(0)
    driver.used[1] = 2 * GIB
    devices.look()
    devices.look()
    figures = told(generate_latest(registry))
    assert math.isnan(figures['used_bytes{device="0"}'])
    assert math.isnan(figures['total_bytes{device="0"}'])
    assert figures['used_bytes{device="1"}'] == 2 * GIB
    assert [record.getMessage() for record in caplog.records] == ["the memory of device 0 is reported as NaN: GPU is lost"]
    driver.failing.clear()
    devices.look()
    assert told(generate_latest(registry))['used_bytes{device="0"}'] == 3 * GIB
