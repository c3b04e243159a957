"""When a server without activity should end. [pure]

Time in which nobody could be active does not count: a look that comes much later than it was due comes after the
machine was suspended, or the process stopped, and begins the period anew. So nothing looks at the clock in between.
"""

from __future__ import annotations

import attrs

from kallichore.conversation.culling import OVERSLEPT

SHORT_PERIOD = 30.0
"""Seconds that the setting "0 hours" stands for."""


@attrs.define
class IdleClock:
    """Tells when a period without activity is over.

    Args:
        hours: The period in hours; 0 for `SHORT_PERIOD`, None for never.
        now: The time.
    """

    hours: int | None
    _since: float = attrs.field(alias="now")

    @property
    def look_at(self) -> float:
        """When the period will be over; never is infinitely late."""
        if self.hours is None:
            return float("inf")
        return self._since + (self.hours * 3600.0 or SHORT_PERIOD)

    def set_hours(self, hours: int | None, now: float) -> None:
        """Change the period and begin anew."""
        self.hours = hours
        self.nudge(now)

    def nudge(self, now: float) -> None:
        """Begin anew: something happened."""
        self._since = now

    def look(self, now: float) -> bool:
        """Tell whether the period is over. A look that comes far too late begins it anew."""
        if now > self.look_at + OVERSLEPT:
            self.nudge(now)
        return now >= self.look_at
