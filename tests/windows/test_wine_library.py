"""The library that is made for Wine does what the one of Windows does."""

from __future__ import annotations

import ctypes
import sys

import pytest

if sys.platform != "win32":
    pytest.skip("Windows only: `nox -s windows` runs it under Wine", allow_module_level=True)


def test_buffer_is_filled_with_random_bytes() -> None:
    """All of it, and with others each time: modules made with Rust call it when they are loaded."""
    fill = ctypes.WinDLL("bcryptprimitives").ProcessPrng
    fill.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    buffers = [ctypes.create_string_buffer(64) for _ in range(2)]
    for buffer in buffers:
        fill(buffer, 64)
    first, second = (buffer.raw for buffer in buffers)

    assert first != second
    assert min(len(set(first[:32])), len(set(first[32:]))) > 16
