"""The contract of one connection to a kernel, whatever it speaks.

There are three: `kallichore.zeromq.kernel_socket` speaks the NULL mechanism on a socket of Trio's,
`kallichore.zeromq.hosted_socket` on a connection that a host beside the kernel holds, and
`kallichore.zeromq.curve_socket` is libzmq's, for kernels that encrypt. Nobody looks at the bytes of any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from kallichore.wire.frames import Frames


class KernelConnection(Protocol):
    """A connection that one task receives from, and any may send on.

    It connects again and again until somebody listens, and again when it was lost. Sends never wait.

    Attributes:
        connected: Set when the first handshake is done.
        lost: Set when the kernel's side ended the connection, and all that had come was taken.
    """

    connected: trio.Event
    lost: trio.Event

    async def connect(self, hurry: trio.Event) -> None:
        """Connect and shake hands, as often as it takes. Cancelling closes what was begun.

        Args:
            hurry: Set when there is reason to think that the kernel listens now: then no pause is long.

        Raises:
            OSError: The address is none, there are no descriptors left, or (`ForeignKernelError`) the kernel is one
                that we shall never understand.
        """

    def send(self, frames: Sequence[bytes]) -> None:
        """Send one message: now, or as soon as there is a connection that takes it."""

    @property
    def is_drained(self) -> bool:
        """Whether all that came was taken, as far as can be told without another read."""

    async def receive_batch(self) -> list[Frames]:
        """Wait for messages, and return some that came, a bounded amount. Cancelling it loses nothing."""

    def drain(self) -> list[Frames]:
        """Return messages that are here, or can be read now; empty only if there are no more."""

    def close(self) -> None:
        """Close the connection; what was not sent yet is dropped. Idempotent."""
