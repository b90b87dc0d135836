"""Skips without CUDA or Chromium, and the number of processes and threads."""

import os
import shutil
import types

import pytest
from PIL import Image, PngImagePlugin

MOST_PROCESSES = 4  # each holds torch, models and a server of its own: some 1.5 GB
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# Read when torch is first imported, which is after this. Two processes of two threads each on two cores take turns
# rather than work.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, CORES // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))))

LONGEST = ("test_export_parity.py", "browser/test_studio.py", "test_tutorial.py")
"""Files of minutes; a file is run by one process."""

NO_BROWSER = "there is no Chromium: install it with `apt-get install chromium`"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """What `-n auto` means: the cores this process may use. (psutil's count of physical cores is half of them on most
    rented machines.)
    """
    return min(CORES, MOST_PROCESSES)


def pytest_collection_modifyitems(items):
    """Begin with the longest files, so that no process runs one while the others have nothing left."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))


def pytest_runtest_setup(item):
    """Skip what cannot run here. FEWPAIR_REQUIRE_BROWSER=1 makes a missing browser a failure, so that CI cannot pass
    without it.
    """
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device: benchmarks/gpu.sh runs this on a machine that has one")
    if item.get_closest_marker("browser") and not any(
        map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    ):
        if os.environ.get("FEWPAIR_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{NO_BROWSER} (FEWPAIR_REQUIRE_BROWSER=1 forbids skipping)", pytrace=False)
        pytest.skip(NO_BROWSER)


@pytest.fixture
def heif_plugin(monkeypatch):
    """A stand-in for pillow_heif, by which Pillow takes a PNG of any name for HEIF."""

    class Plugin(PngImagePlugin.PngImageFile):
        format = "HEIF"

    def register():
        monkeypatch.setitem(Image.OPEN, "HEIF", (Plugin, lambda magic: magic.startswith(b"\x89PNG")))
        monkeypatch.setattr(Image, "ID", [*Image.ID, "HEIF"])

    return types.SimpleNamespace(register_heif_opener=register)
