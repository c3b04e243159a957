"""The pings to a client: when they go, and where they stand among its messages. [pure]

An answer to a ping says that the client has what went before it (see `kallichore.conversation.delivery`). It costs both
sides something. So one ping is under way at a time, but for those that stand among many messages.

No ping is the last thing of a batch. Who has what it wanted closes at once; a ping that came with that would not
be answered any more, and some clients stumble over it (trio-websocket does). So a ping goes in front of the next batch,
or alone, when nothing has followed for a moment.
"""

from __future__ import annotations

from math import inf
from struct import pack, unpack

import attrs

from kallichore.attach.frames import PING, control_frame
from kallichore.conversation.delivery import Deliveries, Delivery
from kallichore.conversation.ticks import tick_after

PAUSE = 0.02
"""Seconds between a ping and the next that goes in front of messages: long beside a small execution, so that it costs
these nothing, and short enough that little of steady output comes twice after a cut."""

QUIET = 0.01
"""Seconds for which nothing has followed where a ping goes alone: long enough for one who closes to have done so."""

SHARE, MOST = 8, 64
"""Among many messages a ping follows as many as are an eighth of what this client was given, and 64 at most. What is
between the last answered one and a cut is sent again. So one that has just come is pinged more often (see
`kallichore.conversation.delivery.FIRST_DISTANCE`) than one that has been there for long."""

NUMBERED = 512
"""The same for a client that goes by the numbers: it says itself what it has, and its answers only free memory."""

MOST_BYTES = 1 << 20
"""Bytes of messages that a ping follows, however few these are: until one is answered the journal keeps them, and what
is beyond its memory is written to a file. Messages of 10 MB took twice as long for it."""


@attrs.define
class Pings:
    """The pings to one client. Times are in seconds of the caller's clock.

    Args:
        deliveries: Is told of answers.
        delivery: What the client was given and has.
        is_numbered: Whether it goes by the numbers.
        interval: Seconds between the regular pings, which tell whether it is there. They go to all clients in the same
            moment.
        allowance: How many of these it may leave unanswered.
        regular_at: When the next of these goes.
    """

    deliveries: Deliveries
    delivery: Delivery
    is_numbered: bool
    interval: float
    allowance: int
    regular_at: float
    is_wanted: bool = attrs.field(default=False, init=False)
    """Whether one has to go now, whatever else there is to send."""
    unpinged: int = attrs.field(default=0, init=False)
    """Messages that went out since the last ping."""
    unpinged_bytes: int = attrs.field(default=0, init=False)
    """How many bytes that is."""
    sent_at: float = attrs.field(default=-inf, init=False)
    """When something went out last; infinite while something is on its way."""
    _pinged_at: float = attrs.field(default=-inf, init=False)
    _is_heard: bool = attrs.field(default=True, init=False)
    """Whether a ping was answered since the last regular one."""
    unanswered: int = attrs.field(default=0, init=False)
    """Regular pings in a row that were not."""

    @property
    def is_given_up(self) -> bool:
        """Whether the client left too many pings unanswered."""
        return self.unanswered > self.allowance

    @property
    def quiet_at(self) -> float:
        """When a ping has to go alone if nothing follows; infinite if there is nothing to ask or one is under way."""
        if not self.unpinged or self.delivery.is_open or self.is_wanted:
            return inf
        return self.sent_at + QUIET

    @property
    def next_at(self) -> float:
        """When to call `tick` again."""
        return min(self.regular_at, self.quiet_at)

    def tick(self, now: float) -> None:
        """Take in what time it is; then a ping may be wanted, or the client be given up."""
        if now >= self.regular_at:
            self.regular_at = tick_after(now, self.interval)
            self.unanswered = 0 if self._is_heard else self.unanswered + 1
            self._is_heard, self.is_wanted = False, True
        elif now >= self.quiet_at:
            self.is_wanted = True

    def is_due(self, now: float) -> bool:
        """Tell whether a ping has to go in front of messages that are sent now."""
        return now >= self._pinged_at + PAUSE and self.unpinged > 0 and not self.delivery.is_open

    def room(self, position: int) -> int:
        """Return how many messages from number ``position`` on may follow before the next ping; 0 if it is due."""
        if self.unpinged_bytes >= MOST_BYTES:
            return 0
        usual = max(self.delivery.distance, min(MOST, (position - self.delivery.began) // SHARE))
        return max(0, (NUMBERED if self.is_numbered else usual) - self.unpinged)

    def make(self, behind: int, now: float) -> bytes:
        """Return the frame of a ping that goes out behind the messages before number ``behind``."""
        self.unpinged, self.unpinged_bytes, self.is_wanted = 0, 0, False
        self._pinged_at = now
        return control_frame(PING, pack("!Q", self.delivery.ping(behind)))

    def answer(self, payload: bytes) -> None:
        """Take an answer's payload. What answers nothing is no news, and allowed."""
        if len(payload) == 8 and self.deliveries.pong(self.delivery, *unpack("!Q", payload)):
            self._is_heard = True
