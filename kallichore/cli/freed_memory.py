"""What glibc does with memory that is freed: kept while it is used again and again, given back a moment later.

A message of 10 MB takes three times that, read, joined and sent. Left to itself glibc returns each of these to the
system at once and has it anew, page by page, for the next: 10 ms of page faults, where all the rest takes 14.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import aclosing

import trio_util

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""

KEPT = 128 << 20
"""Bytes that are kept when they are freed, until they are given back."""

LARGEST = 32 << 20
"""Bytes up to which a piece of memory comes from what was kept: the most that glibc allows."""

INTERVAL = 1.0
"""Seconds after which what was kept goes back to the system."""

LEFT = 1 << 20
"""Bytes that stay also then."""


def keep_freed_memory() -> Callable[[], None] | None:
    """Have glibc keep what is freed; return what gives it back, or None where the C library is another."""
    if sys.platform != "linux":
        return None
    import ctypes

    libc = ctypes.CDLL(None)
    try:
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except AttributeError:
        return None
    trim.argtypes = [ctypes.c_size_t]
    mallopt(M_MMAP_THRESHOLD, LARGEST)
    mallopt(M_TRIM_THRESHOLD, KEPT)
    # Where there is nothing to give back this takes 10 µs; 4 ms for 60 MB.
    return lambda: trim(LEFT)


async def return_freed_memory(give_back: Callable[[], None]) -> None:
    """Give back regularly what is not used."""
    async with aclosing(trio_util.periodic(INTERVAL)) as ticks:
        async for _ in ticks:
            give_back()
