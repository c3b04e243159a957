"""One connection to one of a kernel's sockets, in ZeroMQ's protocol on a socket of Trio's.

It connects again and again until somebody listens, and again when it was lost, as libzmq's do. Sends never wait: what
the connection does not take at once goes out as soon as it does, and what a session sends is bounded by its clients and
its execution queue.

Receiving is one task's work. It reads all that is there before it looks at any of it: what stays in the connection may
fill it, and then the kernel's own queue overflows without a word (`kallichore.zeromq.unread`).
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Sequence

import trio

from kallichore.wire.frames import Frames
from kallichore.wire.zmtp import SUBSCRIPTION, Decoder, ZmtpError, encode, opening
from kallichore.zeromq.connecting import Address, Endpoint, ask_mechanism, connect_again
from kallichore.zeromq.unread import PIECE, Budget, UnreadBytes

logger = logging.getLogger(__name__)

MOST_PIECES = 16
"""Pieces that are read in one go, a megabyte, for a quarter of a millisecond: then others have their turn."""


class KernelSocket:
    """A connection that one task receives from, and any may send on.

    What is public here is the contract of `kallichore.zeromq.connection`; this one speaks the NULL mechanism.

    Args:
        address: Host and port, or the path of a Unix socket.
        kind: The ZeroMQ type that it has for the other side, ``DEALER`` or ``SUB``; a SUB subscribes to everything.
        identity: Its routing identity; empty for none.
        nursery: What could not be sent at once is sent by a task in it.
        budget: What may wait here, shared with the session's other connections.

    Attributes:
        connected: Set when the first handshake is done.
        lost: Set when the kernel's side ended the connection, and all that had come was taken.
    """

    def __init__(self, address: Address, kind: str, identity: bytes, nursery: trio.Nursery, budget: Budget) -> None:
        self._address = address
        self._nursery = nursery
        self._opening = opening(kind, identity)
        self._is_subscriber = kind == "SUB"
        self.connected = trio.Event()
        self.lost = trio.Event()
        self._socket: socket.socket | None = None
        self._decoder = Decoder()
        self._early: list[Frames] = []
        self._unsent: deque[memoryview] = deque()
        self._is_flushing = False
        self._came_at_once = False
        self._unread = UnreadBytes(budget)
        self._is_empty = False
        """Whether the last read left nothing, as far as can be told: it did not fill its piece."""
        self._has_ended = False
        """Whether the kernel's side ended the connection; what waits here comes first."""
        self._was_cut = False
        """Whether the last handshake came to nothing: then it is asked whether there can be one."""

    def close(self) -> None:
        """Close the connection; what was not sent yet is dropped. Idempotent."""
        if self._socket is not None:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._socket = None
        self._unread.clear()

    # Connecting

    async def connect(self, hurry: trio.Event) -> None:
        """Connect and shake hands, as often as it takes. Cancelling closes what was begun.

        Args:
            hurry: Set when there is reason to think that the kernel listens now: then no pause is long.

        Raises:
            OSError: The address is none, there are no descriptors left, or (`ForeignKernelError`) the kernel speaks
                another mechanism.
        """
        await connect_again(self._address, self._connect_once, hurry)
        self.connected.set()
        self._flush()

    async def _connect_once(self, where: Endpoint) -> None:
        if self._was_cut:
            await ask_mechanism(where, "NULL")
        connection = await where.open()
        try:
            self._was_cut = True
            await self._shake_hands(connection)
        except BaseException:
            connection.close()
            raise
        self._socket, self._was_cut = connection, False

    async def _shake_hands(self, connection: socket.socket) -> None:
        connection.sendall(self._opening)
        decoder = Decoder()
        early: list[Frames] = []
        while not decoder.is_open:
            await trio.lowlevel.wait_readable(connection)
            data = connection.recv(PIECE)
            if not data:
                raise ConnectionAbortedError
            early += decoder.feed(data)
        if self._is_subscriber:
            connection.sendall(SUBSCRIPTION)
        self._decoder, self._early = decoder, early
        self._is_empty = self._has_ended = False

    def _lose(self) -> None:
        self.close()
        self._unsent.clear()
        self.lost.set()

    # Sending

    def send(self, frames: Sequence[bytes]) -> None:
        """Send one message: now, or as soon as the connection takes it."""
        self._unsent.extend(map(memoryview, encode(frames)))
        self._flush()

    def _flush(self) -> None:
        if not self._is_flushing and not self._push():
            self._is_flushing = True
            self._nursery.start_soon(self._keep_pushing)

    def _push(self) -> bool:
        """Send what waits; False if the connection does not take all of it now."""
        while self._unsent and self._socket is not None:
            piece = self._unsent[0]
            try:
                count = self._socket.send(piece)
            except BlockingIOError:
                return False
            except OSError:
                # Whoever reads will notice.
                return True
            if count < len(piece):
                self._unsent[0] = piece[count:]
            else:
                self._unsent.popleft()
        return True

    async def _keep_pushing(self) -> None:
        try:
            while self._socket is not None and not self._push():
                await trio.lowlevel.wait_writable(self._socket)
        except trio.ClosedResourceError:
            pass
        finally:
            self._is_flushing = False

    # Receiving

    @property
    def is_drained(self) -> bool:
        """Whether all that came was taken, as far as can be told without another read."""
        return self._is_empty and not self._unread.pieces

    async def receive_batch(self) -> list[Frames]:
        """Wait for messages, read all that is there, and return the messages of the piece that came first.

        A checkpoint at least every other time, so that a kernel which never pauses leaves other tasks their turn. One
        each time would be another turn of the event loop for each message that comes alone. Cancelling it loses
        nothing.
        """
        if self._came_at_once:
            await trio.lowlevel.checkpoint()
        self._came_at_once = True
        # A read that did not fill its piece has most likely left nothing: another would be a system call in vain.
        batch = None if self._is_empty and not self._unread.pieces else self._advance()
        while not batch:
            self._came_at_once = False
            if self._socket is None:
                await self.connect(trio.Event())
                logger.warning("Connected to the kernel at %s again, which had closed the connection", self._address)
            elif batch is None or self.is_drained:
                await trio.lowlevel.wait_readable(self._socket)
            else:
                # There was something, but no whole message: a large one takes many reads.
                await trio.lowlevel.checkpoint()
            batch = self._advance()
        return batch

    def drain(self) -> list[Frames]:
        """Return messages that are here, or can be read now; empty only if there are no more."""
        batch: list[Frames] | None = []
        while batch is not None and not batch:
            batch = self._advance()
        return batch or []

    def _advance(self) -> list[Frames] | None:
        """Read what is there, and return the messages that one piece completes; None if nothing was there."""
        if self._early:
            early, self._early = self._early, []
            return early
        if self._socket is None:
            return None
        try:
            messages = self._take(self._socket)
        except BlockingIOError:
            return None
        except (OSError, ZmtpError):
            self._lose()
            return None
        if self._decoder.replies:
            self._unsent.extend(map(memoryview, self._decoder.replies))
            self._decoder.replies.clear()
            self._flush()
        return messages

    def _take(self, connection: socket.socket) -> list[Frames]:
        decoder = self._decoder
        if not self._unread.pieces:
            if self._has_ended:
                raise ConnectionAbortedError
            if decoder.missing:
                with decoder.space() as space:
                    size = connection.recv_into(space)
                if not size:
                    raise ConnectionAbortedError
                return decoder.fill(size)
            data = self._receive(connection)
            if not data:
                raise BlockingIOError if data is None else ConnectionAbortedError
        else:
            data = self._unread.take()
        messages = decoder.feed(data)
        # The rest of a large frame is read where it belongs, and not copied there.
        if not decoder.missing and (not self._is_empty or self._unread.pieces):
            self._read(connection, MOST_PIECES)
        return messages

    def _read(self, connection: socket.socket, most: int) -> None:
        """Read up to so many pieces, as long as something is there and may wait here."""
        while most and self._unread.has_room and not self._has_ended:
            most -= 1
            if data := self._receive(connection):
                self._unread.put(data)
            if self._is_empty:
                break

    def _receive(self, connection: socket.socket) -> bytes | None:
        """Read a piece; None if nothing is there, and empty at the end."""
        try:
            data = connection.recv(PIECE)
        except BlockingIOError:
            self._is_empty = True
            return None
        except OSError:
            data = b""
        self._has_ended = not data
        self._is_empty = 0 < len(data) < PIECE
        return data
