"""When a server without activity should end. [pure]

Time that the machine slept does not count: nobody could have been active. A suspended machine shows as a step of the
clock that is much longer than the wait that was asked for (where the clock runs on during sleep at all), so no single
step counts for more than `LONGEST_STEP`.
"""

from __future__ import annotations

import attrs

SHORT_PERIOD = 30.0
"""Seconds that the setting "0 hours" stands for."""

LONGEST_STEP = 60.0
"""Seconds between two looks at the clock at most, and so the most that one look can count."""


@attrs.define
class IdleClock:
    """Counts idle seconds up to a period.

    Args:
        hours: The period in hours; 0 for `SHORT_PERIOD`, None for never.
        now: The time.
    """

    hours: int | None
    _looked_at: float = attrs.field(alias="now")
    _counted: float = attrs.field(default=0.0, init=False)

    @property
    def period(self) -> float:
        """The period in seconds; infinite for never."""
        if self.hours is None:
            return float("inf")
        return self.hours * 3600.0 or SHORT_PERIOD

    def set_hours(self, hours: int | None, now: float) -> None:
        """Change the period and begin anew."""
        self.hours = hours
        self.nudge(now)

    def nudge(self, now: float) -> None:
        """Begin anew: something happened."""
        self._counted, self._looked_at = 0.0, now

    def look(self, now: float) -> bool:
        """Count the time since the last look; tell whether the period is over."""
        self._counted += min(now - self._looked_at, LONGEST_STEP)
        self._looked_at = now
        return self._counted >= self.period

    def next_look(self) -> float:
        """Return how many seconds may pass until the next look; infinitely many where there is no period."""
        if self.hours is None:
            return float("inf")
        return min(self.period - self._counted, LONGEST_STEP)
