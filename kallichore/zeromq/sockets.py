"""One libzmq socket on Trio: wait for a message, never lose an edge.

A libzmq socket shows its state through a file descriptor that is *edge-triggered*: it becomes readable once when
something happens, whatever that is, and looking at EVENTS takes the edge away. So after each wait the socket itself is
asked, not the descriptor, and so it is before a wait, since a send may have swallowed the edge of what came meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import trio
import zmq


class TrioSocket:
    """A libzmq socket for one task, which receives and sends.

    Args:
        context: The ZeroMQ context; it stays the caller's.
        kind: The socket's type, such as ``zmq.REP``.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], kind: int) -> None:
        self.raw: zmq.Socket[bytes] = context.socket(kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.raw.close()

    def send(self, frames: Sequence[bytes]) -> None:
        """Send one message, now.

        Raises:
            zmq.ZMQError: The socket is closed, or its type cannot send now.
        """
        self.raw.send_multipart(frames, flags=zmq.DONTWAIT)

    async def receive(self) -> list[bytes]:
        """Wait for one message. Cancelling it loses nothing."""
        while True:
            try:
                return self.raw.recv_multipart(flags=zmq.DONTWAIT)
            except zmq.Again:
                await trio.lowlevel.wait_readable(int(self.raw.get(zmq.FD)))
