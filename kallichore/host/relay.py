"""Carries standard input and output to a host's socket and back: what runs at the other end of an SSH connection.

One file and only the standard library of Python 3.8. `kallichore.engines.host_program` makes it into something that can
be given to a Python far away.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time

# Where there are no Unix sockets, nothing of this could work.
assert sys.platform != "win32"

PIECE = 1 << 16
"""Bytes that are carried at once. More is read when these have gone on: who is slow is waited for."""

LAST_PATIENCE = 5.0
"""Seconds in which the rest has to be taken when the host is gone."""

NOBODY_LISTENS = 3
"""The exit code where there is no host."""


AT_END = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Way:
    """One direction; each of its ends is a descriptor that does not block."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self.target = source, target
        self.has_ended = False
        self._rest = b""

    @property
    def is_full(self) -> bool:
        """Whether there is something that was not taken."""
        return bool(self._rest)

    def move(self) -> None:
        """Carry on as far as it goes.

        Raises:
            OSError: Nobody is there to take it.
        """
        while not self.has_ended or self._rest:
            try:
                if not self._rest:
                    self._rest = os.read(self.source, PIECE)
                    self.has_ended = not self._rest
                self._rest = self._rest[os.write(self.target, self._rest) :] if self._rest else b""
            except BlockingIOError:
                return


def relay(path: str) -> int:
    """Carry bytes until the host is gone, or nobody takes them any more; return the exit code.

    When the input ends the host is told so, and what it still says is carried.

    Args:
        path: The host's socket.
    """
    far = socket.socket(socket.AF_UNIX)
    try:
        far.connect(path)
    except OSError as error:
        os.write(2, f"{path}: {error.strerror}\n".encode())
        return NOBODY_LISTENS if isinstance(error, (FileNotFoundError, ConnectionRefusedError)) else 1
    for descriptor in (0, 1, far.fileno()):
        os.set_blocking(descriptor, False)
    try:
        carry(far, Way(0, far.fileno()), Way(far.fileno(), 1))
    except OSError:
        # Who was to take it is gone.
        pass
    return 0


def carry(far: socket.socket, there: Way, back: Way) -> None:
    """Carry both ways until the host's end has been handed on.

    Raises:
        OSError: One of those who take it is gone.
    """
    is_told, until = False, 0.0
    while True:
        there.move()
        back.move()
        if there.has_ended and not there.is_full and not is_told:
            is_told = True
            far.shutdown(socket.SHUT_WR)
        if back.has_ended and not back.is_full:
            return
        found = wait((there, back), 0 if until else far.fileno(), until - time.monotonic() if until else None)
        if found.get(1, 0) & AT_END or (until and time.monotonic() > until):
            return
        if back.is_full and found.get(far.fileno(), 0) & AT_END:
            # It says nothing more, and has said more than is taken now. To look at it would not wait.
            until = time.monotonic() + LAST_PATIENCE


def wait(ways: tuple[Way, ...], watched: int, seconds: float | None) -> dict[int, int]:
    """Wait until one of the ways can go on, or an end is gone; return what there is by descriptor."""
    wanted = {1: 0}
    if watched:
        wanted[watched] = 0
    for way in ways:
        if way.is_full:
            wanted[way.target] = wanted.get(way.target, 0) | select.POLLOUT
        elif not way.has_ended:
            wanted[way.source] = wanted.get(way.source, 0) | select.POLLIN
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    return dict(poll.poll(None if seconds is None else max(0.0, seconds) * 1000))


if __name__ == "__main__":
    sys.exit(relay(sys.argv[1]))
