"""What the launcher's child processes have in common: where they start, whether they listen, and that they do not outlive it."""

from __future__ import annotations

import ctypes
import signal
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # one of BentoML's own dependencies

ROOT = Path(__file__).resolve().parent.parent  # the folder that holds the package, so that its import works from anywhere


def end_with_parent() -> None:
    """On Linux the kernel stops the child when its parent is killed, so that nothing lingers; to be called in the child."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def listens(pid: int, port: int) -> bool:
    """Whether the process, or one below it, listens on that port of this machine; True too where the system does not tell."""
    try:
        started = psutil.Process(pid)
        held = [one for process in [started, *started.children(recursive=True)] for one in process.net_connections(kind="tcp")]
    except psutil.NoSuchProcess:  # one of them ended while it was asked
        return False
    except (psutil.Error, OSError):
        return True
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in held)
