"""TCP listeners for which a client that is gone before it was accepted is nothing.

Trio's own have patience with such clients where the system says that it is one. Wine says, of a connection that was
reset, that it is none (ENOTCONN), and Trio would take that for the listener's end, and so the server's.
"""

from __future__ import annotations

import errno
import logging

import attrs
import trio

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class TcpListener(trio.abc.Listener[trio.SocketStream]):
    """Hands out the connections of clients, one after another."""

    _listener: trio.SocketListener

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return int(self._listener.socket.getsockname()[1])

    async def accept(self) -> trio.SocketStream:
        """Wait for a client that is there. Cancelling loses none.

        Raises:
            trio.ClosedResourceError: The listener is closed.
            OSError: The system has no more to give; see `trio.serve_listeners`.
        """
        while True:
            try:
                return await self._listener.accept()
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise
                logger.debug("A client on port %d was gone at once: %s", self.port, error)
            # There may be no end of them: others have their turn.
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close the port; connections that were handed out go on. Idempotent."""
        self._listener.socket.close()

    async def aclose(self) -> None:
        """Do what `close` does."""
        self.close()
        await trio.lowlevel.checkpoint()


async def open_tcp_listeners(port: int, host: str | None) -> list[TcpListener]:
    """Listen on a port, 0 for any, of all of a host's addresses; None is every address of this machine.

    Raises:
        OSError: It cannot be had.
    """
    return [TcpListener(listener) for listener in await trio.open_tcp_listeners(port, host=host)]
