"""Unix sockets that are made with care: private from the first moment, never over somebody else's file, gone at
the end.

Permissions keep other users out, and so does a look at each connection: a socket whose permissions somebody opened
still serves nobody but its owner.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import trio

from kallichore.errors import ConfigurationError
from kallichore.transport.places import LONGEST_SOCKET_PATH

logger = logging.getLogger(__name__)

BACKLOG = 128

ROOT = 0
"""A user id that is never refused: root can become anybody."""

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


def peer_user(connection: trio.socket.SocketType) -> int | None:
    """Return the user id that the other side of a Unix socket had when it connected; None where no system call tells.

    Raises:
        OSError: The other side is gone (macOS).
    """
    if sys.platform == "linux":
        # struct ucred: process, user, group.
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        return int(struct.unpack("iII", credentials)[1])
    if sys.platform == "darwin":
        # struct xucred: version, user, and up to 16 groups. The level is SOL_LOCAL, which Python does not name.
        credentials = connection.getsockopt(0, socket.LOCAL_PEERCRED, 76)
        return int(struct.unpack_from("II", credentials)[1])
    return None


@attrs.define(eq=False)
class OwnersListener(trio.abc.Listener[trio.SocketStream]):
    """Hands out the connections of some users and closes those of others."""

    _listener: trio.SocketListener
    _users: frozenset[int]

    @property
    def socket(self) -> trio.socket.SocketType:
        """The listening socket."""
        return self._listener.socket

    async def accept(self) -> trio.SocketStream:
        """Wait for a connection of one of the users. Cancelling it loses none."""
        while True:
            stream = await self._listener.accept()
            if self._may_connect(stream.socket):
                return stream
            await trio.aclose_forcefully(stream)

    def _may_connect(self, connection: trio.socket.SocketType) -> bool:
        try:
            user = peer_user(connection)
        except OSError:
            return False
        if user is None or user in self._users:
            return True
        logger.warning("Refused a connection of user %d to %s", user, self.socket.getsockname())
        return False

    async def aclose(self) -> None:
        """Close the listening socket. Idempotent."""
        await self._listener.aclose()


def _owners() -> frozenset[int]:
    if sys.platform == "win32":
        return frozenset()
    return frozenset({ROOT, os.geteuid()})


@asynccontextmanager
async def open_unix_listener(path: Path, users: frozenset[int] | None = None) -> AsyncIterator[OwnersListener]:
    """Listen on a Unix socket for its owner only (0600); on leaving it is closed and removed, if it is still ours.

    A missing directory is made; the socket of a server that is gone is replaced.

    Args:
        path: Where.
        users: The user ids whose connections are served; None for the process's own, and root.

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
        yield OwnersListener(listener, _owners() if users is None else users)
    finally:
        bound.close()
        with suppress(OSError):
            if path.lstat().st_ino == ours:
                path.unlink()
