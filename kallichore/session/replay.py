"""The journal: what a session has to tell its client, numbered, until it is delivered. [pure]

Messages that nobody takes wait here: in memory up to a limit, the older ones beyond it in an overflow (a file, see
`kallichore.session.overflow_file`), and when that is full too the oldest are dropped. Who reads on from a number that
is no longer there is told how many are missing: an honest gap, never a silent one.

Appending is on the path of every message, so it is a few additions around ``deque.append``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import attrs


class Overflow(Protocol):
    """Where a journal's older messages go: a queue of bytes, first in, first out."""

    @property
    def size(self) -> int:
        """How many bytes of messages it holds."""

    def push(self, payload: bytes) -> bool:
        """Add a message at the end; False if it could not be kept (no space)."""

    def read(self, skip: int, count: int, max_bytes: int) -> list[bytes]:
        """Return up to ``count`` messages behind the first ``skip``, at least one, about ``max_bytes`` in all."""

    def drop(self, count: int) -> None:
        """Forget the first ``count`` messages."""


class Batch(NamedTuple):
    """Messages to be delivered together."""

    payloads: Sequence[bytes]
    next_position: int
    """Where to read on, and up to where to release once they are delivered."""
    missed: int
    """How many messages between the position that was asked for and the first of these were dropped."""


@attrs.define
class Journal:
    """A bounded log of numbered messages; the first ever is number 0.

    Args:
        memory_limit: Bytes of messages in memory.
        file_limit: Bytes of messages in the overflow.
        overflow: Where older messages go.
    """

    memory_limit: int
    file_limit: int
    overflow: Overflow
    end: int = attrs.field(default=0, init=False)
    """The number that the next message will have."""
    memory_bytes: int = attrs.field(default=0, init=False)
    released: int = attrs.field(default=0, init=False)
    """Up to where messages were delivered."""
    dropped: int = attrs.field(default=0, init=False)
    """How many messages were dropped undelivered in all."""
    _memory: deque[bytes] = attrs.field(factory=deque, init=False)
    _overflowed: int = attrs.field(default=0, init=False)

    @property
    def first(self) -> int:
        """The number of the oldest message that is still there; `end` if there is none."""
        return self.end - len(self._memory) - self._overflowed

    @property
    def has_undelivered(self) -> bool:
        """Whether there is anything to deliver, a gap included."""
        return self.released < self.end

    def append(self, payload: bytes) -> int:
        """Add a message and return its number."""
        self._memory.append(payload)
        self.memory_bytes += len(payload)
        self.end += 1
        if self.memory_bytes > self.memory_limit:
            self._make_room()
        return self.end - 1

    def _make_room(self) -> None:
        """Move the oldest messages out of memory until it is within its limit."""
        while self.memory_bytes > self.memory_limit and self._memory:
            payload = self._memory.popleft()
            self.memory_bytes -= len(payload)
            while self._overflowed and self.overflow.size + len(payload) > self.file_limit:
                self.overflow.drop(1)
                self._overflowed -= 1
                self.dropped += 1
            if len(payload) <= self.file_limit and self.overflow.push(payload):
                self._overflowed += 1
            else:
                # What cannot be kept leaves a gap, and a gap has to be at the front: all that is older goes too.
                self.overflow.drop(self._overflowed)
                self.dropped += self._overflowed + 1
                self._overflowed = 0

    def read(self, position: int, max_bytes: int, max_messages: int) -> Batch:
        """Return messages from number ``position`` on: at least one if there is any, and about ``max_bytes`` in all."""
        start = max(position, self.first)
        skip = start - self.first
        if skip < self._overflowed:
            payloads = self.overflow.read(skip, min(max_messages, self._overflowed - skip), max_bytes)
        else:
            payloads = []
            size = 0
            for payload in islice(self._memory, skip - self._overflowed, skip - self._overflowed + max_messages):
                if payloads and size + len(payload) > max_bytes:
                    break
                payloads.append(payload)
                size += len(payload)
        return Batch(payloads, start + len(payloads), start - position)

    def release(self, position: int) -> None:
        """Forget the messages before number ``position``: they are delivered."""
        count = position - self.first
        from_overflow = min(count, self._overflowed)
        if from_overflow > 0:
            self.overflow.drop(from_overflow)
            self._overflowed -= from_overflow
        for _ in range(count - max(from_overflow, 0)):
            self.memory_bytes -= len(self._memory.popleft())
        self.released = max(self.released, position)
