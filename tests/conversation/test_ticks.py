"""The ticks of one clock for all."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.conversation.ticks import tick_after


@pytest.mark.parametrize(
    ("time", "period", "tick"), [(100, 2, 102), (100.5, 2, 102), (101.99, 2, 102), (0, 10, 10), (7, 0, 7)]
)
def test_tick_is_the_next_multiple(time: float, period: float, tick: float) -> None:
    """Behind the time, also where that is a tick itself; without a period there is nothing to wait for."""
    assert tick == tick_after(time, period)


@given(st.floats(0, 1e6), st.sampled_from([0.05, 0.1, 0.3, 1.0, 2.0, 20.0]))
def test_tick_is_ahead_by_a_period_at_most(time: float, period: float) -> None:
    """Whatever the arithmetic of floats makes of it."""
    assert -1e-6 <= tick_after(time, period) - time <= period + 1e-6
