"""The ticks of one clock for all: what is done regularly is done in the same moment, and wakes a server once. [pure]"""

from __future__ import annotations


def tick_after(time: float, period: float) -> float:
    """Return the first tick behind a time: multiples of the period are ticks.

    Args:
        time: In seconds.
        period: Seconds between two ticks; 0 for no ticks, and then the time itself is returned.
    """
    return (time // period + 1) * period if period else time
