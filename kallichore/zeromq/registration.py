"""The socket with which a starting kernel registers itself (JEP 66): the one that we bind, and so libzmq's work.

libzmq is loaded for the first kernel that registers: 12 ms of a server's start that nobody has to wait for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from kallichore.errors import StartupError, StartupReason
from kallichore.wire.client_messages import Sender
from kallichore.wire.frames import FramesError, MessageParts, join, split
from kallichore.wire.handshake import HandshakeError, KernelPorts, make_reply, read_request
from kallichore.wire.signing import Signer

if TYPE_CHECKING:
    import zmq

    from kallichore.zeromq.sockets import TrioSocket


class RegistrationSocket:
    """A REP socket on a port of the system's choice. Made by `RegistrationDesk.open`.

    Attributes:
        port: The port, for the registration file.
        refused: Why messages were refused so far, in words; the last is the most telling.
    """

    def __init__(self, socket: TrioSocket, signer: Signer, port: int) -> None:
        self._socket = socket
        self._signer = signer
        self.port = port
        self.refused: list[str] = []

    async def receive(self, sender: Sender, stamp: Callable[[], tuple[str, str]]) -> KernelPorts:
        """Wait for a good ``handshake_request``, answer it, and return the kernel's ports.

        A stray or bad message is answered with the reason and does not spoil the start. Cancelling leaves the socket
        open and a kernel that asks unanswered.

        Args:
            sender: The session's fields for the reply's header.
            stamp: Returns a new message id and the date.
        """
        while True:
            frames = await self._socket.receive()
            header: bytes | None = None
            try:
                parts = split(frames, self._signer)
                header = parts.header
                ports = read_request(parts)
            except (FramesError, HandshakeError) as error:
                self.refused.append(str(error))
                self._answer(header, sender, *stamp(), str(error))
            else:
                self._answer(header, sender, *stamp(), None)
                return ports

    def _answer(self, header: bytes | None, sender: Sender, msg_id: str, date: str, error: str | None) -> None:
        reply: MessageParts = make_reply(header, sender, msg_id, date, error)
        self._socket.send(join(reply, self._signer))


@attrs.define(eq=False)
class RegistrationDesk:
    """Where the kernels of one server register. `close` ends ZeroMQ for it."""

    _context: zmq.Context[zmq.Socket[bytes]] | None = attrs.field(default=None, init=False)

    @asynccontextmanager
    async def open(self, signer: Signer) -> AsyncIterator[RegistrationSocket]:
        """Bind a registration socket on 127.0.0.1; closed on leaving, after the last reply had its chance to go out.

        Raises:
            StartupError: ``KS-17``, no port could be bound.
        """
        import zmq

        from kallichore.zeromq.sockets import TrioSocket

        try:
            if self._context is None:
                self._context = zmq.Context()
            with TrioSocket(self._context, zmq.REP) as socket:
                # The reply to a kernel that registered is still on its way when the socket is closed.
                socket.raw.linger = 1000
                port = socket.raw.bind_to_random_port("tcp://127.0.0.1")
                yield RegistrationSocket(socket, signer, port)
        except zmq.ZMQError as error:
            text = f"The registration socket failed: {error}"
            raise StartupError("KS-17", text, reason=StartupReason.NO_RESOURCES) from error

    def close(self) -> None:
        """Close what is left. Idempotent."""
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None
