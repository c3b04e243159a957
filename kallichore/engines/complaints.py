"""Lines for a log that would be flooded otherwise: at most one in a while, and how many it stands for. [pure]"""

from __future__ import annotations

import attrs

INTERVAL = 60.0
"""Seconds between two lines: enough to see that something goes on, and too few to fill a disk."""


@attrs.define
class Complaints:
    """Counts what is complained about."""

    _last: float | None = None
    _unsaid: int = 0

    def add(self, text: str, now: float) -> str | None:
        """Return the line to be written now, with the number of those that were not since the last one; None for none.

        Args:
            text: What happened.
            now: The time in seconds.
        """
        if self._last is not None and now - self._last < INTERVAL:
            self._unsaid += 1
            return None
        unsaid, self._unsaid, self._last = self._unsaid, 0, now
        return f"{text} (and {unsaid} more since the last such line)" if unsaid else text
