"""What a kernel runs, and what waits behind it: one execution at a time. [pure]

The next execution is released by the end of the active one, and its sign is the kernel's ``idle``. An idle releases
if it is the active request's own, or if the ``execute_reply`` has come already, whoever's it is. Where no idle follows
the reply, time releases: the kernel has said that it is done. Nothing else does: the idle of another request says
nothing about the execution, and would send a second one to a kernel that still runs the first.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import attrs

from kallichore.conversation.activity import GRACE

M = TypeVar("M")


@attrs.define
class ExecutionQueue(Generic[M]):
    """Executions of one session, opaque but for their ``msg_id``."""

    active_since: float | None = attrs.field(default=None, init=False)
    """Since when the kernel has the active execution, in seconds of the caller's clock."""
    _active: tuple[str, M] | None = attrs.field(default=None, init=False)
    _replied: float | None = attrs.field(default=None, init=False)
    """When the reply to it came."""
    _pending: deque[tuple[str, M]] = attrs.field(factory=deque, init=False)

    def __len__(self) -> int:
        """Return how many wait; the active one does not count."""
        return len(self._pending)

    @property
    def active(self) -> M | None:
        """The execution that the kernel has, or None."""
        return None if self._active is None else self._active[1]

    @property
    def active_id(self) -> str | None:
        """Its ``msg_id``."""
        return None if self._active is None else self._active[0]

    @property
    def pending(self) -> tuple[M, ...]:
        """The executions that wait, first to run first."""
        return tuple(message for _, message in self._pending)

    @property
    def look_at(self) -> float | None:
        """When to call `expire`; None if nothing will be due."""
        return None if self._replied is None else self._replied + GRACE

    def submit(self, msg_id: str, message: M, now: float) -> bool:
        """Add an execution; True if it is to be sent now, False if it waits."""
        if self._active is not None:
            self._pending.append((msg_id, message))
            return False
        self._activate((msg_id, message), now)
        return True

    def on_idle(self, parent_id: str, now: float) -> M | None:
        """Take in an idle of the kernel's main shell; return the execution that it releases, to be sent now."""
        if self._active is None or (parent_id != self._active[0] and self._replied is None):
            return None
        return self._release(now)

    def on_reply(self, parent_id: str, now: float) -> bool:
        """Take in an ``execute_reply``; True if it is the active execution's: from now on any idle releases."""
        if self._active is None or parent_id != self._active[0]:
            return False
        if self._replied is None:
            self._replied = now
        return True

    def expire(self, now: float) -> M | None:
        """Return the execution that is released because no idle followed the active one's reply, to be sent now."""
        due = self.look_at
        return None if due is None or now < due else self._release(now)

    def _release(self, now: float) -> M | None:
        self._activate(self._pending.popleft() if self._pending else None, now)
        return self.active

    def withdraw(self, msg_id: str) -> M | None:
        """Take an execution that waits out of the queue and return it; None if there is none with this id."""
        for item in self._pending:
            if item[0] == msg_id:
                self._pending.remove(item)
                return item[1]
        return None

    def clear_pending(self) -> tuple[M, ...]:
        """Forget the executions that wait, and return them; the active one still runs and stays."""
        dropped = self.pending
        self._pending.clear()
        return dropped

    def clear(self) -> tuple[M, ...]:
        """Forget everything, since the kernel has ended; return the executions that waited."""
        self._activate(None, 0.0)
        return self.clear_pending()

    def _activate(self, item: tuple[str, M] | None, now: float) -> None:
        self._active = item
        self.active_since = None if item is None else now
        self._replied = None
