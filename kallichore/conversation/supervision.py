"""What a session's supervisor is doing: six phases, five events, one table.

A session has at most one kernel at a time. Its *phase* says whether there is one and what is to become of it; what the
kernel itself does is its status, see `kallichore.conversation.status`. Each pair of a phase and an event is in the
table: it leads to a phase, or is refused, and then the refusal says what to tell who asked.

Two rules are behind it. Only the end of a kernel, `Event.GONE`, makes room for another. And once the session is to end,
nothing leads back.
"""

from __future__ import annotations

from enum import Enum, auto


class Phase(Enum):
    """What a supervisor is doing."""

    RESTING = auto()
    """There is no kernel, and one may be started."""
    STARTING = auto()
    """A kernel is launched or adopted, and has not answered yet."""
    RUNNING = auto()
    RESTARTING = auto()
    """The kernel was asked to end, and another one follows."""
    ENDING = auto()
    """The kernel was asked to end, and none follows."""
    CLOSED = auto()
    """There is no kernel, and there will be none."""

    @property
    def has_kernel(self) -> bool:
        """Whether there is, or is about to be, a kernel."""
        return self not in (Phase.RESTING, Phase.CLOSED)


class Event(Enum):
    """What can happen to a session."""

    START = auto()
    """Somebody asks for a kernel, to be launched or adopted."""
    READY = auto()
    """The kernel has answered."""
    RESTART = auto()
    """Somebody asks for another kernel in the place of this one."""
    STOP = auto()
    """The session is to end, with its server or because it is deleted."""
    GONE = auto()
    """The kernel has ended, or never began."""


class Refusal(Enum):
    """Why something that was asked for is not done."""

    HAS_KERNEL = "KS-2"
    CHANGING = "KS-13"
    ENDING = "KS-16"


_P, _E = Phase, Event

TRANSITIONS: dict[tuple[Phase, Event], Phase | Refusal] = {
    (_P.RESTING, _E.START): _P.STARTING,
    (_P.RESTING, _E.RESTART): _P.STARTING,
    (_P.RESTING, _E.STOP): _P.CLOSED,
    (_P.STARTING, _E.START): Refusal.HAS_KERNEL,
    (_P.STARTING, _E.READY): _P.RUNNING,
    # A start that takes too long for somebody's patience can be begun anew.
    (_P.STARTING, _E.RESTART): _P.RESTARTING,
    (_P.STARTING, _E.STOP): _P.ENDING,
    (_P.STARTING, _E.GONE): _P.RESTING,
    (_P.RUNNING, _E.START): Refusal.HAS_KERNEL,
    (_P.RUNNING, _E.RESTART): _P.RESTARTING,
    (_P.RUNNING, _E.STOP): _P.ENDING,
    (_P.RUNNING, _E.GONE): _P.RESTING,
    (_P.RESTARTING, _E.START): Refusal.HAS_KERNEL,
    # It answers although it was asked to end meanwhile.
    (_P.RESTARTING, _E.READY): _P.RESTARTING,
    (_P.RESTARTING, _E.RESTART): Refusal.CHANGING,
    (_P.RESTARTING, _E.STOP): _P.ENDING,
    (_P.RESTARTING, _E.GONE): _P.STARTING,
    (_P.ENDING, _E.START): Refusal.ENDING,
    (_P.ENDING, _E.READY): _P.ENDING,
    (_P.ENDING, _E.RESTART): Refusal.ENDING,
    (_P.ENDING, _E.STOP): _P.ENDING,
    (_P.ENDING, _E.GONE): _P.CLOSED,
    (_P.CLOSED, _E.START): Refusal.ENDING,
    (_P.CLOSED, _E.RESTART): Refusal.ENDING,
    (_P.CLOSED, _E.STOP): _P.CLOSED,
}
"""Where each event leads from each phase. What is missing cannot happen: no kernel is there to answer or to end."""


class ImpossibleEventError(RuntimeError):
    """An event that cannot happen in this phase: a bug of ours."""


def move(phase: Phase, event: Event) -> Phase | Refusal:
    """Return the phase that follows, or why the event is refused.

    Raises:
        ImpossibleEventError: It cannot happen in this phase.
    """
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise ImpossibleEventError(f"{event.name} cannot happen while the session is {phase.name}") from None
