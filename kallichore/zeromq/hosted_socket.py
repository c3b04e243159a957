"""One connection to a kernel's socket that a host beside the kernel holds, and whose bytes come over the host's stream.

The host knows nothing of ZeroMQ: the handshake is ours, and goes through it once. After that the connection is older
than we are, if another server has had it before: then what comes begins where that server had taken the last whole
message down, which is the position that the host was asked to go on from.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import trio

from kallichore.errors import HostGoneError
from kallichore.wire.frames import Frames
from kallichore.wire.zmtp import SUBSCRIPTION, Decoder, ZmtpError, encode, opening
from kallichore.zeromq.connecting import Address, Endpoint, ask_mechanism, connect_again

_FAMILIES = {socket.AF_INET: "inet", socket.AF_INET6: "inet6"}


class HostedChannel(Protocol):
    """One of a host's numbered streams of bytes.

    Attributes:
        pieces: What came and was not taken.
        position: How many bytes there were before the end of ``pieces``, over all connections.
        ended: Whether no more will come of this connection.
        on_small: Called when a small piece came and none was there before, if it is anybody's to take it at once.
    """

    pieces: deque[bytes]
    position: int
    ended: bool
    on_small: Callable[[], None] | None

    async def wait(self) -> None:
        """Wait until there are pieces, the stream ended, or the host is gone. Cancelling loses nothing."""


class HostStream(Protocol):
    """What a connection needs of the stream to a host; see `kallichore.engines.host_link`."""

    @property
    def channels(self) -> Mapping[int, HostedChannel]:
        """The kernel's streams by number."""

    @property
    def lost(self) -> trio.Event:
        """Set when the host is gone."""

    async def open(self, channel: int, family: str, numbers: Any) -> int:
        """Have the host connect; return the position where the new connection begins. Raises `OSError`."""

    def send(self, channel: int, data: bytes, *, may_be_lost: bool = False) -> None:
        """Have the host write to the kernel."""

    def pace(self, channel: int, seconds: float) -> None:
        """Have what comes gather for so long before the host reads it."""


class HostedSocket:
    """A connection that one task receives from, and any may send on.

    What is public here is the contract of `kallichore.zeromq.connection`, but for ``taken``.

    Args:
        address: Host and port, or the path of a Unix socket, on the host's machine.
        kind: The ZeroMQ type that it has for the other side, ``DEALER`` or ``SUB``; a SUB subscribes to everything.
        identity: Its routing identity; empty for none.
        stream: The stream to the host.
        number: Which of its channels this is.
        counts: Whether what is sent has to arrive, over all servers; if not, it is lost with this one.
        is_open: Whether the connection is there already, from a server before.

    Attributes:
        connected: Set when the first handshake is done.
        lost: Set when the kernel's side ended the connection, and all that had come was taken.
        taken: The position behind the last whole message that was received.
    """

    def __init__(
        self,
        address: Address,
        kind: str,
        identity: bytes,
        stream: HostStream,
        number: int,
        *,
        counts: bool = True,
        is_open: bool = False,
    ) -> None:
        self._address = address
        self._opening = opening(kind, identity)
        self._is_subscriber = kind == "SUB"
        self._stream, self._number, self._counts = stream, number, counts
        self._channel = stream.channels[number]
        self.connected = trio.Event()
        self.lost = trio.Event()
        self._decoder = Decoder(is_open=is_open)
        self._early: list[Frames] = []
        self._came_at_once = False
        self._is_closed = False
        self._pace = 0.0
        self._waiting: list[Sequence[bytes]] = []
        """What is to be sent as soon as there is a connection."""
        self._was_cut = False
        """Whether the last handshake came to nothing: then it is asked whether there can be one."""
        self._is_broken = False
        """Whether what came is no ZMTP."""
        self._fed = self.taken = self._channel.position - sum(map(len, self._channel.pieces))
        if is_open:
            self.connected.set()

    def close(self) -> None:
        """Receive and send no more. The connection is the host's, and stays. Idempotent."""
        self._is_closed = True
        self._channel.on_small = None

    # Connecting

    async def connect(self, hurry: trio.Event) -> None:
        """Have the host connect and shake hands, as often as it takes. Cancelling leaves the rest to who connects next.

        Args:
            hurry: Set when there is reason to think that the kernel listens now: then no pause is long.

        Raises:
            OSError: The address is none, or the host has no descriptors left.
        """
        if not self.connected.is_set() or self.lost.is_set():
            await connect_again(self._address, self._connect_once, hurry)
            self.connected.set()
            waiting, self._waiting = self._waiting, []
            for frames in waiting:
                self.send(frames)

    async def _connect_once(self, where: Endpoint) -> None:
        if self._was_cut:
            await ask_mechanism(where, "NULL")
        self._decoder, self._early, self._is_broken = Decoder(), [], False
        family = _FAMILIES.get(socket.AddressFamily(where.family), "unix")
        try:
            self._fed = self.taken = await self._stream.open(self._number, family, where.numbers)
        except HostGoneError:
            # Whoever waits for the kernel's end is told so, and ends this.
            await trio.sleep_forever()
        self._was_cut = True
        self._stream.send(self._number, self._opening, may_be_lost=True)
        while not self._decoder.is_open:
            await self._channel.wait()
            if not self._channel.pieces:
                raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
            self._early += self._feed()
        if self._is_subscriber:
            self._stream.send(self._number, SUBSCRIPTION, may_be_lost=True)
        self._was_cut = False

    # Sending

    def send(self, frames: Sequence[bytes]) -> None:
        """Send one message: now, or as soon as the host takes it."""
        if not self.connected.is_set():
            # The host would drop what it has no connection for.
            self._waiting.append(frames)
        elif not self._is_closed:
            self._stream.send(self._number, b"".join(encode(frames)), may_be_lost=not self._counts)

    # Receiving

    def pace(self, seconds: float) -> None:
        """Have what comes gather for so long before it is read, where many small messages come; 0 for not at all."""
        if seconds != self._pace:
            self._pace = seconds
            self._stream.pace(self._number, seconds)

    @property
    def is_drained(self) -> bool:
        """Whether all that came was taken."""
        return not self._channel.pieces

    async def receive_batch(self) -> list[Frames]:
        """Wait for messages, and return those that one piece completes.

        A checkpoint at least every other time, so that a kernel which never pauses leaves other tasks their turn.
        Cancelling it loses nothing.
        """
        if self._came_at_once:
            await trio.lowlevel.checkpoint()
        self._came_at_once = True
        while not (batch := self._advance()):
            self._came_at_once = False
            if not self._has_ended:
                await self._channel.wait()
            elif self._stream.lost.is_set() or self._is_closed:
                await trio.sleep_forever()
            else:
                await self.connect(trio.Event())
        return batch

    def take_small_by(self, take: Callable[[list[Frames]], object]) -> None:
        """Hand over what is small as soon as it comes, in the task that reads from the host: to wake another for each
        message costs more than to take it. What is large, or comes when something is there, is for `receive_batch`.

        Args:
            take: Is given the messages.
        """

        def take_now() -> None:
            if self._decoder.is_open and not self._early and (batch := self._advance()):
                take(batch)

        self._channel.on_small = take_now

    def drain(self) -> list[Frames]:
        """Return messages that are here; empty only if there are no more."""
        while not (batch := self._advance()) and self._channel.pieces:
            pass
        return batch

    @property
    def _has_ended(self) -> bool:
        if self._is_broken:
            return True
        return not self._channel.pieces and (self._channel.ended or self._stream.lost.is_set())

    def _advance(self) -> list[Frames]:
        """Return the messages that are complete with the next piece; none if there is none."""
        batch, self._early = self._early, []
        if not batch and self._channel.pieces:
            try:
                batch = self._feed()
            except ZmtpError:
                self._is_broken = True
                self._channel.pieces.clear()
        self.taken = self._fed - self._decoder.held
        if not batch and self._has_ended:
            self.lost.set()
        return batch

    def _feed(self) -> list[Frames]:
        piece = self._channel.pieces.popleft()
        self._fed += len(piece)
        messages = self._decoder.feed(piece)
        if self._decoder.replies:
            self._stream.send(self._number, b"".join(self._decoder.replies), may_be_lost=True)
            self._decoder.replies.clear()
        return messages
