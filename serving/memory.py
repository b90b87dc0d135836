"""Freed memory goes back to the system: glibc keeps what many threads freed in pieces, and a server that lives long grows by it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import itertools
from collections.abc import AsyncIterator

_EVERY = 1.0  # seconds: it takes a millisecond or two
_COLLECTED = 60  # times between two collections of circles, for which a server stands still for some 80 ms
_ARENA_MAX = -8  # of malloc.h


def share_one_arena() -> None:
    """Have all threads take memory from one arena; called before there are threads, and without glibc nothing.

    With an arena for each thread a photo's megabytes leave a hole in whichever arena its thread had: after ten minutes of strange uploads
    125 MB in use lay among 500 MB of holes, and no more than the first arena's end can be given back. A run is as fast with one.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Collect what is in circles, and have the C library return what is free; without glibc the first alone."""
    gc.collect()
    trim()


def trim() -> None:
    """Have the C library return what is free; without glibc nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextlib.asynccontextmanager
async def given_back() -> AsyncIterator[None]:
    """Give memory back every second, so that between two times a busy server does not spread over what is free."""
    task = asyncio.create_task(_again_and_again())
    try:
        yield
    finally:
        task.cancel()


async def _again_and_again() -> None:
    for turn in itertools.count(1):
        await asyncio.sleep(_EVERY)
        await asyncio.to_thread(trim if turn % _COLLECTED else give_back)
