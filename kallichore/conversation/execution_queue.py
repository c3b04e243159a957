"""What a kernel runs, and what waits behind it: one execution at a time. [pure]

The next execution is released by the end of the active one, which has two signs: its ``execute_reply``, which also
says whether the next is to run at all, and the kernel's ``idle``. They come over two sockets, in either order. An idle
counts if it is the active request's own, or if the reply has come already, whoever's it is. Where one of the two comes
alone, time releases. The idle of another request says nothing about the execution, and would send a second one to a
kernel that still runs the first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs
import msgspec

from kallichore.conversation.activity import GRACE, moved
from kallichore.conversation.runs import Runs, numbers_in, runs_of

M = TypeVar("M")


class SavedQueue(msgspec.Struct, omit_defaults=True):
    """An execution queue as JSON; executions are told by numbers that whoever saves it gives."""

    active: int | None = None
    active_id: str | None = None
    active_since: float | None = None
    replied: bool = False
    idled: bool = False
    half_over: float | None = None
    pending: Runs = ()


@attrs.define
class ExecutionQueue(Generic[M]):
    """Executions of one session, opaque but for their ``msg_id``."""

    active_id: str | None = attrs.field(default=None, init=False)
    """The ``msg_id`` of the execution that the kernel has, or None."""
    active_since: float | None = attrs.field(default=None, init=False)
    """Since when the kernel has the active execution, in seconds of the caller's clock."""
    changes: int = attrs.field(default=0, init=False)
    """How often it may have changed: who saves it need not look at all of it."""
    _active: tuple[str, M] | None = attrs.field(default=None, init=False)
    _replied: bool = attrs.field(default=False, init=False)
    _idled: bool = attrs.field(default=False, init=False)
    _half_over: float | None = attrs.field(default=None, init=False)
    """When the first of the two signs of its end came."""
    _pending: deque[tuple[str, M]] = attrs.field(factory=deque, init=False)

    def __len__(self) -> int:
        """Return how many wait; the active one does not count."""
        return len(self._pending)

    @property
    def active(self) -> M | None:
        """The execution that the kernel has, or None."""
        return None if self._active is None else self._active[1]

    @property
    def is_replied(self) -> bool:
        """Whether the active execution has its reply."""
        return self._replied

    @property
    def pending(self) -> tuple[M, ...]:
        """The executions that wait, first to run first."""
        return tuple(message for _, message in self._pending)

    @property
    def look_at(self) -> float | None:
        """When to call `proceed` again at the latest; None if nothing will be due."""
        return None if self._half_over is None else self._half_over + GRACE

    def submit(self, msg_id: str, message: M, now: float) -> bool:
        """Add an execution; True if it is to be sent now, False if it waits."""
        if self._active is not None:
            self._pending.append((msg_id, message))
            self.changes += 1
            return False
        self._activate((msg_id, message), now)
        return True

    def on_idle(self, parent_id: str, now: float) -> None:
        """Take in an idle of the kernel's main shell."""
        if self._active is not None and (parent_id == self.active_id or self._replied):
            self._idled = True
            self._note_sign(now)

    def on_reply(self, parent_id: str, now: float) -> bool:
        """Take in an ``execute_reply``; True if it is the active execution's."""
        if self._active is None or parent_id != self.active_id:
            return False
        self._replied = True
        self._note_sign(now)
        return True

    def _note_sign(self, now: float) -> None:
        self.changes += 1
        if self._half_over is None:
            self._half_over = now

    def proceed(self, now: float) -> M | None:
        """Return the execution that is released by now, to be sent to the kernel; None if there is none."""
        if self._half_over is None or not ((self._replied and self._idled) or now >= self._half_over + GRACE):
            return None
        return self._release(now)

    def _release(self, now: float) -> M | None:
        self._activate(self._pending.popleft() if self._pending else None, now)
        return self.active

    def withdraw(self, msg_id: str) -> M | None:
        """Take an execution that waits out of the queue and return it; None if there is none with this id."""
        for item in self._pending:
            if item[0] == msg_id:
                self._pending.remove(item)
                self.changes += 1
                return item[1]
        return None

    def clear_pending(self) -> tuple[M, ...]:
        """Forget the executions that wait, and return them; the active one still runs and stays."""
        dropped = self.pending
        self._pending.clear()
        self.changes += 1
        return dropped

    def clear(self) -> tuple[M, ...]:
        """Forget everything, since the kernel has ended; return the executions that waited."""
        self._activate(None, 0.0)
        return self.clear_pending()

    def _activate(self, item: tuple[str, M] | None, now: float) -> None:
        self.changes += 1
        self._active = item
        self.active_id = None if item is None else item[0]
        self.active_since = None if item is None else now
        self._replied = self._idled = False
        self._half_over = None

    # For another process

    def save(self, number_of: Callable[[M], int]) -> SavedQueue:
        """Return what it is, for `load`.

        Args:
            number_of: Gives an execution the number that it is told by.
        """
        return SavedQueue(
            None if self._active is None else number_of(self._active[1]),
            self.active_id,
            self.active_since,
            self._replied,
            self._idled,
            self._half_over,
            runs_of([number_of(message) for _, message in self._pending]),
        )

    def load(self, saved: SavedQueue, find: Callable[[int], tuple[str, M] | None], lost: M, shift: float) -> int:
        """Become what was saved, and return how many executions that waited are lost.

        Args:
            saved: What `save` returned.
            find: Returns an execution and its ``msg_id``, by its number; None for one that is lost.
            lost: Takes the place of the active execution if that is lost: the kernel has it all the same.
            shift: Seconds by which times move.
        """
        found = [find(number) for number in numbers_in(saved.pending)]
        self._pending = deque(item for item in found if item is not None)
        if saved.active_id is not None:
            active = None if saved.active is None else find(saved.active)
            self._active = active or (saved.active_id, lost)
        self.active_id, self.active_since = saved.active_id, moved(saved.active_since, shift)
        self._replied, self._idled = saved.replied, saved.idled
        self._half_over = moved(saved.half_over, shift)
        self.changes += 1
        return len(found) - len(self._pending)
