"""Floods: recognised by their rate over a window, and never by a short burst."""

from __future__ import annotations

import pytest

from kallichore.conversation.flood import FLOOD_RATE, WINDOW, FloodGauge


def gauge_of(*counts: tuple[int, float]) -> FloodGauge:
    """Return a gauge that counted so many messages at these times."""
    gauge = FloodGauge()
    for messages, now in counts:
        gauge.count(messages, now, None)
    return gauge


@pytest.mark.parametrize(("messages", "expected"), [(int(FLOOD_RATE * WINDOW), False), (int(FLOOD_RATE), True)])
def test_rate_over_a_window_makes_a_flood(messages: int, expected: bool) -> None:
    """More than the rate, over a whole window, is a flood."""
    assert expected is gauge_of((1, 10.0), (messages, 10.0 + WINDOW)).is_flood


@pytest.mark.parametrize(("more", "expected"), [(0, False), (1, True)])
@pytest.mark.parametrize("idle_since", [None, 5.0])
def test_one_message_more_than_the_rate_makes_the_flood(more: int, expected: bool, idle_since: float | None) -> None:
    """From the very first window on, and in the first after an execution began or ended."""
    gauge = FloodGauge()
    before = gauge.is_flood
    if idle_since is not None:
        gauge.count(9, 0.0, idle_since)
    gauge.count(int(FLOOD_RATE * WINDOW) + more, WINDOW, idle_since)

    assert (before, gauge.is_flood) == (False, expected)


def test_burst_after_a_silence_is_no_flood() -> None:
    """What a small execution says is over before a window is."""
    assert not gauge_of((1, 10.0), (1, 20.0), (500, 20.0 + WINDOW / 2)).is_flood


def test_flood_ends_with_its_rate() -> None:
    """The first window with few messages is the end."""
    assert not gauge_of((1, 10.0), (1000, 10.0 + WINDOW), (1, 10.1)).is_flood


def test_many_small_executions_are_no_flood() -> None:
    """Executions one after the other bring many messages a second, and each of them is waited for."""
    gauge = FloodGauge()
    for number in range(10):
        now = 10.0 + number * WINDOW
        gauge.count(int(FLOOD_RATE), now, now)
        gauge.count(int(FLOOD_RATE), now, None)
        assert not gauge.is_flood


def test_flood_of_an_idle_kernel_is_one() -> None:
    """A thread of the kernel's can print while nothing executes."""
    gauge = FloodGauge()
    for number in range(3):
        gauge.count(int(FLOOD_RATE), 10.0 + number * WINDOW, 9.0)
    assert gauge.is_flood
