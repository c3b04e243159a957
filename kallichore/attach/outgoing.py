"""What goes out to a client: made into frames, counted as it goes, and delivered as far as it got.

No socket is known here. `kallichore.attach.websocket` sends the pieces and says how many bytes went out; from that
follows which messages did so whole, and in the end which of them have to be sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import attrs

from kallichore.attach.frames import TEXT, head, join_small, text_frame, text_frames
from kallichore.attach.pings import Pings
from kallichore.conversation.journal import Batch
from kallichore.session.clients import ClientSlot
from kallichore.wire.client_messages import kernel_message

MOST_MARKS = 4096
"""Batches that are remembered until they are acknowledged; the buffers of a connection hold fewer."""


class _Mark(NamedTuple):
    """Where a batch ended among the bytes that were sent, and the numbers of its messages: the first, and behind the
    last.
    """

    end: int
    first: int
    behind: int


@attrs.define(eq=False)
class Outgoing:
    """One client's frames on their way out.

    Args:
        slot: The client's place at the session.

    Attributes:
        pings: Those among the messages.
        control: Control frames that are to be sent next.
        wants_ping: Whether a ping is to be sent next, however few messages went before it.
        pieces: What is ready and did not go out yet.
        sent: Bytes that went out in all.
    """

    slot: ClientSlot
    pings: Pings = attrs.field(init=False)
    control: list[bytes] = attrs.field(factory=list, init=False)
    wants_ping: bool = attrs.field(default=False, init=False)
    pieces: deque[memoryview] = attrs.field(factory=deque, init=False)
    sent: int = attrs.field(default=0, init=False)
    _parts: list[bytes] = attrs.field(factory=list, init=False)
    """The frames that are being sent, and among them the heads and payloads of a batch."""
    _batch: Batch | None = attrs.field(default=None, init=False)
    _pings_among: set[int] = attrs.field(factory=set, init=False)
    """Which of the parts are pings."""
    _marks: deque[_Mark] = attrs.field(factory=lambda: deque(maxlen=MOST_MARKS), init=False)
    """Where the latest batches ended."""

    def __attrs_post_init__(self) -> None:
        self.pings = Pings(self.slot.is_numbered)

    @property
    def unsent(self) -> int:
        """How many bytes did not go out yet. Where these begin in the middle of a frame, no other can follow."""
        return sum(map(len, self.pieces))

    def take_next(self) -> bool:
        """Make ready what is to be sent next: control frames and a batch. False if there is nothing."""
        batch = self.slot.take_nowait()
        self.control += map(text_frame, self.slot.take_live())
        if self.wants_ping:
            self.wants_ping = False
            self.control.append(self.pings.make(self.slot.position))
        if batch is None and not self.control:
            return False
        parts, self.control = self.control, []
        self._pings_among.clear()
        if batch is not None:
            if batch.missed:
                parts.append(text_frame(kernel_message("messagesLost", batch.missed)))
            if batch.is_ahead:
                parts.append(b"".join(text_frames(batch.payloads)))
                batch = None
            else:
                self._add_frames(parts, batch)
        self._parts, self._batch = parts, batch
        self.pings.unpinged_bytes += sum(map(len, parts))
        self.pieces.extend(map(memoryview, join_small(parts)))
        return True

    def _add_frames(self, parts: list[bytes], batch: Batch) -> None:
        """Add the frames of a batch, with pings among them.

        None at the end: some clients close when they have what they want, and stumble over a ping meanwhile.
        """
        frames = text_frames(_numbered(batch) if self.slot.is_numbered else batch.payloads)
        count, pings = len(batch.payloads), self.pings
        first = batch.next_position - count
        done = 0
        while done < count:
            room = pings.room(first + done)
            if not room:
                self._pings_among.add(len(parts))
                parts.append(pings.make(first + done))
                room = pings.room(first + done)
            until = min(count, done + room)
            parts += frames[2 * done : 2 * until]
            pings.unpinged += until - done
            done = until

    def went_out(self, count: int) -> None:
        """Note that so many bytes of the first piece went out."""
        self.sent += count
        piece = self.pieces[0]
        if count < len(piece):
            self.pieces[0] = piece[count:]
        else:
            self.pieces.popleft()

    def settle(self) -> None:
        """The messages that went out whole count as delivered, and no others."""
        if self._batch is None:
            return
        batch, self._batch = self._batch, None
        unsent, begun = _count_unsent(self._parts, self._pings_among, self.unsent, len(batch.payloads))
        behind = batch.next_position - unsent
        self._marks.append(_Mark(self.sent - begun, batch.next_position - len(batch.payloads), behind))
        self.slot.delivered(behind)
        if not self.pings.are_answered and not self.slot.is_numbered:
            # It may be one that never answers, and then nobody knows better.
            self.slot.confirm(behind)

    def take_pong(self, payload: bytes) -> None:
        """Take in an answer to a ping: what went before that has arrived."""
        confirmed = self.pings.answer(payload)
        if confirmed is not None:
            self.slot.confirm(confirmed)

    def take_back(self, unacknowledged: int) -> None:
        """Count as undelivered what went out, but did not reach the client before the connection ended.

        That is what no answered ping followed; the client may have a part of it, and one that goes by the numbers asks
        for the rest. Another that answers no pings loses what its machine acknowledged and it did not read.

        Args:
            unacknowledged: How many of the bytes that went out the client's machine did not acknowledge.
        """
        if self.pings.are_answered or self.slot.is_numbered:
            self.slot.delivered(self.slot.confirmed)
            return
        acknowledged = self.sent - unacknowledged
        position = self.slot.position
        while self._marks and self._marks[-1].end > acknowledged:
            end, first, position = self._marks.pop()
            for payload in reversed(self.slot.journal.read(first, 1 << 62, position - first).payloads):
                if end <= acknowledged:
                    break
                position -= 1
                if not self.slot.was_ahead(position):
                    end -= len(head(TEXT, len(payload))) + len(payload)
        self.slot.delivered(position)


def _numbered(batch: Batch) -> Iterator[bytes]:
    """Return the messages of a batch with their numbers, counted from 1, as their last member ``seq``."""
    first = batch.next_position - len(batch.payloads) + 1
    return (b'%s,"seq":%d}' % (payload[:-1], number) for number, payload in enumerate(batch.payloads, first))


def _count_unsent(parts: list[bytes], pings: set[int], unsent: int, most: int) -> tuple[int, int]:
    """Return how many of the last messages, at most ``most``, did not go out whole if ``unsent`` bytes did not, and how
    many bytes of the first of these did.

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
    return count, max(0, -unsent)
