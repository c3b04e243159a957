"""Connecting to a kernel's socket: again and again, until somebody listens there who speaks as we do."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from kallichore.wire.zmtp import BEFORE_MECHANISM, GREETING_SIZE, MechanismError, ZmtpError, check_greeting, greeting

logger = logging.getLogger(__name__)

PAUSE_FIRST, PAUSE_MOST = 0.01, 0.1
"""Seconds between tries to connect. There is no event for a port that somebody binds; a refused try takes 25 µs."""

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

_NOT_THERE_YET = (ConnectionError, FileNotFoundError, TimeoutError, BlockingIOError, ZmtpError)

_INTERNET = (socket.AF_INET, socket.AF_INET6)


class ForeignKernelError(OSError):
    """A kernel is there that we shall never understand, however often we try; the text says why."""


@attrs.frozen
class Endpoint:
    """An address in numbers.

    Attributes:
        family: The address family.
        numbers: The address as that family has it.
    """

    family: int
    numbers: Any

    async def open(self) -> socket.socket:
        """Return a new connection to it. Cancelling closes what was begun.

        Raises:
            OSError: Nobody listens, or there are no descriptors left.
        """
        connection = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            await self._connect(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        if self.family in _INTERNET:
            _ask_for_space(connection)
        code = connection.connect_ex(self.numbers)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK) and self.family in _INTERNET:
            await trio.lowlevel.wait_writable(connection)
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if self.family in _INTERNET:
            if connection.getsockname() == connection.getpeername():
                # Who tries a port of this machine often enough is once given it, and meets itself.
                raise ConnectionRefusedError
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def url(self) -> str:
        """The address as libzmq has it."""
        if self.family not in _INTERNET:
            return f"ipc://{self.numbers}"
        host, port = self.numbers[:2]
        return f"tcp://[{host}]:{port}" if self.family == socket.AF_INET6 else f"tcp://{host}:{port}"


async def connect_again(address: Address, attempt: Callable[[Endpoint], Awaitable[None]], hurry: trio.Event) -> None:
    """Have ``attempt`` connect to an address as often as it takes; cancelling it ends that.

    Args:
        address: Where the kernel is to be.
        attempt: Connects once; raises where nobody is there, or somebody who does not speak ZMTP.
        hurry: Set when there is reason to think that the kernel listens now: then no pause is long.

    Raises:
        ForeignKernelError: The kernel is there, and speaks another mechanism.
        OSError: The address is none, or there are no descriptors left.
    """
    where = await resolve(address)
    pause = PAUSE_FIRST
    while True:
        try:
            await attempt(where)
            return
        except MechanismError as error:
            # That is no question of time.
            raise ForeignKernelError(str(error)) from error
        except _NOT_THERE_YET:
            await _wait(hurry, pause)
            pause = min(PAUSE_MOST, pause * 1.5)


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


ASK_PATIENCE = 0.5
"""Seconds that a kernel may take to tell its mechanism without having heard ours: libzmq does so at once, others may
wait for the whole greeting."""


async def ask_mechanism(where: Endpoint, mechanism: str) -> None:
    """Exchange greetings, and hang up.

    Not the whole of ours at first: libzmq, told a mechanism that it does not want, hangs up without telling its own.

    Raises:
        MechanismError: Somebody is there who wants another one.
        ZmtpError: Somebody is there who does not speak ZMTP 3.
        OSError: Nobody is there.
    """
    ours = greeting(mechanism)
    with await where.open() as connection:
        connection.sendall(ours[:BEFORE_MECHANISM])
        heard = b""
        with trio.move_on_after(ASK_PATIENCE):
            while not heard or not check_greeting(heard, mechanism):
                heard += await _receive(connection, GREETING_SIZE - len(heard))
            return
        connection.sendall(ours[BEFORE_MECHANISM:])
        while not heard or not check_greeting(heard, mechanism):
            heard += await _receive(connection, GREETING_SIZE - len(heard))


async def _receive(connection: socket.socket, size: int) -> bytes:
    """Wait for bytes; an end is an error."""
    await trio.lowlevel.wait_readable(connection)
    data = connection.recv(size)
    if not data:
        raise ConnectionAbortedError
    return data


async def resolve(address: Address) -> Endpoint:
    """Return an address in numbers.

    Raises:
        OSError: It is none.
    """
    if isinstance(address, str):
        if sys.platform == "win32":
            raise OSError(errno.EAFNOSUPPORT, "there are no Unix sockets here")
        return Endpoint(socket.AF_UNIX, address)
    if not 0 < address[1] < 1 << 16:
        # The system would take it modulo that.
        raise OSError(errno.EINVAL, f"{address[1]} is no port")
    try:
        family, _, _, _, numbers = (await trio.socket.getaddrinfo(*address, type=socket.SOCK_STREAM))[0]
    except (ValueError, OverflowError) as error:
        raise OSError(errno.EINVAL, f"{address} is no address: {error}") from error
    return Endpoint(family, numbers)


async def _wait(hurry: trio.Event, pause: float) -> None:
    """Wait for the time of a pause, or until there is reason to hurry; never longer than the shortest after that."""
    if hurry.is_set():
        await trio.sleep(PAUSE_FIRST)
    else:
        with trio.move_on_after(pause):
            await hurry.wait()
