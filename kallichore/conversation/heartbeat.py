"""When silence becomes "offline". [pure]

A heartbeat is sent, may be unanswered for `limit` seconds, and after its answer (or its time) comes a pause before the
next. So a healthy kernel is asked every two seconds or so, a silent one every seven. A late answer is an answer.

A machine that slept wakes up with every deadline long past, and the kernel, which slept as well, had no chance. So a
deadline that is looked at much too late does not count; it is set anew.

A kernel with one thread answers no heartbeat while code runs, and is as well as can be. So silence counts only from
when the kernel is at rest, unless its process is stopped. One whose heartbeat was never answered has none.
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
    was_answered: bool = attrs.field(default=False, init=False)
    """Whether the kernel ever answered."""
    _next_at: float = attrs.field(default=float("-inf"), init=False)
    _deadline: float | None = attrs.field(default=None, init=False)

    def is_due(self, now: float) -> bool:
        """Whether a heartbeat is to be sent now."""
        return self._deadline is None and now >= self._next_at

    def sent(self, now: float) -> None:
        """Note that a heartbeat was sent."""
        self._deadline = now + self.limit

    def answered(self, now: float) -> None:
        """Note an answer, which ends any silence."""
        self.was_answered = True
        self._end_beat(now)
        self.is_silent = False

    def is_overdue(self, now: float) -> bool:
        """Whether the deadline has come: time to `judge`."""
        return self._deadline is not None and now >= self._deadline

    def judge(self, now: float, *, at_rest_since: float | None, is_stopped: bool) -> bool:
        """Decide what an unanswered heartbeat says; True if a silence begins. The next heartbeat follows in any case.

        Args:
            now: The time.
            at_rest_since: Since when the kernel runs nothing; None while it does.
            is_stopped: Whether its process is stopped, which explains its silence whatever it runs.
        """
        assert self._deadline is not None
        if now > self._deadline + TOO_LATE:
            self._deadline = now + self.limit
            return False
        is_excused = at_rest_since is None or not self.was_answered
        if not is_stopped and at_rest_since is not None and now < at_rest_since + self.limit:
            # It has been able to answer for less long than it may take.
            self._deadline = at_rest_since + self.limit
            return False
        self._end_beat(now)
        was_silent, self.is_silent = self.is_silent, is_stopped or not is_excused
        return self.is_silent and not was_silent

    def _end_beat(self, now: float) -> None:
        if self._deadline is not None:
            self._deadline = None
            self._next_at = now + self.pause

    def next_action_at(self) -> float:
        """Return when to look again: to send, or at the deadline."""
        return self._next_at if self._deadline is None else self._deadline
