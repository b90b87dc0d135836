"""Freed memory goes back to the system: glibc keeps what many threads freed in pieces, and a server that lives long grows by it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import AsyncIterator

_EVERY = 60.0  # seconds


def give_back() -> None:
    """Collect what is in circles, and have the C library return what is free; without glibc the first alone."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextlib.asynccontextmanager
async def given_back() -> AsyncIterator[None]:
    """Give memory back once a minute."""
    task = asyncio.create_task(_again_and_again())
    try:
        yield
    finally:
        task.cancel()


async def _again_and_again() -> None:
    while True:
        await asyncio.sleep(_EVERY)
        await asyncio.to_thread(give_back)
