"""What a session's kernel is doing: seven statuses, eight events, one table. [pure]

The kernel's own word counts: ``busy`` and ``idle`` are what it last published. Around that stand the facts that it
cannot publish: that it was asked to start, that it fell silent, that it is gone. Once it is gone, whatever still
arrives from it changes nothing; only a new start does.

``offline`` covers a status, it does not replace it: when the heartbeat is back, what was true before is true again,
unless the kernel has said otherwise meanwhile (saying anything ends ``offline`` too).
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from operator import attrgetter
from typing import Any, NamedTuple

import attrs
import msgspec

from kallichore.conversation.activity import moved
from kallichore.models.bodies import Status


class StatusEvent(IntEnum):
    """What can happen to a status. Numbers, as these have a hash that takes no call."""

    START_REQUESTED = auto()
    ADOPTION_REQUESTED = auto()
    KERNEL_BUSY = auto()
    KERNEL_IDLE = auto()
    START_SUCCEEDED = auto()
    """The kernel answered kernel_info; where its own idle was not seen, this ends ``starting``."""
    HEARTBEAT_LOST = auto()
    HEARTBEAT_BACK = auto()
    EXITED = auto()


class _Back(Enum):
    """The way back from ``offline``: to the status that it covers."""

    COVERED = auto()


_S, _E = Status, StatusEvent

_RUNNING = (_S.STARTING, _S.READY, _S.IDLE, _S.BUSY, _S.OFFLINE)
_GONE = (_S.UNINITIALIZED, _S.EXITED)

TRANSITIONS: dict[tuple[Status, StatusEvent], Status | _Back] = {
    **{(status, _E.START_REQUESTED): _S.STARTING for status in _GONE},
    # An adopted kernel is on its way like a started one, except that no client is told so.
    **{(status, _E.ADOPTION_REQUESTED): _S.STARTING for status in _GONE},
    **{(status, _E.KERNEL_BUSY): _S.BUSY for status in _RUNNING},
    **{(status, _E.KERNEL_IDLE): _S.IDLE for status in _RUNNING},
    **{(status, _E.START_SUCCEEDED): status for status in _RUNNING},
    (_S.STARTING, _E.START_SUCCEEDED): _S.IDLE,
    # It answered, so it is not silent; and what `offline` covers may be `starting`, which nothing else would end.
    (_S.OFFLINE, _E.START_SUCCEEDED): _S.IDLE,
    **{(status, _E.HEARTBEAT_LOST): _S.OFFLINE for status in _RUNNING},
    **{(status, _E.HEARTBEAT_BACK): status for status in _RUNNING},
    (_S.OFFLINE, _E.HEARTBEAT_BACK): _Back.COVERED,
    **{(status, _E.EXITED): _S.EXITED for status in Status},
    # The last words of a kernel that is gone.
    **{
        (status, event): status
        for status in _GONE
        for event in (_E.KERNEL_BUSY, _E.KERNEL_IDLE, _E.START_SUCCEEDED, _E.HEARTBEAT_LOST, _E.HEARTBEAT_BACK)
    },
}
"""Where each event leads from each status. What is missing cannot happen."""


class IllegalTransitionError(RuntimeError):
    """An event that cannot happen in this status: a bug of ours."""


class StatusChange(NamedTuple):
    """A status that became another."""

    before: Status
    after: Status
    reason: str | None


class SavedStatus(msgspec.Struct, omit_defaults=True):
    """A session's status as JSON."""

    idle_since: float | None = None
    current: Status = Status.UNINITIALIZED
    reason: str | None = None
    since: float = 0.0
    covered: Status = Status.IDLE


@attrs.define
class SessionStatus:
    """A session's status and since when.

    Args:
        created: When the session was created, in seconds of the caller's clock.
    """

    idle_since: float | None = attrs.field(alias="created")
    """Since when the kernel is idle or gone; None while it starts, runs or is offline."""
    current: Status = attrs.field(default=Status.UNINITIALIZED, init=False)
    reason: str | None = attrs.field(default=None, init=False)
    since: float = attrs.field(init=False)
    """Since when the status is what it is."""
    _covered: Status = attrs.field(default=Status.IDLE, init=False)

    def __attrs_post_init__(self) -> None:
        self.since = self.idle_since or 0.0

    def apply(self, event: StatusEvent, reason: str | None, now: float) -> StatusChange | None:
        """Take in an event; return what it changed, or None if it changed nothing.

        Raises:
            IllegalTransitionError: It cannot happen in this status.
        """
        before = self.current
        try:
            target = TRANSITIONS[before, event]
        except KeyError:
            raise IllegalTransitionError(f"{event.name} cannot happen while the status is {before.value}") from None
        after = self._covered if isinstance(target, _Back) else target
        if after is before:
            return None
        if after is Status.OFFLINE:
            self._covered = before
        self.current, self.reason, self.since = after, reason, now
        self.idle_since = now if after in (Status.IDLE, Status.READY, Status.EXITED) else None
        return StatusChange(before, after, reason)

    def idle_seconds(self, now: float) -> int:
        """Return whole seconds since the kernel became idle or exited, or the session was created; else 0."""
        return 0 if self.idle_since is None else int(now - self.idle_since)

    # For another process

    def marks(self) -> tuple[Any, ...]:
        """Return what is equal as long as `save` returns the same, and takes less time."""
        return _members_of(self)

    def save(self) -> SavedStatus:
        """Return what it is, for `load`."""
        return SavedStatus(*_members_of(self))

    def load(self, saved: SavedStatus, shift: float) -> None:
        """Become what was saved, without a word to anybody; times move by ``shift`` seconds."""
        self.idle_since, self.since = moved(saved.idle_since, shift), saved.since + shift
        self.current, self.reason, self._covered = saved.current, saved.reason, saved.covered


_members_of = attrgetter("idle_since", "current", "reason", "since", "_covered")
"""Returns the members of a `SavedStatus`."""
