"""Five ports for a kernel that is yet to bind them.

The connection file names ports before the kernel exists. Between our choosing and the kernel's binding anybody could
be given one of them, and with thirty kernels starting at once somebody is. On Linux a port can be held: a socket that
is bound with SO_REUSEADDR and never listens keeps the port from being handed out, and does not keep a kernel from
binding it, since libzmq sets SO_REUSEADDR as well. Elsewhere the sockets are closed at once, and only this server's
own promises are kept apart.
"""

from __future__ import annotations

import socket
import sys
from types import TracebackType
from typing import Self

import attrs

from kallichore.errors import ConnectionInfoError
from kallichore.wire.connection_info import PORT_NAMES

ATTEMPTS = 10
"""How often ports are asked for anew because one was promised already (only where they cannot be held)."""


@attrs.define(eq=False)
class PortReservation:
    """Ports that are promised to a kernel until it has bound them. Made by `reserve_ports`."""

    ports: tuple[int, ...]
    _taken: set[int]
    _sockets: list[socket.socket] = attrs.field(factory=list)
    _closed: bool = attrs.field(default=False, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the ports free, or to the kernel that has bound them. Idempotent."""
        for held in self._sockets:
            held.close()
        self._sockets.clear()
        if not self._closed:
            # Once only: later the same numbers may be promised to another kernel.
            self._closed = True
            self._taken.difference_update(self.ports)


def reserve_ports(taken: set[int], count: int = len(PORT_NAMES), ip: str = "127.0.0.1") -> PortReservation:
    """Reserve ports.

    Args:
        taken: The ports that this server has promised; they are added here and leave with the reservation.
        count: How many.
        ip: The address on which they are to be free.

    Raises:
        ConnectionInfoError: There are not enough free ports.
    """
    for _ in range(ATTEMPTS):
        sockets: list[socket.socket] = []
        try:
            for _ in range(count):
                held = socket.socket()
                sockets.append(held)
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held.bind((ip, 0))
        except OSError as error:
            _close(sockets)
            raise ConnectionInfoError(f"Could not find {count} free ports on {ip}: {error.strerror}") from error
        ports = tuple(held.getsockname()[1] for held in sockets)
        if sys.platform != "linux":
            _close(sockets)
        if taken.isdisjoint(ports):
            taken.update(ports)
            return PortReservation(ports, taken, sockets)
        _close(sockets)
    raise ConnectionInfoError(f"Could not find {count} ports on {ip} that no other kernel was promised")


def _close(sockets: list[socket.socket]) -> None:
    for held in sockets:
        held.close()
    sockets.clear()
