"""What the launcher's child processes have in common: where they start, and that they do not outlive it."""

from __future__ import annotations

import ctypes
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the folder that holds the package, so that its import works from anywhere


def end_with_parent() -> None:
    """On Linux the kernel stops the child when its parent is killed, so that nothing lingers; to be called in the child."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
