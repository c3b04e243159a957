"""When silence becomes "offline". [pure]

A heartbeat is sent, may be unanswered for `limit` seconds, and after its answer (or its time) comes a pause before the
next. So a healthy kernel is asked every two seconds or so, a silent one every seven. A late answer is an answer.

A machine that slept wakes up with every deadline long past, and the kernel, which slept as well, had no chance. So a
deadline that is looked at much too late does not count; it is set anew.
"""

from __future__ import annotations

import attrs

TOO_LATE = 2.0
"""Seconds after a deadline at which a look at it says more about us, asleep or starved, than about the kernel."""


@attrs.define
class HeartbeatMonitor:
    """The arithmetic of one kernel's heartbeat; times are seconds of the caller's clock.

    Args:
        limit: Seconds for which a heartbeat may stay unanswered.
        pause: Seconds between the end of one heartbeat and the next.
    """

    limit: float
    pause: float
    is_silent: bool = attrs.field(default=False, init=False)
    """Whether the kernel counts as silent now."""
    _next_at: float = attrs.field(default=float("-inf"), init=False)
    _deadline: float | None = attrs.field(default=None, init=False)

    def is_due(self, now: float) -> bool:
        """Whether a heartbeat is to be sent now."""
        return self._deadline is None and now >= self._next_at

    def sent(self, now: float) -> None:
        """Note that a heartbeat was sent."""
        self._deadline = now + self.limit

    def answered(self, now: float) -> bool:
        """Note an answer; True if it ends a silence."""
        if self._deadline is not None:
            self._deadline = None
            self._next_at = now + self.pause
        was_silent, self.is_silent = self.is_silent, False
        return was_silent

    def expired(self, now: float) -> bool:
        """Look at the deadline; True if a silence begins with it. A heartbeat that is over is followed by the next."""
        if self._deadline is None or now < self._deadline:
            return False
        if now > self._deadline + TOO_LATE:
            self._deadline = now + self.limit
            return False
        self._deadline = None
        self._next_at = now + self.pause
        begins, self.is_silent = not self.is_silent, True
        return begins

    def next_action_at(self) -> float:
        """Return when to look again: to send, or at the deadline."""
        return self._next_at if self._deadline is None else self._deadline
