"""The pings among a client's messages: where they stand, and what an answer confirms. [pure]

A client's machine acknowledges what the client itself may never read, but a WebSocket's other end answers a ping only
when it has read up to there (RFC 6455, section 5.5.3). So an answer says that all that went before it has arrived.
"""

from __future__ import annotations

from collections import deque
from struct import pack, unpack

import attrs

from kallichore.attach.frames import PING, control_frame

SHARE, MOST = 8, 64
"""A ping follows as many messages as are an eighth of what this client was sent, at least each and at most 64. What is
between the last answered one and a cut is sent again, perhaps twice. So one that has just come is pinged often, and one
that has been there for long rarely, as each answer wakes its reader."""

NUMBERED = 512
"""The same for a client that goes by the numbers: it says itself what it has, and its answers only free memory."""

MOST_BYTES = 1 << 20
"""Bytes of messages that a ping follows, however few these are: until one is answered the journal keeps them, and what
is beyond its memory is written to a file. Messages of 10 MB took twice as long for it."""

MOST_OPEN = 4096
"""Pings that are remembered until they are answered; the buffers of a connection hold fewer."""


@attrs.define
class Pings:
    """The pings of one client.

    Args:
        is_numbered: Whether it goes by the numbers.
    """

    is_numbered: bool
    began: int = attrs.field(default=0, init=False)
    """The number of the first message for this client."""
    is_heard: bool = attrs.field(default=True, init=False)
    """Whether one was answered since somebody set this to False."""
    unpinged: int = attrs.field(default=0, init=False)
    """Messages that went out since the last ping."""
    unpinged_bytes: int = attrs.field(default=0, init=False)
    """How many bytes that is."""
    _sent: int = attrs.field(default=0, init=False)
    _answered: int = attrs.field(default=0, init=False)
    _open: deque[tuple[int, int]] = attrs.field(factory=lambda: deque(maxlen=MOST_OPEN), init=False)
    """Of the pings that were not answered yet, their numbers and those of the messages that followed them."""

    @property
    def are_answered(self) -> bool:
        """Whether this client answers pings at all."""
        return self._answered > 0

    @property
    def is_behind(self) -> bool:
        """Whether a client that answers pings has not answered the latest."""
        return bool(self._open) and self.are_answered

    def room(self, position: int) -> int:
        """Return how many messages from number ``position`` on may follow before the next ping; 0 if it is due."""
        if self.unpinged_bytes >= MOST_BYTES:
            return 0
        interval = NUMBERED if self.is_numbered else min(MOST, max(1, (position - self.began) // SHARE))
        return max(0, interval - self.unpinged)

    def make(self, behind: int) -> bytes:
        """Return the frame of a ping that goes out behind the messages before number ``behind``."""
        self._sent += 1
        self.unpinged = self.unpinged_bytes = 0
        self._open.append((self._sent, behind))
        return control_frame(PING, pack("!Q", self._sent))

    def answer(self, payload: bytes) -> int | None:
        """Take an answer's payload; return before which number all has arrived, or None if that is no news."""
        if len(payload) != 8:
            return None
        (number,) = unpack("!Q", payload)
        if not self._answered < number <= self._sent:
            return None
        self._answered, self.is_heard = number, True
        confirmed = None
        while self._open and self._open[0][0] <= number:
            confirmed = self._open.popleft()[1]
        return confirmed
