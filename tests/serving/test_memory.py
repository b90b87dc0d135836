"""Freed memory goes back to the system, while the server runs."""

import asyncio
import subprocess
import sys

import pytest

from serving import memory

FREED_IN_PIECES = """
import os, threading
from serving.memory import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

kept = []
def fill():
    pieces = [bytearray(60_000) for _ in range(700)]
    kept.append(pieces[::20])  # so that no end of the heap is free

threads = [threading.Thread(target=fill) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
before = resident()
give_back()
print(before - resident())
"""

ARENAS = """
import ctypes, sys, threading
from serving.memory import share_one_arena

if sys.argv[1] == "one":
    share_one_arena()
all_there = threading.Barrier(8)
def fill():
    pieces = [bytearray(60_000) for _ in range(10)]
    all_there.wait()

threads = [threading.Thread(target=fill) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL("libc.so.6")
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap is Linux's")
def test_all_threads_share_one_arena_so_that_photos_leave_no_holes_in_many():
    def arenas(word):
        return subprocess.run([sys.executable, "-c", ARENAS, word], capture_output=True, text=True, check=True).stdout.count("<heap nr=")

    assert arenas("one") == 1 < arenas("each")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap is Linux's")
def test_what_many_threads_freed_in_pieces_is_returned():
    told = subprocess.run([sys.executable, "-c", FREED_IN_PIECES], capture_output=True, text=True, check=True)
    assert float(told.stdout) > 100, "MiB of some 300"


def test_it_is_given_back_again_and_again_as_long_as_the_server_runs(monkeypatch):
    given, collected = [], []
    monkeypatch.setattr(memory, "_EVERY", 0.005)
    monkeypatch.setattr(memory, "_COLLECTED", 12)
    monkeypatch.setattr(memory, "trim", lambda: given.append(1))
    monkeypatch.setattr(memory.gc, "collect", lambda: collected.append(1))

    async def serve():
        async with memory.given_back():
            await asyncio.sleep(0.2)
        count = len(given)
        await asyncio.sleep(0.1)
        return count

    count = asyncio.run(serve())
    assert count == len(given) > 12
    assert len(collected) == count // 12
