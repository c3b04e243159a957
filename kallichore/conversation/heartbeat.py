"""When silence becomes "offline". [pure]

A heartbeat is sent, and may be unanswered for `limit` seconds. The next goes at the next tick of a clock that all
kernels share, so that a server with many of them wakes once for all. So a healthy kernel is asked every two seconds, a
silent one every six or so. A late answer is an answer. On another machine it is asked more seldom, and each kernel at
moments of its own: `PAUSE_ELSEWHERE`.

Who answered the last time is not listened to: its answer is here when the next is to be sent, and wakes nobody before.

A machine that slept wakes up with every deadline long past, and the kernel, which slept as well, had no chance. So a
deadline that is looked at much too late does not count; it is set anew.

A kernel with one thread answers no heartbeat while code runs, and is as well as can be. So silence counts only from
when the kernel is at rest, unless its process is stopped. One whose heartbeat was never answered has none.
"""

from __future__ import annotations

import attrs

from kallichore.conversation.ticks import tick_after

TOO_LATE = 2.0
"""Seconds after a deadline at which a look at it says more about us, asleep or starved, than about the kernel."""

PAUSE_ELSEWHERE = 10.0
"""Seconds from one heartbeat to the next of a kernel on another machine, where the setting is no longer: there it is
not a system call, but passes through four processes and a network, twice. So there is also nothing to be had from
sending all in the same moment: of a thousand kernels, that would be a second in which the server does nothing else."""


@attrs.define
class HeartbeatMonitor:
    """The arithmetic of one kernel's heartbeat; times are seconds of the caller's clock.

    Args:
        limit: Seconds for which a heartbeat may stay unanswered.
        pause: Seconds between two ticks of the clock: from one answered heartbeat to the next.
        phase: Seconds by which the ticks of this kernel's clock are behind those that all share.
    """

    limit: float
    pause: float
    phase: float = 0.0
    is_silent: bool = attrs.field(default=False, init=False)
    """Whether the kernel counts as silent now."""
    was_answered: bool = attrs.field(default=False, init=False)
    """Whether the kernel ever answered."""
    _next_at: float = attrs.field(default=float("-inf"), init=False)
    _sent_at: float = attrs.field(default=float("-inf"), init=False)
    _is_steady: bool = attrs.field(default=False, init=False)
    """Whether the last heartbeat was answered."""
    _deadline: float | None = attrs.field(default=None, init=False)

    def is_due(self, now: float) -> bool:
        """Whether a heartbeat is to be sent now."""
        return self._deadline is None and now >= self._next_at

    def sent(self, now: float) -> None:
        """Note that a heartbeat was sent."""
        self._sent_at, self._deadline = now, now + self.limit

    def rests_until(self, now: float) -> float | None:
        """Return until when nobody need listen for the answer; None if it is to be waited for."""
        if self._deadline is None or not self._is_steady:
            return None
        until = min(self._tick_after(self._sent_at), self._deadline)
        return until if now < until else None

    def answered(self, now: float) -> None:
        """Note an answer, which ends any silence."""
        self.was_answered = self._is_steady = True
        self._end_beat(self._sent_at)
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
        self._is_steady = False
        was_silent, self.is_silent = self.is_silent, is_stopped or not is_excused
        return self.is_silent and not was_silent

    def _end_beat(self, since: float) -> None:
        if self._deadline is not None:
            self._deadline = None
            self._next_at = self._tick_after(since)

    def _tick_after(self, time: float) -> float:
        return tick_after(time - self.phase, self.pause) + self.phase

    def next_action_at(self) -> float:
        """Return when to look again: to send, or at the deadline."""
        return self._next_at if self._deadline is None else self._deadline
