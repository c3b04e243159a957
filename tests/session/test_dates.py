"""Tests of the dates in headers of messages."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from kallichore.session.facilities import utc_date

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("nanoseconds", "date"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999_999, "1970-01-01T00:00:00.000Z"),
        (7_000_000, "1970-01-01T00:00:00.007Z"),
        (SECOND - 1, "1970-01-01T00:00:00.999Z"),
        (951_782_400 * SECOND, "2000-02-29T00:00:00.000Z"),
    ],
)
def test_date_has_milliseconds_and_is_utc(monkeypatch: pytest.MonkeyPatch, nanoseconds: int, date: str) -> None:
    """Cut off, not rounded, so that no message is from the future; the second asked for before is no hindrance."""
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds + SECOND)
    utc_date()
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds)

    assert utc_date() == date


def test_date_is_now() -> None:
    """Between two looks at the clock, to the millisecond."""
    before, date, after = datetime.now(UTC), datetime.fromisoformat(utc_date()), datetime.now(UTC)

    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= date <= after
