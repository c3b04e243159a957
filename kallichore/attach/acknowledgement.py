"""What of a connection's bytes the other side's machine has not acknowledged: only Linux tells, and only of TCP."""

from __future__ import annotations

import socket
import sys

import trio


def count_unacknowledged(stream: trio.abc.Stream) -> int:
    """Return how many of the bytes that a stream took were not acknowledged; 0 where nobody can tell.

    Also after the connection broke (``SIOCOUTQ``, see Linux's tcp(7)); 0 once the stream is closed.
    """
    if sys.platform != "linux" or not isinstance(stream, trio.SocketStream):
        return 0
    if stream.socket.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    import fcntl
    import termios

    try:
        # SIOCOUTQ and TIOCOUTQ are one number.
        answer = fcntl.ioctl(stream.socket.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return 0
    return int.from_bytes(answer, sys.byteorder, signed=True)
