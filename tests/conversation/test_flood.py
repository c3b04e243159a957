"""Floods: recognised by their rate over a window, and never by a short burst."""

from __future__ import annotations

import pytest

from kallichore.conversation.flood import (
    ENOUGH,
    FLOOD_RATE,
    LARGE,
    LONGEST_PAUSE,
    MOST_LARGE,
    SLOWEST,
    WINDOW,
    FloodGauge,
    patience_for,
)

BUSY = 1.0
"""When the kernel became busy."""


def pause_after(*counts: tuple[int, float]) -> float:
    """Return the pause of a gauge that counted so many messages at these times, in one execution."""
    gauge = FloodGauge()
    gauge.count(1, 10.0, BUSY)
    for messages, now in counts:
        gauge.count(messages, now, BUSY)
    return gauge.pause


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (FLOOD_RATE / 2, 0.0),
        (FLOOD_RATE, 0.0),
        (FLOOD_RATE * 1.05, LONGEST_PAUSE),
        (2 * ENOUGH / LONGEST_PAUSE, LONGEST_PAUSE / 2),
        (100_000.0, ENOUGH / 100_000),
    ],
)
def test_more_than_a_rate_is_a_flood_and_its_pause_is_for_enough_messages(rate: float, expected: float) -> None:
    """Over a whole window; the faster it is the shorter is the pause."""
    window = 1.0

    assert expected == pytest.approx(pause_after((round(rate * window), 10.0 + window)))


def test_message_that_tells_of_the_beginning_is_in_no_window() -> None:
    """Nor is what came with it: the window begins behind it."""
    gauge = FloodGauge()
    gauge.count(1000, 10.0, BUSY)
    gauge.count(1, 10.0 + WINDOW, BUSY)

    assert 0.0 == gauge.pause


def test_burst_is_no_flood_before_its_window_ends() -> None:
    """What a small execution says is over by then."""
    assert 0.0 == pause_after((500, 10.0 + WINDOW / 2), (500, 10.0 + WINDOW * 0.99))


def test_window_ends_after_its_time() -> None:
    """At its end, and not later, the rate counts."""
    assert 0.0 < pause_after((500, 10.0 + WINDOW * 1.001))


@pytest.mark.parametrize(("more", "expected"), [(0, False), (1, True)])
@pytest.mark.parametrize("idle_since", [None, 5.0])
def test_one_message_more_than_the_rate_makes_the_flood(more: int, expected: bool, idle_since: float | None) -> None:
    """From the very first window on, and in the first after an execution began or ended."""
    gauge = FloodGauge()
    before = gauge.pause
    if idle_since is not None:
        gauge.count(9, 0.0, idle_since)
    gauge.count(int(FLOOD_RATE * WINDOW) + more, WINDOW, idle_since)

    assert (before, gauge.pause > 0) == (0.0, expected)


def test_each_window_is_counted_anew() -> None:
    """Neither the messages of the one before count, nor the one that ended it; each alone is at the rate."""
    gauge = FloodGauge()
    gauge.count(9, 0.0, BUSY)
    for windows in (1, 2):
        gauge.count(int(FLOOD_RATE * WINDOW), windows * WINDOW, BUSY)

        assert 0.0 == gauge.pause

    gauge.count(int(FLOOD_RATE * WINDOW) + 1, 3 * WINDOW, BUSY)

    assert gauge.pause > 0


def test_burst_after_a_silence_is_no_flood() -> None:
    """The window is as long as the silence was."""
    assert 0.0 == pause_after((400, 20.0))


def test_flood_ends_with_its_rate() -> None:
    """The first window with few messages is the end, and each window is counted anew."""
    assert 0.0 == pause_after((1000, 10.1), (1, 10.2))


def test_flood_goes_on_within_a_window() -> None:
    """Between two windows the pause stays."""
    assert 0.0 < pause_after((1000, 10.1), (1, 10.1 + WINDOW / 2))


def test_many_small_executions_are_no_flood() -> None:
    """Executions one after the other bring many messages a second, and each of them is waited for.

    Also where the idle of one and the busy of the next come at once.
    """
    gauge = FloodGauge()
    for number in range(100):
        now = 10.0 + number * WINDOW / 10
        gauge.count(50, now, now)
        gauge.count(50, now + WINDOW / 20, now)

        assert 0.0 == gauge.pause


def test_execution_ends_the_flood_of_the_one_before() -> None:
    """What the new one says first is not held up."""
    gauge = FloodGauge()
    for number in range(3):
        gauge.count(1000, 10.0 + number * WINDOW, BUSY)
    before = gauge.pause
    gauge.count(1, 10.0 + 3 * WINDOW, 10.0 + 3 * WINDOW)

    assert (True, 0.0) == (before > 0, gauge.pause)


def test_flood_of_a_kernel_that_executes_nothing_is_one() -> None:
    """A thread of the kernel's can print while it is idle, or silent."""
    for since in (9.0, None):
        gauge = FloodGauge()
        for number in range(3):
            gauge.count(1000, 10.0 + number * WINDOW * 1.001, since)

        assert gauge.pause > 0


# Large messages


@pytest.mark.parametrize(
    ("sizes", "counted"),
    [
        ([LARGE], LARGE),
        ([10 * LARGE], 10 * LARGE),
        ([2 * LARGE, 100, LARGE], 3 * LARGE + 100),
        ([2 * LARGE, 100, 100], 0),
        ([LARGE - 1], 0),
        ([100], 0),
        ([100, 100 * LARGE], 0),
        ([LARGE] * MOST_LARGE, MOST_LARGE * LARGE),
        ([LARGE] * (MOST_LARGE + 1), 0),
    ],
)
def test_clients_are_waited_for_by_the_size_of_what_is_large(sizes: list[int], counted: int) -> None:
    """Small messages wait for nobody: the kernel's queue is short for them. The bytes of the last frames count."""
    batch = [[b"topic", b"header", bytes(size)] for size in sizes]

    assert counted / SLOWEST == patience_for(batch)
