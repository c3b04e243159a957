"""Where a host listens: a socket in its session's directory, whose path may be longer than a socket's path can be."""

from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from kallichore.errors import HostGoneError

HOST_SOCKET = "host.sock"
"""The name of a host's socket in its session's directory."""

LONGEST_PATH = 100
"""Bytes of a socket's path that every system takes."""

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
