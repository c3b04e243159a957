"""When a session that nobody uses is to end its kernel, and what keeps it from that.

The time counts from the last activity: code that somebody had run, the end of it, and input that somebody gave. That a
client connects, asks about the kernel or reads over HTTP is none. While something *holds* the session there is no
deadline. Nobody is ended without a warning, `CullPolicy.notice` ahead; where the deadline is past when a hold is over,
as for a client that loses its connection after hours of reading, the warning comes then, and the end as much later.
"""

from __future__ import annotations

from enum import Enum, auto

import attrs

from kallichore.config import ServerConfig
from kallichore.conversation.activity import GRACE
from kallichore.conversation.supervision import Phase
from kallichore.models.bodies import CullHold, NewSession

NOTICE = 60.0
"""Seconds between the warning and the end: enough to see it and to run a line. Of a limit below two minutes it is half,
so that a session is not warned while it has hardly come to rest."""

OVERSLEPT = 60.0
"""Seconds by which a look may come late on a busy machine. One that comes later comes after the machine or this process
stood still: suspended, stopped, or in a container that was paused. Nobody could do anything meanwhile."""

_WORK = (CullHold.RUNNING, CullHold.INPUT)
"""Holds during which a warning goes on: what a front end asks the kernel by itself holds for a moment, too. The end of
an execution, and the answer to a question, are activity in any case."""

_UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))


@attrs.frozen
class CullPolicy:
    """How long a session may be idle, and what does not keep it from its end.

    Args:
        idle_after: Seconds without activity after which the kernel is ended.
        connected: Whether it is ended although clients are connected.
        busy: Whether it is ended although something runs, waits or asks for input.
    """

    idle_after: float
    connected: bool = False
    busy: bool = False

    @property
    def notice(self) -> float:
        """How many seconds before the end the warning comes."""
        return min(NOTICE, self.idle_after / 2)

    @property
    def lead(self) -> float:
        """How many seconds after the last activity the warning comes."""
        return self.idle_after - self.notice


def make_policy(request: NewSession, config: ServerConfig) -> CullPolicy | None:
    """Return a session's policy: what it was created with, else the server's; None if it is never ended."""
    idle_after = config.cull_idle_after if request.cull_idle_after is None else request.cull_idle_after
    if not idle_after:
        return None
    return CullPolicy(
        idle_after,
        config.cull_connected if request.cull_connected is None else request.cull_connected,
        config.cull_busy if request.cull_busy is None else request.cull_busy,
    )


@attrs.frozen
class Use:
    """What there is of a session that counts here; times are seconds of the caller's clock.

    Args:
        phase: What its supervisor is doing.
        is_ending: Whether its kernel was asked to end.
        active_at: When it was last used.
        is_at_work: Whether something runs, or waits for its turn.
        is_asking: Whether the kernel waits for input.
        clients: How many clients are connected.
        look_at: When something may be over that the kernel did not say the end of; None if nothing will.
    """

    phase: Phase
    is_ending: bool = False
    active_at: float = float("-inf")
    is_at_work: bool = False
    is_asking: bool = False
    clients: int = 0
    look_at: float | None = None


def held_by(policy: CullPolicy, use: Use) -> CullHold | None:
    """Return what keeps a session from being ended, whatever the time; None if nothing does."""
    if not use.phase.has_kernel:
        return CullHold.NO_KERNEL
    if use.phase in (Phase.STARTING, Phase.RESTARTING):
        return CullHold.STARTING
    if use.is_ending or use.phase is Phase.ENDING:
        return CullHold.ENDING
    if use.is_asking and not policy.busy:
        return CullHold.INPUT
    if use.is_at_work and not policy.busy:
        return CullHold.RUNNING
    return CullHold.CLIENTS if use.clients and not policy.connected else None


class Step(Enum):
    """What is to be done now."""

    NOTHING = auto()
    WARN = auto()
    END = auto()


@attrs.define
class CullClock:
    """The time that one kernel has, in seconds of the caller's clock.

    Args:
        policy: The session's.
        ready_at: When the kernel was ready: it is not idle from before it was there.

    Attributes:
        look_at: When to `look` again; None if something that holds has to be over first.
    """

    policy: CullPolicy
    ready_at: float
    look_at: float | None = attrs.field(default=None, init=False)
    _warned_at: float | None = attrs.field(default=None, init=False)
    _warned_of: float = attrs.field(default=float("-inf"), init=False)
    """Since when it was idle when it was warned: a warning is over with the next activity."""

    def idle_since(self, use: Use) -> float:
        """Return since when nobody has used the session."""
        return max(self.ready_at, use.active_at)

    def deadline(self, use: Use, now: float) -> float | None:
        """Return when the kernel will be ended if nothing happens; None while something holds it."""
        if held_by(self.policy, use) is not None:
            return None
        warned_at = self._warning(use)
        due = self.idle_since(use) + self.policy.idle_after
        return max(due, (now if warned_at is None else warned_at) + self.policy.notice)

    def look(self, use: Use, now: float) -> Step:
        """Return what is to be done, and set `look_at`. What is due is due once: the caller does it."""
        hold, policy = held_by(self.policy, use), self.policy
        if self.look_at is not None and now > self.look_at + OVERSLEPT:
            self._warned_at = None
        if hold is not None:
            self._hold(hold, use, now)
            return Step.NOTHING
        idle_since, warned_at = self.idle_since(use), self._warning(use)
        if warned_at is None:
            if now < idle_since + policy.lead:
                self.look_at = idle_since + policy.lead
                return Step.NOTHING
            self._warned_at, self._warned_of = now, idle_since
            self.look_at = self.deadline(use, now)
            return Step.WARN
        self.look_at = self.deadline(use, now)
        if self.look_at is not None and now < self.look_at:
            return Step.NOTHING
        self.look_at = None
        return Step.END

    def rest_at(self, active_at: float) -> float:
        """Return when to look again after work has ended, so late that most of such looks are none."""
        return max(self.ready_at, active_at) + self.policy.lead

    def _hold(self, hold: CullHold, use: Use, now: float) -> None:
        if hold not in _WORK:
            self._warned_at = None
        self.look_at = None
        if use.look_at is not None and hold is CullHold.RUNNING:
            # Said to be over in part. What settles it has its turn first.
            self.look_at = max(now, use.look_at) + GRACE
        elif hold is CullHold.INPUT and not use.is_at_work:
            # No work will end here. The answer is activity, so nothing can be due before this.
            self.look_at = now + self.policy.lead

    def _warning(self, use: Use) -> float | None:
        """Return when it was warned of the end that is ahead; None if it was not."""
        return self._warned_at if self._warned_of == self.idle_since(use) else None


def span(seconds: float) -> str:
    """Return a duration for people, in its largest unit, to the second: ``1 hour``, ``2.5 days``."""
    seconds = round(seconds) if seconds >= 1 else seconds
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds >= size), _UNITS[-1])
    amount = f"{seconds / size:.3g}"
    return f"{amount} {unit}" if amount == "1" else f"{amount} {unit}s"


def warning(use: Use, idle: float, left: float, time: str) -> str:
    """Return the warning.

    Args:
        use: The session.
        idle: For how many seconds nobody has used it.
        left: In how many seconds its kernel will be ended.
        time: At what time that is.
    """
    state = "has not been used" if use.is_at_work or use.is_asking else "has been idle"
    return (
        f"This session {state} for {span(idle)}. Its kernel will be ended in {span(left)}, at {time}, "
        "unless code is run or input is given"
    )


def reason(use: Use, idle: float) -> str:
    """Return why a kernel was ended that nobody had used for so many seconds: a sentence."""
    if use.is_at_work or use.is_asking:
        return f"It was ended because nobody had used it for {span(idle)}, whatever it was at (cull_busy)"
    return f"It was ended because it had been idle for {span(idle)}"
