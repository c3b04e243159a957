"""Where a host listens: a socket in its session's directory, whose path may be longer than a socket's path can be."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct

import trio

from kallichore.errors import HostGoneError

HOST_SOCKET = "host.sock"
"""The name of a host's socket in its session's directory."""

LONGEST_PATH = 100
"""Bytes of a socket's path that every system takes."""

PEER = Struct("3i")
"""What Linux tells of the other end of a connection: its process, its user and its group (unix(7), SO_PEERCRED)."""

LOCAL_PEERPID = 2
"""The option by which macOS tells the process, from sys/un.h; its level is 0."""

PAUSE = 0.01
"""Seconds between tries where the host has not had time yet to take those who connected before."""


@contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """Yield a path of the host's socket that is not too long, valid in this block.

    Raises:
        OSError: There is no such directory, or no descriptor left.
    """
    path = directory / HOST_SOCKET
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield str(path)
    elif sys.platform == "linux":
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}/{HOST_SOCKET}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryDirectory(prefix="kc-", dir="/tmp") as place:  # it is a private one
            link = os.path.join(place, "s")
            os.symlink(directory.absolute(), link)
            try:
                yield os.path.join(link, HOST_SOCKET)
            finally:
                with suppress(OSError):
                    os.unlink(link)


async def kill_host(directory: Path) -> None:
    """Kill whoever listens in a session's directory, which ends its kernel: for a session whose secret is lost.

    Where nobody listens, or the system does not tell who it is, nothing happens. The end follows a moment later.

    Args:
        directory: The session's, into which only its owner can put a socket.
    """
    if sys.platform == "win32":
        return
    try:
        connection = await connect_to_host(directory)
    except (HostGoneError, OSError):
        return
    with connection:
        pid = _pid_of_peer(connection)
    if pid > 1:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _pid_of_peer(connection: socket.socket) -> int:
    """Return the process that listens at the other end; 0 where that is not told."""
    if sys.platform == "linux":
        pid: int = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))[0]
        return pid
    if sys.platform == "darwin":
        return connection.getsockopt(0, LOCAL_PEERPID)
    return 0


async def connect_to_host(directory: Path) -> socket.socket:
    """Return a connection to whoever listens in a session's directory. Cancelling closes what was begun.

    Raises:
        HostGoneError: Nobody listens there.
        OSError: There is no descriptor left, or we may not connect.
    """
    if sys.platform == "win32":
        raise HostGoneError("There are no hosts on Windows")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        while not _connect(connection, directory):  # noqa: ASYNC110
            # Only the other side knows when it has time.
            await trio.sleep(PAUSE)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        connection.close()
        raise HostGoneError(f"No host listens in {directory}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, directory: Path) -> bool:
    """Connect at once; False if too many have connected that were not taken yet."""
    with short_path(directory) as path:
        code = connection.connect_ex(path)
    if code == errno.EAGAIN:
        return False
    if code:
        raise OSError(code, os.strerror(code))
    return True
