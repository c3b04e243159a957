"""What goes out to a client: made into frames, with pings among them, and given as far as it got.

No socket is known here. `kallichore.attach.websocket` sends the pieces and says how many bytes went out; from that
follows which messages did so whole.
"""

from __future__ import annotations

from collections import deque
from math import inf

import attrs

from kallichore.attach.dialect import Dialect
from kallichore.attach.frames import join_small
from kallichore.attach.pings import Pings
from kallichore.conversation.journal import Batch
from kallichore.session.clients import ClientSlot


@attrs.define(eq=False)
class Outgoing:
    """One client's frames on their way out.

    Args:
        slot: The client's place at the session.
        pings: Those to this client.
        dialect: How it is spoken to.

    Attributes:
        control: Control frames that are to be sent next.
        pieces: What is ready and did not go out yet.
    """

    slot: ClientSlot
    pings: Pings
    dialect: Dialect
    control: list[bytes] = attrs.field(factory=list, init=False)
    pieces: deque[memoryview] = attrs.field(factory=deque, init=False)
    _parts: list[bytes] = attrs.field(factory=list, init=False)
    """The frames that are being sent, and among them the heads and payloads of a batch."""
    _batch: Batch | None = attrs.field(default=None, init=False)
    _pings_among: set[int] = attrs.field(factory=set, init=False)
    """Which of the parts are pings."""

    @property
    def unsent(self) -> int:
        """How many bytes did not go out yet. Where these begin in the middle of a frame, no other can follow."""
        return sum(map(len, self.pieces))

    def take_next(self, now: float) -> bool:
        """Make ready what is to be sent next: control frames and a batch. False if there is nothing.

        Args:
            now: The time in seconds.
        """
        batch, pings = self.slot.take_nowait(), self.pings
        if self.slot.live:
            self.control += filter(None, map(self.dialect.live, self.slot.take_live()))
        if pings.is_wanted or (batch is not None and pings.is_due(now)):
            self.control.append(pings.make(self.slot.delivery.given, now))
        if batch is None and not self.control:
            return False
        parts, self.control = self.control, []
        self._pings_among.clear()
        if batch is not None:
            if batch.missed:
                parts.append(self.dialect.lost(batch.missed))
            if batch.is_ahead:
                parts.append(b"".join(self.dialect.frames(batch)))
                batch = None
            else:
                self._add_frames(parts, batch, now)
        self._parts, self._batch = parts, batch
        pings.sent_at = inf
        pieces = join_small(parts)
        pings.unpinged_bytes += sum(map(len, pieces))
        self.pieces.extend(map(memoryview, pieces))
        return True

    def _add_frames(self, parts: list[bytes], batch: Batch, now: float) -> None:
        """Add the frames of a batch, with pings among them, but none at the end."""
        frames = self.dialect.frames(batch)
        count, pings = len(batch.payloads), self.pings
        first = batch.next_position - count
        done = 0
        while done < count:
            room = pings.room(first + done)
            if not room:
                self._pings_among.add(len(parts))
                parts.append(pings.make(first + done, now))
                room = pings.room(first + done)
            until = min(count, done + room)
            parts += frames[2 * done : 2 * until]
            pings.unpinged += until - done
            done = until

    def went_out(self, count: int) -> None:
        """Note that so many bytes of the first piece went out."""
        piece = self.pieces[0]
        if count < len(piece):
            self.pieces[0] = piece[count:]
        else:
            self.pieces.popleft()

    def settle(self, now: float) -> None:
        """Note that nothing more of this goes out: messages that did so whole count as given, and no others."""
        self.pings.sent_at = now
        if self._batch is None:
            return
        batch, self._batch = self._batch, None
        unsent = 0
        if self.pieces:
            unsent = _count_unsent(self._parts, self._pings_among, self.unsent, len(batch.payloads))
        self.slot.delivery.give(batch.next_position - unsent)


def _count_unsent(parts: list[bytes], pings: set[int], unsent: int, most: int) -> int:
    """Return how many of the last messages, at most ``most``, did not go out whole if ``unsent`` bytes did not.

    Args:
        parts: What was to go out; the last parts are the heads and payloads of these messages, in turn, with pings
            among them.
        pings: The indices of the pings.
        unsent: How many bytes at the end of all that did not go out.
        most: How many messages there are.
    """
    count, index = 0, len(parts)
    while unsent > 0 and count < most:
        index -= 1
        unsent -= len(parts[index])
        if index not in pings:
            index -= 1
            unsent -= len(parts[index])
            count += 1
    return count
