"""How often Slurm is asked: soon after something has changed, and ever more seldom while nothing does. [pure]

A controller serves a whole cluster, and administrators look for who asks it every second. There is one question for all
jobs, whatever their number, and it waits the longer the longer the last answer has stayed true.
"""

from __future__ import annotations

LEAST = 1.0
"""Seconds between two questions, also where somebody is in a hurry: a hundred who are, are answered at once."""

FIRST = 2.0
"""Seconds until the next question when something has just changed: a job that came, began, or ended."""

LONGEST_WAITING, LONGEST_RUNNING = 15.0, 30.0
"""Seconds at most while a job waits for a node, and while all run: their hosts tell what happens to them sooner."""

SHARE_WAITING, SHARE_RUNNING = 0.05, 0.25
"""How long to wait, as a share of the time in which nothing has changed: in the first forty seconds a job that waits is
asked about each `FIRST`, later one that has waited ten minutes need not be seen to begin within two seconds."""

FIRST_PLACES, LONGEST_PLACES = 5.0, 60.0
"""Seconds between two looks at all who wait, for a job's place among them: at first, and when nothing of our jobs has
changed for as long. It is the one question that has a long answer on a large cluster."""


def next_pause(unchanged: float, *, is_waiting: bool) -> float:
    """Return the seconds until Slurm is asked again.

    Args:
        unchanged: Seconds in which nothing of our jobs has changed.
        is_waiting: Whether one of them waits for a node.
    """
    share, longest = (SHARE_WAITING, LONGEST_WAITING) if is_waiting else (SHARE_RUNNING, LONGEST_RUNNING)
    return min(max(FIRST, unchanged * share), longest)


def places_pause(unchanged: float) -> float:
    """Return the seconds until it is looked again who waits; see `next_pause`."""
    return min(max(FIRST_PLACES, unchanged), LONGEST_PLACES)
