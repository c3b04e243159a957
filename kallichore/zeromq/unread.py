"""Bytes that a connection brought and that nobody has looked at yet. [pure]

What a kernel has sent and nobody reads fills the connection's buffers, then the kernel's own queue, and then it is
lost. So a reader takes what is there first, and looks into it later, a piece at a time. How much may wait is one amount
for all connections of a session.
"""

from __future__ import annotations

from collections import deque

import attrs

PIECE = 1 << 16
"""Bytes that are looked at in one go: some hundred messages, few enough that other tasks get their turn within
milliseconds."""


@attrs.define(eq=False)
class Budget:
    """How many bytes may wait, and how many do, over some queues.

    Args:
        limit: Bytes at which its queues stop growing.
    """

    limit: int
    used: int = 0


class UnreadBytes:
    """A queue of bytes: in as they came, out in pieces of up to `PIECE`.

    Args:
        budget: What it shares with others.

    Attributes:
        pieces: What waits, to be looked at only: it is asked for each message, and a method's call takes longer.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.pieces: deque[bytes] = deque()

    @property
    def has_room(self) -> bool:
        """Whether more may be put in. An empty queue always has room: nobody waits for what others have to do."""
        return not self.pieces or self._budget.used < self._budget.limit

    def put(self, data: bytes) -> None:
        """Add what came, at most `PIECE` bytes."""
        self.pieces.append(data)
        self._budget.used += len(data)

    def take(self) -> bytes:
        """Return what came first, with what follows it as far as that is one piece; the queue must not be empty.

        What came in driblets is so looked at in one go.
        """
        pieces = self.pieces
        data = pieces.popleft()
        if pieces and len(data) + len(pieces[0]) <= PIECE:
            together, size = [data], len(data)
            while pieces and size + len(pieces[0]) <= PIECE:
                size += len(pieces[0])
                together.append(pieces.popleft())
            data = b"".join(together)
        self._budget.used -= len(data)
        return data

    def clear(self) -> None:
        """Forget what waits."""
        self._budget.used -= sum(map(len, self.pieces))
        self.pieces.clear()
