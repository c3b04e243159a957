"""What a kernel runs, and what waits behind it: one execution at a time. [pure]

The next execution is released by the end of the active one, and its sign is the kernel's ``idle``. An idle releases
if it is the active request's own, if it does not say whose it is, or if the ``execute_reply`` has come already,
whoever's it is. Nothing else releases: the idle of a control request, such as an interrupt, says nothing about the
execution, and would send a second one to a kernel that still runs the first.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import attrs

M = TypeVar("M")


@attrs.define
class ExecutionQueue(Generic[M]):
    """Executions of one session, opaque but for their ``msg_id``."""

    _active: tuple[str, M] | None = attrs.field(default=None, init=False)
    _replied: bool = attrs.field(default=False, init=False)
    _pending: deque[tuple[str, M]] = attrs.field(factory=deque, init=False)

    def __len__(self) -> int:
        """Return how many wait; the active one does not count."""
        return len(self._pending)

    @property
    def active(self) -> M | None:
        """The execution that the kernel has, or None."""
        return None if self._active is None else self._active[1]

    @property
    def pending(self) -> tuple[M, ...]:
        """The executions that wait, first to run first."""
        return tuple(message for _, message in self._pending)

    def submit(self, msg_id: str, message: M) -> bool:
        """Add an execution; True if it is to be sent now, False if it waits."""
        if self._active is not None:
            self._pending.append((msg_id, message))
            return False
        self._activate((msg_id, message))
        return True

    def on_idle(self, parent_id: str | None) -> tuple[str, M] | None:
        """Take in an idle of the kernel; return the execution that it releases, to be sent now.

        Args:
            parent_id: The ``msg_id`` of the request that the kernel is done with; None where it did not say.
        """
        if self._active is None:
            return None
        if parent_id is not None and parent_id != self._active[0] and not self._replied:
            return None
        self._activate(self._pending.popleft() if self._pending else None)
        return self._active

    def on_reply(self, parent_id: str | None) -> None:
        """Take in an ``execute_reply``: the next idle releases, whoever's it is."""
        if self._active is not None and parent_id == self._active[0]:
            self._replied = True

    def withdraw(self, msg_id: str) -> bool:
        """Take an execution that waits out of the queue; False if there is none with this id."""
        for item in self._pending:
            if item[0] == msg_id:
                self._pending.remove(item)
                return True
        return False

    def clear_pending(self) -> tuple[M, ...]:
        """Forget the executions that wait, and return them; the active one still runs and stays."""
        dropped = self.pending
        self._pending.clear()
        return dropped

    def clear(self) -> tuple[M, ...]:
        """Forget everything, since the kernel ends; return the executions that waited."""
        self._activate(None)
        return self.clear_pending()

    def _activate(self, item: tuple[str, M] | None) -> None:
        self._active = item
        self._replied = False
