"""ZMTP 3, which ZeroMQ sockets speak over a connection, as the side that connects (RFC 23). [pure]

Bytes in, messages out, and the other way round. A kernel's sockets are bound by libzmq or another implementation; we
connect to them. libzmq on our side as well would cost more than all else that a message needs: its own thread is woken
for each, hands it over through a queue and wakes ours, and seven receives through Python follow. Here a message is a
few slices of what one read brought: 2 µs, and no thread. `docs/explanation/decisions.md` has the figures.

Only what kernels need is here: the NULL mechanism, DEALER and SUB, and no older version of the protocol. Of CURVE,
which encrypts, only the greeting is known, to tell who speaks it; the rest is libzmq's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct, pack
from typing import NamedTuple, cast

from kallichore.wire.frames import Frames

_MORE, _LONG, _COMMAND = 1, 2, 4

_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
GREETING_SIZE = 64
BEFORE_MECHANISM = 12
"""Bytes of a greeting that come before the mechanism."""


def greeting(mechanism: str) -> bytes:
    """Return how a connection begins: signature, version 3.0, the security mechanism, and that we are no server.

    In 3.0 a subscription is a message of its own.

    Args:
        mechanism: ``NULL``, or ``CURVE`` for encryption.
    """
    return (_SIGNATURE + b"\x03\x00" + mechanism.encode()).ljust(GREETING_SIZE, b"\0")


_GREETING = greeting("NULL")

SUBSCRIPTION = b"\0\1\1"
"""What a SUB has to say when the handshake is done, to be sent everything. libzmq takes it amiss any earlier."""

LARGE = 1 << 16
"""Bytes of a frame from which on it is collected in a buffer of its own as it arrives, and not looked at before."""


class ZmtpError(ValueError):
    """The other side does not speak ZMTP 3 with us; the text says what is wrong."""


class MechanismError(ZmtpError):
    """The other side wants another security mechanism, and will not change its mind; the text says which."""


def opening(kind: str, identity: bytes = b"") -> bytes:
    """Return what is to be said on a new connection, whatever the other side says.

    Args:
        kind: ``DEALER`` or ``SUB``.
        identity: The routing identity, up to 255 bytes; empty for none.
    """
    properties = b"\x0bSocket-Type" + pack("!I", len(kind)) + kind.encode()
    properties += b"\x08Identity" + pack("!I", len(identity)) + identity
    return _GREETING + _frame(_COMMAND, b"\x05READY" + properties)


def encode(frames: Sequence[bytes]) -> list[bytes]:
    """Return the bytes of a message, of one frame or more, in pieces; frames that are large are not copied."""
    pieces: list[bytes] = []
    more = len(frames)
    for frame in frames:
        more -= 1
        size = len(frame)
        # As `_head` does, whose call would take as long as all of this.
        pieces += (bytes((_MORE if more else 0, size)) if size < 256 else _head(_MORE if more else 0, size), frame)
    return pieces if max(map(len, frames)) >= LARGE else [b"".join(pieces)]


def _head(flags: int, size: int) -> bytes:
    return bytes((flags, size)) if size < 256 else pack("!BQ", flags | _LONG, size)


def _frame(flags: int, body: bytes) -> bytes:
    return _head(flags, len(body)) + body


class _Layout(NamedTuple):
    """Where the frames of a message begin and end, up to the last one's size."""

    struct: Struct
    """The head and the body of each frame but the last, in turn, and two bytes of the last one's head."""
    heads: tuple[bytes, ...]
    """The heads of all but the last."""


@lru_cache(64)
def _layout(sizes: tuple[int, ...]) -> _Layout:
    """Return the layout of messages whose frames but the last have these sizes."""
    heads = tuple(_head(_MORE, size) for size in sizes)
    fields = "".join(f"{len(head)}s{size}s" for head, size in zip(heads, sizes, strict=True))
    return _Layout(Struct(f"{fields}BB"), heads)


MANY = 1 << 14
"""Bytes that come at once from which on it pays to see whether messages have the layout of the one before."""

STEP = 1 << 24
"""Bytes for which space is made at once."""


class Decoder:
    """Reads what comes on one connection.

    Args:
        is_open: Whether the handshake was done by somebody else before, and what comes begins with a whole message.

    Attributes:
        is_open: Whether the handshake is done.
        replies: What is to be sent for what came; whoever sends it clears it.
        missing: How many bytes of a large frame are still to come. These are best received into `space`: a copy of
            megabytes is spared, and with it the memory for one.
    """

    def __init__(self, *, is_open: bool = False) -> None:
        self.is_open = is_open
        self.replies: list[bytes] = []
        self.missing = 0
        self._is_greeted = is_open
        self._rest = b""
        self._frames: Frames = []
        self._large = bytearray()
        self._filled = 0
        self._large_flags = 0

    def feed(self, data: bytes) -> list[Frames]:
        """Take in what came, and return the messages that are now complete.

        Raises:
            ZmtpError: It is not ZMTP 3.
        """
        messages: list[Frames] = []
        if self.missing:
            data = self._take_large(data, messages)
        elif self._rest:
            data = self._rest + data
        position = 0
        if not self._is_greeted:
            self._is_greeted = check_greeting(data)
            if not self._is_greeted:
                self._rest = data
                return messages
            position = GREETING_SIZE
        frames, limit = self._frames, len(data)
        append = frames.append
        while position + 2 <= limit:
            flags = data[position]
            start = position + 2
            if flags < _LONG:
                # As nearly all are: 0.25 µs each.
                end = start + data[position + 1]
            else:
                if flags > _COMMAND | _LONG:
                    raise ZmtpError(f"a frame has the flags {flags:#04x}")
                if flags & _LONG:
                    start = position + 9
                    if start > limit:
                        break
                    end = start + int.from_bytes(data[position + 1 : start], "big")
                else:
                    end = start + data[position + 1]
                if flags & _COMMAND:
                    if flags & _MORE or end - start >= LARGE:
                        raise ZmtpError(f"a command has the flags {flags:#04x} and {end - start} bytes")
                    if end > limit:
                        break
                    self._take_command(data[start:end])
                    position = end
                    continue
                if end > limit and end - start >= LARGE:
                    self._begin_large(flags, data[start:], end - limit)
                    position = limit
                    break
            if end > limit:
                break
            append(data[start:end])
            position = end
            if not flags & _MORE:
                messages.append(frames)
                if limit >= MANY:
                    position = _take_alike(data, position, frames, messages)
                frames = []
                append = frames.append
        self._frames, self._rest = frames, data[position:]
        if (messages or frames or self.missing) and not self.is_open:
            raise ZmtpError("a message came before the handshake was done")
        return messages

    @property
    def held(self) -> int:
        """How many of the bytes that were taken in belong to no message or command that was complete."""
        held = len(self._rest) + sum(len(_head(_MORE, len(frame))) + len(frame) for frame in self._frames)
        return held + len(_head(0, LARGE)) + self._filled if self.missing else held

    def _begin_large(self, flags: int, beginning: bytes, missing: int) -> None:
        self._large_flags, self._filled, self.missing = flags, len(beginning), missing
        self._large = bytearray(len(beginning) + min(missing, STEP))
        self._large[: len(beginning)] = beginning

    def space(self) -> memoryview:
        """Return where the rest of a large frame is to be received, while some of it is `missing`; then `fill` it."""
        if self._filled == len(self._large):
            # Not all at once: the size is but a claim.
            self._large += bytes(min(self.missing, max(STEP, self._filled)))
        return memoryview(self._large)[self._filled :]

    def fill(self, size: int) -> list[Frames]:
        """Note that so many bytes were received into `space`, and return the message if it is now complete."""
        self._filled += size
        self.missing -= size
        if self.missing:
            return []
        # A bytearray does for bytes, wherever a message's frames go.
        self._frames.append(cast("bytes", self._large))
        self._large = bytearray()
        if self._large_flags & _MORE:
            return []
        frames, self._frames = self._frames, []
        return [frames]

    def _take_large(self, data: bytes, messages: list[Frames]) -> bytes:
        """Add to the large frame what belongs to it, and return what is behind it."""
        while self.missing and data:
            with self.space() as space:
                size = min(len(space), len(data))
                space[:size] = data[:size]
            messages += self.fill(size)
            data = data[size:]
        return data

    def _take_command(self, body: bytes) -> None:
        size = body[0] if body else 0
        name, rest = body[1 : 1 + size], body[1 + size :]
        if name == b"READY":
            self.is_open = True
        elif name == b"ERROR":
            raise ZmtpError(f"it refuses: {rest[1:].decode('ascii', 'replace')}")
        elif name == b"PING":
            # RFC 37: behind two bytes, a time to live, is what is to be sent back.
            self.replies.append(_frame(_COMMAND, b"\x04PONG" + rest[2:18]))


def _take_alike(data: bytes, position: int, model: Frames, messages: list[Frames]) -> int:
    """Take the messages that follow as long as their frames but the last are as long as those of ``model``.

    In a flood nearly all are, and are taken apart by one call: 0.5 µs each, where frame by frame it is 1.1.

    Returns:
        Where the first message begins that is different, or has not come whole.
    """
    struct, heads = _layout(tuple(map(len, model[:-1])))
    unpack, size, limit = struct.unpack_from, struct.size, len(data)
    behind = 2 * len(heads)
    while position + size <= limit:
        parts = unpack(data, position)
        if parts[:behind:2] != heads:
            break
        flags, length = parts[behind:]
        start = position + size
        if flags == _LONG:
            start += 7
            length = int.from_bytes(data[start - 8 : start], "big")
        elif flags:
            break
        end = start + length
        if end > limit:
            break
        messages.append([*parts[1:behind:2], data[start:end]])
        position = end
    return position


def check_greeting(data: bytes, mechanism: str = "NULL") -> bool:
    """Tell whether a greeting is complete, and refuse one that cannot become one that we take.

    Args:
        data: What came first.
        mechanism: The one that it has to name.

    Raises:
        MechanismError: It names another.
        ZmtpError: It is no greeting of ZMTP 3.
    """
    if data[:1] != _SIGNATURE[:1] or data[9:10] not in (b"", _SIGNATURE[9:]):
        raise ZmtpError("it does not begin with a ZMTP greeting")
    if len(data) > 10 and data[10] < 3:
        raise ZmtpError(f"it speaks version {data[10]} of ZMTP; 3 is the least")
    if len(data) < GREETING_SIZE:
        return False
    named = data[BEFORE_MECHANISM:32].rstrip(b"\0").decode("ascii", "replace")
    if named != mechanism:
        raise MechanismError(_explain(named))
    return True


def _explain(named: str) -> str:
    """Return why a kernel that names this mechanism, other than ours, cannot be talked to."""
    match named:
        case "NULL":
            return "it does not encrypt (it asks for the mechanism NULL), though it was given keys for that"
        case "CURVE":
            return (
                "it asks for the mechanism CURVE, which is encryption, and its keys are not known: "
                "curve_publickey and curve_secretkey of its connection file"
            )
        case _:
            return f"it asks for the mechanism {named}, and we know only NULL and CURVE"
