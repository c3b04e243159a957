"""Exit codes on Windows: signed, and crashes in words."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.kernel.windows_codes import CRASHES, describe_code, signed


@pytest.mark.parametrize(
    ("code", "expected"),
    [(0, 0), (1, 1), (259, 259), (0x7FFFFFFF, 0x7FFFFFFF), (0x80000000, -(1 << 31)), (0xFFFFFFFF, -1), (-1, -1)],
)
def test_codes_are_signed_as_clients_read_them(code: int, expected: int) -> None:
    """The upper half of the unsigned numbers is negative; what is signed already stays."""
    assert expected == signed(code)


@given(st.integers(0, (1 << 32) - 1))
def test_every_code_fits_into_32_bits_and_keeps_them(code: int) -> None:
    """Nothing is lost on the way."""
    assert -(1 << 31) <= signed(code) < 1 << 31
    assert code == signed(code) % (1 << 32)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0xC0000005, "crashed with code 0xC0000005 (access violation)"),
        (0xC00000FD, "crashed with code 0xC00000FD (stack overflow)"),
        (0xC0000409, "crashed with code 0xC0000409 (stack buffer overrun, or the program aborted)"),
        (0x40010004, "crashed with code 0x40010004 (the user's Windows session ended)"),
        (0x80000100, "exited with code -2147483392 (0x80000100)"),
        (0xFFFFFFFE, "exited with code -2 (0xFFFFFFFE)"),
        (0xFFFFFFFF, "exited with code -1"),
        (0, "exited with code 0"),
        (3, "exited with code 3"),
    ],
)
def test_crash_is_told_by_what_was_wrong(code: int, words: str) -> None:
    """Known exceptions have words, other large numbers their hexadecimals, and a program's own codes are plain."""
    assert words == describe_code(signed(code))


def test_codes_of_other_systems_are_no_crashes() -> None:
    """What a process on a POSIX system can exit with is never taken for an exception."""
    assert not {*range(256)} & {*CRASHES}
