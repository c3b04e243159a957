"""Where hosts dial in: the server's side of connections from machines that it cannot connect to.

A host in a batch job or a pod connects to its server by TLS and says sixteen bytes, by which it is known here (see
`kallichore/host/dial.py`). Whoever has registered these is given the connection, as a plain socket like that of a host
on this machine: what comes by TLS is carried to it and back. Those bytes are no proof of anything. As everywhere, host
and server prove each other by the session's secret, on this connection, that they are what they say.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self

import attrs
import trio

from kallichore.engines.certificate import Certificate, server_context
from kallichore.engines.complaints import Complaints
from kallichore.transport.tcp import open_tcp_listeners

logger = logging.getLogger(__name__)

ID_SIZE = 16
"""Bytes by which a host is known. They are random, so that nobody finds a registration by trying."""

STRANGER_PATIENCE = 10.0
"""Seconds that somebody may take to shake hands and say who it is."""

MOST_STRANGERS = 256
"""Connections of such; the oldest has to make way for the next. A thousand hosts that come back at once are no more
than that at a time, since each tries again after a while of its own."""

PIECE = 1 << 16
"""Bytes that are carried at once."""

IDLE, INTERVAL, PROBES = 15, 5, 3
"""Seconds after which a silent connection is probed, between two probes, and how many may be lost."""

EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104  # who runs the server says where hosts may dial in
"""What means all of a machine's addresses, and is none that anybody can connect to."""

LAST_PATIENCE = 5.0
"""Seconds in which a host has to take the rest when our side hangs up."""

_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Registration:
    """What is waited for from one host. Made by `Desk.register`; leaving the block closes what there is of it.

    Args:
        desk: Where it dials in.
        identity: Its sixteen bytes.
    """

    def __init__(self, desk: Desk, identity: bytes) -> None:
        self._desk, self.identity = desk, identity
        self._connection: socket.socket | None = None
        """The latest, if nobody has taken it."""
        self._came = trio.Event()
        self._carrying: trio.CancelScope | None = None

    def __repr__(self) -> str:
        state = "connected" if self._carrying is not None else "away"
        return f"<Registration of a host that is {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._desk._forget(self)
        self._hang_up()

    async def next_connection(self) -> socket.socket:
        """Wait until the host dials in, and return the connection: a socket that does not block.

        One that was not taken before the next came, or before its host hung up, is gone. Cancelling loses none.
        """
        await trio.lowlevel.checkpoint()
        while self._connection is None:
            await self._came.wait()
        connection, self._connection = self._connection, None
        self._came = trio.Event()
        return connection

    async def _carry(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        """Be this host's connection, until one of both sides hangs up or another takes its place."""
        self._hang_up()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        near = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        with trio.CancelScope() as scope:
            self._connection, self._carrying = ours, scope
            self._came.set()
            try:
                await _carry_both(stream, near)
            finally:
                if self._carrying is scope:
                    self._carrying = None
                if self._connection is ours:
                    self._drop()

    def _hang_up(self) -> None:
        self._drop()
        if self._carrying is not None:
            self._carrying.cancel()
            self._carrying = None

    def _drop(self) -> None:
        """Close what nobody has taken."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._came = trio.Event()


async def _carry_both(stream: trio.SSLStream[trio.SocketStream], near: trio.SocketStream) -> None:
    """Carry bytes both ways until one of the ends is gone; cancelling it leaves nothing of what was on its way.

    What our side said last is taken by the host before the connection is closed: closed with something unread on it,
    a connection is reset, which would throw that away.
    """
    async with near, trio.open_nursery() as nursery:

        async def carry_there() -> None:
            with suppress(*_BROKEN):
                while data := await _receive(near):
                    await stream.send_all(data)
                await stream.transport_stream.send_eof()
                nursery.cancel_scope.deadline = trio.current_time() + LAST_PATIENCE
                return
            nursery.cancel_scope.cancel()

        async def carry_back() -> None:
            is_taken = True
            with suppress(*_BROKEN):
                while data := await stream.receive_some(PIECE):
                    try:
                        if is_taken:
                            await near.send_all(data)
                    except _BROKEN:
                        is_taken = False
            nursery.cancel_scope.cancel()

        nursery.start_soon(carry_there)
        await carry_back()


async def _receive(near: trio.SocketStream) -> bytes:
    """Return what comes next from our side; nothing also where that hung up without having read everything."""
    try:
        return await near.receive_some(PIECE)
    except _BROKEN:
        return b""


@attrs.define(eq=False)
class Desk:
    """Where hosts dial in. Made by `open_dial_in`.

    Attributes:
        address: Host and port at which hosts reach it: what it was told to listen at; where that was all addresses,
            what this machine calls itself.
        certificate: The one that it has, as PEM: what hosts are told.
    """

    address: tuple[str, int]
    certificate: str
    _registrations: dict[bytes, Registration] = attrs.field(factory=dict, init=False)
    _strangers: dict[object, trio.CancelScope] = attrs.field(factory=dict, init=False)
    """Those who have not said who they are, the oldest first."""
    _complaints: Complaints = attrs.field(factory=Complaints, init=False)

    def register(self, identity: bytes) -> Registration:
        """Wait for a host, as long as the block of what is returned lasts.

        Args:
            identity: `ID_SIZE` random bytes, which the host was told.

        Raises:
            ValueError: They are not as many, or somebody waits for them already.
        """
        if len(identity) != ID_SIZE or identity in self._registrations:
            raise ValueError("a host is registered once, by sixteen bytes")
        registration = self._registrations[identity] = Registration(self, identity)
        return registration

    def _forget(self, registration: Registration) -> None:
        self._registrations.pop(registration.identity, None)

    async def _meet(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        """Serve one connection to its end; nothing that it does is an error of ours."""
        peer = _name_of(stream.transport_stream)
        _keep_alive(stream.transport_stream)
        identity = await self._ask(stream)
        registration = self._registrations.get(identity or b"")
        if registration is not None:
            try:
                await registration._carry(stream)
            except OSError as error:
                self._complain(peer, f"cannot be given on: {error}")
        else:
            self._complain(peer, "did not say which" if identity is None else "is waited for by nobody")
        await trio.aclose_forcefully(stream)

    async def _ask(self, stream: trio.SSLStream[trio.SocketStream]) -> bytes | None:
        """Return what somebody says to be; None where it does not say so in time."""
        if len(self._strangers) >= MOST_STRANGERS:
            self._strangers.pop(next(iter(self._strangers))).cancel()
        said = bytearray()
        with trio.move_on_after(STRANGER_PATIENCE) as scope:
            self._strangers[stream] = scope
            try:
                await stream.do_handshake()
                while len(said) < ID_SIZE:
                    data = await stream.receive_some(ID_SIZE - len(said))
                    if not data:
                        return None
                    said += data
                return bytes(said)
            except trio.BrokenResourceError:
                return None
            finally:
                self._strangers.pop(stream, None)
        return None

    def _complain(self, peer: str, what: str) -> None:
        text = self._complaints.add(f"Hung up on {peer}, which dialled in as a host and {what}", trio.current_time())
        if text is not None:
            logger.warning("%s", text)


@asynccontextmanager
async def open_dial_in(host: str, port: int, certificate: Certificate) -> AsyncIterator[Desk]:
    """Listen for hosts that dial in, as long as the block lasts; then their connections are closed.

    Errors of the block come out in a group, as out of a nursery.

    Args:
        host: The address or name of this machine at which they come; empty for all of its addresses.
        port: The port; 0 for one that the system chooses.
        certificate: What this server shows them.

    Raises:
        OSError: It cannot listen there, or the certificate cannot be understood.
    """
    context = server_context(certificate)
    listeners = await open_tcp_listeners(port, host or None)
    secure = [trio.SSLListener(listener, context, https_compatible=True) for listener in listeners]
    number = listeners[0].port
    desk = Desk((socket.gethostname() if host in EVERYWHERE else host, number), certificate.pem)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, desk._meet, secure)
        try:
            yield desk
        finally:
            nursery.cancel_scope.cancel()


def _name_of(stream: trio.SocketStream) -> str:
    with suppress(OSError):
        return str(stream.socket.getpeername()[0])
    return "somebody"


def _keep_alive(stream: trio.SocketStream) -> None:
    """Have a connection probed while it is silent: without that a host whose machine is gone would never be missed."""
    options = {"TCP_KEEPIDLE": IDLE, "TCP_KEEPALIVE": IDLE, "TCP_KEEPINTVL": INTERVAL, "TCP_KEEPCNT": PROBES}
    # In milliseconds: what was sent and is not acknowledged.
    options["TCP_USER_TIMEOUT"] = (IDLE + INTERVAL * PROBES) * 1000
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if hasattr(socket, name):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
