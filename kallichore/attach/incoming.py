"""What arrives from a client: bytes in, wsproto's events out. [pure]

wsproto does the work: fragments, closing, limits, all that can be wrong. But nearly all that comes is one short message
or one answer to a ping, in a frame of its own, and wsproto's way is long for these: 8 µs for a request of 350 bytes and
5 for a pong, which take 2 and 1 here. That is 6 % of what a small execution costs the server. So whole frames of these
kinds are taken at once, as long as nothing else has come.

How long a message may be, wsproto does not ask: a frame that says that it has 2^62 bytes would be taken as far as it
comes. So the heads of frames are followed here as well, and a message that will be too long is refused by them.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Event, Ping, Pong, TextMessage

from kallichore.attach.frames import BINARY, PING, PONG, TEXT
from kallichore.session.intake import LARGEST_MESSAGE

_FINAL, _CONTROL, _MASKED, _SHORT, _MEDIUM, _LONG = 0x80, 0x08, 0x80, 125, 126, 127


@attrs.frozen
class TooBig:
    """A message is longer than a message may be. Nothing of what follows it is read."""


@attrs.define
class _Sizes:
    """Follows frames as they come, to know how long a message will be.

    Args:
        most: Bytes of a message at most.
    """

    most: int
    _head: bytearray = attrs.field(factory=bytearray, init=False)
    _left: int = attrs.field(default=0, init=False)
    """Bytes of a payload that are still to come."""
    _message: int = attrs.field(default=0, init=False)

    def follow(self, data: bytes, position: int) -> int | None:
        """Take in data from ``position`` on; return where the head ends of a frame that makes a message too long."""
        while position < len(data):
            if self._left:
                skipped = min(self._left, len(data) - position)
                self._left -= skipped
                position += skipped
                continue
            end = min(len(data), position + _size_of_head(self._head + data[position : position + 2]) - len(self._head))
            self._head += data[position:end]
            position = end
            if len(self._head) == _size_of_head(self._head) and self._begin_frame():
                return position
        return None

    def _begin_frame(self) -> bool:
        head, length = self._head, self._head[1] & ~_MASKED
        if length >= _MEDIUM:
            length = int.from_bytes(head[2 : 4 if length == _MEDIUM else 10], "big")
        self._left, self._head = length, bytearray()
        if head[0] & _CONTROL:
            return False
        self._message += length
        # A length with the highest bit set is no length (RFC 6455, 5.2), and wsproto says so.
        is_too_long = self._message > self.most and length < 1 << 63
        if head[0] & _FINAL:
            self._message = 0
        return is_too_long


def _size_of_head(begin: bytes | bytearray) -> int:
    """Return how long a frame's head is, as far as its first bytes tell."""
    if len(begin) < 2:
        return 2
    length = begin[1] & ~_MASKED
    extended = 8 if length == _LONG else 2 if length == _MEDIUM else 0
    return 2 + extended + (4 if begin[1] & _MASKED else 0)


class Incoming:
    """Reads what one client sends.

    Args:
        surplus: What came behind its request.
        most: Bytes of a message at most.
    """

    def __init__(self, surplus: bytes, most: int = LARGEST_MESSAGE) -> None:
        self._sizes = _Sizes(most)
        self._is_refused = False
        """Whether a message was too long, and so nothing counts any more."""
        self._protocol = Connection(ConnectionType.SERVER)
        self._is_simple = True
        """Whether only whole frames of the usual kinds have come, and so wsproto has not begun with anything."""
        self._events: list[Event] = []
        self._end: TooBig | None = None
        self.receive(surplus)

    def receive(self, data: bytes) -> None:
        """Take in what came. Empty data is nothing, not the end."""
        if self._is_refused:
            return
        position, size = 0, len(data)
        while self._is_simple and position < size:
            if whole := _take_whole(data, position):
                event, position = whole
                self._events.append(event)
            else:
                self._is_simple = False
        if position == size:
            return
        end = self._sizes.follow(data, position)
        if end is not None:
            self._is_refused, self._end = True, TooBig()
        self._protocol.receive_data(data[position:end])

    def events(self) -> Iterator[Event | TooBig]:
        """Yield what has come: messages and pieces of them, and `TooBig` where one will be too long.

        Raises:
            wsproto.utilities.RemoteProtocolError: It is not what RFC 6455 allows.
        """
        events, self._events = self._events, []
        yield from events
        if not self._is_simple:
            yield from self._protocol.events()
        if self._end is not None:
            end, self._end = self._end, None
            yield end


def _take_whole(data: bytes, position: int) -> tuple[Event, int] | None:
    """Return the event of the frame that begins here and where it ends; None if it is not whole, usual and sound."""
    if len(data) < position + 6:
        return None
    opcode, size, start = data[position], data[position + 1] - _MASKED, position + 2
    if size == _MEDIUM and opcode in (TEXT, BINARY):
        size, start = data[start] << 8 | data[start + 1], position + 4
        if size <= _SHORT:
            return None
    elif not 0 <= size <= _SHORT:
        return None
    end = start + 4 + size
    if end > len(data):
        return None
    payload = _unmasked(data[start : start + 4], data[start + 4 : end])
    if opcode == TEXT:
        try:
            return TextMessage(payload.decode()), end
        except UnicodeDecodeError:
            return None
    if opcode == BINARY:
        return BytesMessage(payload), end
    if opcode == PONG:
        return Pong(payload), end
    if opcode == PING:
        return Ping(payload), end
    return None


def _unmasked(mask: bytes, payload: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
