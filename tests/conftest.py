"""What every test shares: those marked `gpu` or `browser` skip where there is no CUDA device or no Chromium, and say so."""

import os
import shutil

import pytest

NO_BROWSER = "there is no Chromium: install it with `apt-get install chromium`"


def pytest_runtest_setup(item):
    """Skip what cannot run here. FEWPAIR_REQUIRE_BROWSER=1 makes a missing browser a failure, so that CI cannot pass without it."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device: benchmarks/gpu.sh runs this on a machine that has one")
    if item.get_closest_marker("browser") and not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        if os.environ.get("FEWPAIR_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{NO_BROWSER} (FEWPAIR_REQUIRE_BROWSER=1 forbids skipping)", pytrace=False)
        pytest.skip(NO_BROWSER)
