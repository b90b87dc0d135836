"""What several workers count together: real processes that count in one folder, and are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from serving.counts import reserve, sum_up
from tests.serving.test_device_memory import told

ROOT = Path(__file__).parents[2]
ROOM = 2**20
WORKER = """
import sys, types, pynvml
used = None
def memory(device):
    if used is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    return types.SimpleNamespace(used=used, total=9)
pynvml.nvmlInit = lambda: None
pynvml.nvmlDeviceGetCount = lambda: 1
pynvml.nvmlDeviceGetHandleByIndex = lambda index: index
pynvml.nvmlDeviceGetMemoryInfo = memory
from serving.metrics import Metrics, Trace
metrics = Metrics(devices=True)
for line in sys.stdin:
    used = None if line == "lost\\n" else int(line)
    metrics.count(Trace(), path="/segment", method="POST", status=200, seconds=0.01)
    sys.stdout.buffer.write(metrics.render() + b"end\\n")
    sys.stdout.flush()
"""


class Worker:
    """A process that counts; whatever it is asked, it answers with what Prometheus would read."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=ROOT,
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, used: int | str) -> bytes:
        """Count a request, see this use of the device's memory, and say what all have counted."""
        self.process.stdin.write(f"{used}\n".encode())
        self.process.stdin.flush()
        return b"".join(iter(self.process.stdout.readline, b"end\n"))

    def kill(self) -> int:
        """Kill it; its number."""
        self.process.kill()
        self.process.communicate()
        return self.process.pid


@pytest.fixture
def start(tmp_path):
    started = []

    def start():
        started.append(Worker(tmp_path))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def requests(text):
    return sum(float(line.split()[-1]) for line in text.decode().splitlines() if line.startswith("fewpair_requests_total{"))


def sizes(folder, pid):
    return {file.name.removesuffix(f"_{pid}.db"): file.stat().st_blocks * 512 for file in folder.glob(f"*_{pid}.db")}


def test_what_a_killed_worker_counted_still_counts_and_takes_no_more_room_than_it_needs_once_another_begins(start, tmp_path):
    first, living = start(), start()
    assert requests(first.ask(1)) == 1
    assert requests(living.ask(1)) == 2
    assert sizes(tmp_path, first.process.pid) == dict.fromkeys(("counter", "histogram", "gauge_livesum", "gauge_livemostrecent"), ROOM)
    dead = first.kill()
    assert requests(start().ask(1)) == 3, "who begins has counted too"
    left = sizes(tmp_path, dead)
    assert left.keys() == {"counter", "histogram"}
    assert sum(left.values()) < 2**15
    assert set(sizes(tmp_path, living.process.pid).values()) == {ROOM}
    assert requests(living.ask(1)) == 4, "and who lives counts on"


def test_a_killed_worker_that_counted_nothing_or_not_even_began_is_read_past(start, tmp_path):
    pid = start().kill()
    (tmp_path / f"counter_{pid}.db").write_bytes(b"")
    (tmp_path / f"histogram_{pid}.db").write_bytes(bytes(ROOM))
    assert sum_up(tmp_path) == b""
    assert sizes(tmp_path, pid).keys() == {"histogram"}
    assert sizes(tmp_path, pid)["histogram"] <= 4096


def test_a_worker_with_the_number_of_a_dead_one_counts_on_from_there_in_real_room(tmp_path):
    file = tmp_path / f"counter_{os.getpid()}.db"
    counted = MmapedDict(str(file))
    counted.write_value('["a", "a_total", {}, "help"]', 3.0, 0.0)
    used = counted._used
    counted.close()
    os.truncate(file, used)  # as it is left of a dead worker
    reserve(tmp_path)
    assert file.stat().st_blocks * 512 >= ROOM
    again = MmapedDict(str(file))
    assert again.read_value('["a", "a_total", {}, "help"]') == (3.0, 0.0)
    assert again._capacity == ROOM
    again.close()


def test_of_a_device_s_memory_counts_what_any_worker_saw_last(start):
    one, other = start(), start()
    seen = [(one, 5), (other, 3), (one, "lost"), (other, 2), (one, 4)]
    said = [told(worker.ask(used))['used_bytes{device="0"}'] for worker, used in seen]
    assert said == pytest.approx([5, 3, float("nan"), 2, 4], nan_ok=True)
