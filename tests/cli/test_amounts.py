"""Durations and amounts of memory, as tables have them."""

from __future__ import annotations

import pytest

from kallichore.cli.amounts import size, span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (-1.5, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (86399, "23 h"),
        (86400, "1 d"),
        (1e8, "1157 d"),
    ],
)
def test_duration_is_told_in_its_largest_unit(seconds: float | None, text: str) -> None:
    """It is cut, so that nothing is older than it is; what is not known is nothing."""
    assert text == span(seconds)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, ""),
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (54_091_776, "54 MB"),
        (9_949_999, "9.9 MB"),
        (9_950_000, "10 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.0 GB"),
        (3 * 10**15, "3000 TB"),
    ],
)
def test_memory_is_told_in_two_or_three_digits(number: int | None, text: str) -> None:
    """The unit is the one in which it is short; what is not known is nothing."""
    assert text == size(number)
