"""One connection to one of a kernel's sockets, in ZeroMQ's protocol on a socket of Trio's.

It connects again and again until somebody listens, and again when it was lost, as libzmq's do. Sends never wait: what
the connection does not take at once goes out as soon as it does, and what a session sends is bounded by its clients and
its execution queue.

Receiving is one task's work. It reads all that is there before it looks at any of it: what stays in the connection may
fill it, and then the kernel's own queue overflows without a word (`kallichore.zeromq.unread`).
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import trio

from kallichore.wire.frames import Frames
from kallichore.wire.zmtp import SUBSCRIPTION, Decoder, ZmtpError, encode, opening
from kallichore.zeromq.unread import PIECE, Budget, UnreadBytes

logger = logging.getLogger(__name__)

PAUSE_FIRST, PAUSE_MOST = 0.01, 0.1
"""Seconds between tries to connect. There is no event for a port that somebody binds; a refused try takes 25 µs."""

MOST_PIECES = 16
"""Pieces that are read in one go, a megabyte, for a quarter of a millisecond: then others have their turn."""

_NOT_THERE_YET = (ConnectionError, FileNotFoundError, TimeoutError, BlockingIOError, ZmtpError)

_INTERNET = (socket.AF_INET, socket.AF_INET6)


class KernelSocket:
    """A connection that one task receives from, and any may send on.

    What is public here is the contract of a connection to a kernel, whatever it speaks: `connect`, `send`,
    `receive_batch`, `drain`, `close`, and the attributes. Nobody looks at its bytes.

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

    def __init__(
        self, address: tuple[str, int] | str, kind: str, identity: bytes, nursery: trio.Nursery, budget: Budget
    ) -> None:
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
            OSError: The address is none, or there are no descriptors left.
        """
        family, address = await _resolve(self._address)
        pause = PAUSE_FIRST
        while self._socket is None:
            try:
                await self._connect_once(family, address)
            except _NOT_THERE_YET:
                await _wait(hurry, pause)
                pause = min(PAUSE_MOST, pause * 1.5)
        self.connected.set()
        self._flush()

    async def _connect_once(self, family: int, address: Any) -> None:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            if family in _INTERNET:
                _ask_for_space(connection)
            code = connection.connect_ex(address)
            if code in (errno.EINPROGRESS, errno.EWOULDBLOCK) and family in _INTERNET:
                await trio.lowlevel.wait_writable(connection)
                code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            if family in _INTERNET:
                if connection.getsockname() == connection.getpeername():
                    # Who tries a port of this machine often enough is once given it, and meets itself.
                    raise ConnectionRefusedError
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._shake_hands(connection)
        except BaseException:
            connection.close()
            raise
        self._socket = connection

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
        return self._is_empty and not self._unread

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
        batch = None if self.is_drained else self._advance()
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
        if not self._unread:
            if self._has_ended:
                raise ConnectionAbortedError
            if decoder.missing:
                with decoder.space() as space:
                    size = connection.recv_into(space)
                if not size:
                    raise ConnectionAbortedError
                return decoder.fill(size)
            self._read(connection, 1)
            if not self._unread:
                raise ConnectionAbortedError if self._has_ended else BlockingIOError
        messages = decoder.feed(self._unread.take())
        # The rest of a large frame is read where it belongs, and not copied there.
        if not decoder.missing and not self.is_drained:
            self._read(connection, MOST_PIECES)
        return messages

    def _read(self, connection: socket.socket, most: int) -> None:
        """Read up to so many pieces, as long as something is there and may wait here."""
        while most and self._unread.has_room and not self._has_ended:
            most -= 1
            try:
                data = connection.recv(PIECE)
            except BlockingIOError:
                data = None
            except OSError:
                data = b""
            self._has_ended = data == b""
            self._is_empty = not self._has_ended and (data is None or len(data) < PIECE)
            if data:
                self._unread.put(data)
            if self._is_empty:
                break


RECEIVE_BUFFER = 4 << 20
"""Bytes that a connection is asked to hold for us while we do not read: as much as a kernel in Python prints in a
second."""

_SO_BUF_LOCK = 72
"""Linux's socket option that says which buffers were given a size, and so do not grow (socket(7); not in Python)."""


def _ask_for_space(connection: socket.socket) -> None:
    """Ask for a large receive buffer, before connecting, since what is announced then depends on it."""
    try:
        if sys.platform != "linux":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            return
        # The system may allow less than it would let the buffer grow to by itself: so it has to be told to go on with
        # that. Where it cannot be told, before Linux 5.14, nothing is asked for.
        connection.getsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        connection.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, 0)
    except OSError as error:
        logger.debug("No larger receive buffer: %s", error)


async def _resolve(address: tuple[str, int] | str) -> tuple[int, Any]:
    """Return the address family and the address in numbers."""
    if isinstance(address, str):
        if sys.platform == "win32":
            raise OSError(errno.EAFNOSUPPORT, "there are no Unix sockets here")
        return socket.AF_UNIX, address
    if not 0 < address[1] < 1 << 16:
        # The system would take it modulo that.
        raise OSError(errno.EINVAL, f"{address[1]} is no port")
    try:
        family, _, _, _, numbers = (await trio.socket.getaddrinfo(*address, type=socket.SOCK_STREAM))[0]
    except (ValueError, OverflowError) as error:
        raise OSError(errno.EINVAL, f"{address} is no address: {error}") from error
    return family, numbers


async def _wait(hurry: trio.Event, pause: float) -> None:
    """Wait for the time of a pause, or until there is reason to hurry; never longer than the shortest after that."""
    if hurry.is_set():
        await trio.sleep(PAUSE_FIRST)
    else:
        with trio.move_on_after(pause):
            await hurry.wait()
