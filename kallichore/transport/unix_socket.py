"""Unix sockets that are made with care: private from the first moment, never over somebody else's file, gone at
the end.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from kallichore.errors import ConfigurationError
from kallichore.transport.runtime_directory import LONGEST_SOCKET_PATH

BACKLOG = 128

# Not there on Windows, where this module is imported and not used.
_AF_UNIX: int = getattr(socket, "AF_UNIX", -1)


def _is_live(path: Path) -> bool:
    """Whether a server listens at ``path``."""
    with socket.socket(_AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            # Its backlog is full: very much alive.
            return True
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def _make_way(path: Path) -> None:
    """Remove the socket of a server that is gone; refuse to remove anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"{path} exists and is no socket; choose another path or remove it")
    if _is_live(path):
        raise ConfigurationError(f"Another server listens on {path}; choose another path or end that server")
    path.unlink()


def _bind(path: Path) -> socket.socket:
    listening = socket.socket(_AF_UNIX)
    # The socket must not be open to others even for a moment. The mask is the process's, so nothing awaits in between.
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(before)
    listening.listen(BACKLOG)
    return listening


@asynccontextmanager
async def open_unix_listener(path: Path) -> AsyncIterator[trio.SocketListener]:
    """Listen on a Unix socket for its owner only (0600); on leaving it is closed and removed, if it is still ours.

    A missing directory is made; the socket of a server that is gone is replaced.

    Raises:
        ConfigurationError: The path is too long, is taken, or cannot be used; the message says which and what to do.
    """
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ConfigurationError(
            f"The socket path {path} has {len(os.fsencode(path))} bytes, {LONGEST_SOCKET_PATH} at most work; "
            "choose a shorter one"
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_way(path)
        bound = _bind(path)
    except OSError as error:
        raise ConfigurationError(f"Could not listen on {path}: {error.strerror}") from error
    ours = path.stat().st_ino
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
    try:
        yield listener
    finally:
        bound.close()
        with suppress(OSError):
            if path.lstat().st_ino == ours:
                path.unlink()
