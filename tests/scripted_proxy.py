"""A proxy between a client and a server that does to their connections what networks do. For tests.

``async with open_proxy(address, prepare) as proxy`` listens on the same kind of transport as the server at ``address``
(TCP or a Unix socket) and connects to that server once for each client that connects to ``proxy.address``. Every
connection has two lanes, ``to_server`` and ``to_client``; what is set on a lane holds for the bytes that come next:

=======================  ===============================================================================================
``lane.delay = SECONDS``  each piece waits for that long before it goes on
``lane.stall()``         nothing goes on, and nothing is read either, until ``lane.go_on()``: a sender's buffers fill up
``lane.drop = True``     what comes is thrown away, and the sender hears nothing of it
``lane.limit = N``       after N bytes in all, the connection is cut in the way of ``connection.ending``
``lane.passed``          how many bytes went on so far, and ``lane.dropped``: how many were thrown away
=======================  ===============================================================================================

``connection.cut(Ending.RESET)`` cuts now, with both sides told that the connection broke (on a Unix socket, which knows
no reset, they see its end, or a broken pipe). ``connection.cut(Ending.FINISH)`` ends both lanes in order: each side has
read all that went on before it sees the end. ``connection.over`` is an event, set when nothing is left of a connection.

``prepare`` is called with each new connection before its first byte; so a cut can be set to come at a certain byte.
``buffer`` is about how many bytes the way itself holds in each direction; without it that is up to some megabytes.
``proxy.connections`` has all so far, in order, and ``await proxy.wait_connection(number)`` waits for one, from 0.
"""

from __future__ import annotations

import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path

import attrs
import trio
import trio_util

from kallichore.client.address import Address

READ_SIZE = 1 << 16


class Ending(Enum):
    """How a connection is cut."""

    RESET = "reset"
    FINISH = "finish"


@attrs.define(eq=False)
class Lane:
    """One direction of a connection; see above."""

    delay: float = 0.0
    drop: bool = False
    limit: int | None = None
    passed: int = 0
    dropped: int = 0
    _open: trio_util.AsyncBool = attrs.field(factory=lambda: trio_util.AsyncBool(True))

    def stall(self) -> None:
        """Hold everything back."""
        self._open.value = False

    def go_on(self) -> None:
        """Hold nothing back any more."""
        self._open.value = True

    @property
    def is_used_up(self) -> bool:
        """Whether no more bytes may pass."""
        return self.limit is not None and self.passed >= self.limit

    async def carry(self, source: trio.SocketStream, target: trio.SocketStream) -> bool:
        """Carry bytes until the source's end, or the limit; return whether it was the limit."""
        while not self.is_used_up:
            await self._open.wait_value(True)
            data = await source.receive_some(READ_SIZE)
            if not data:
                return False
            if self.delay:
                await trio.sleep(self.delay)
            await self._open.wait_value(True)
            if self.drop:
                self.dropped += len(data)
                continue
            data = data if self.limit is None else data[: self.limit - self.passed]
            await target.send_all(data)
            self.passed += len(data)
        return True


@attrs.define(eq=False)
class Connection:
    """One client's connection to the server; see above."""

    client: trio.SocketStream
    server: trio.SocketStream
    ending: Ending = Ending.RESET
    to_server: Lane = attrs.field(factory=Lane)
    to_client: Lane = attrs.field(factory=Lane)
    over: trio.Event = attrs.field(factory=trio.Event)
    _cut: trio.Event = attrs.field(factory=trio.Event)

    def cut(self, ending: Ending) -> None:
        """Cut the connection now, whatever is on its way."""
        self.ending = ending
        self._cut.set()

    async def run(self) -> None:
        """Carry bytes in both directions until both have ended, or the connection is cut or breaks."""
        try:
            async with self.client, self.server:
                await trio_util.wait_any(self._cut.wait, self._carry)
                if self._cut.is_set():
                    await self._end()
        finally:
            self.over.set()

    async def _carry(self) -> None:
        await trio_util.wait_all(
            lambda: self._carry_one(self.to_server, self.client, self.server),
            lambda: self._carry_one(self.to_client, self.server, self.client),
        )

    async def _carry_one(self, lane: Lane, source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            if await lane.carry(source, target):
                self._cut.set()
            else:
                await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # One side broke it; so shall the other see it.
            self.cut(Ending.RESET)

    async def _end(self) -> None:
        if self.ending is Ending.RESET:
            for stream in (self.client, self.server):
                if stream.socket.family == socket.AF_INET:
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        await trio_util.wait_all(lambda: _finish(self.client), lambda: _finish(self.server))


async def _finish(stream: trio.SocketStream) -> None:
    """Say that nothing more comes, and wait until the other side has nothing more either: a socket that is closed with
    something unread is reset.
    """
    try:
        await stream.send_eof()
        while await stream.receive_some(READ_SIZE):
            pass
    except trio.BrokenResourceError:
        pass


@attrs.define(eq=False)
class Proxy:
    """What `open_proxy` yields; see above."""

    address: Address
    buffer: int | None = None
    connections: list[Connection] = attrs.field(factory=list)
    _count: trio_util.AsyncValue[int] = attrs.field(factory=lambda: trio_util.AsyncValue(0))

    async def wait_connection(self, number: int) -> Connection:
        """Wait until so many clients have connected before this one, and return its connection."""
        await self._count.wait_value(lambda count: count > number)
        return self.connections[number]

    async def serve(self, client: trio.SocketStream, target: Address, prepare: Callable[[Connection], object]) -> None:
        """Serve one client."""
        async with client:
            try:
                server = await _connect(target, self.buffer)
            except OSError:
                # Nobody is there, so nobody answers the client either.
                return
            connection = Connection(client, server)
            prepare(connection)
            self.connections.append(connection)
            self._count.value = len(self.connections)
            await connection.run()


def _make_socket(family: int, buffer: int | None) -> trio.socket.SocketType:
    raw = trio.socket.socket(family)
    if buffer is not None:
        # Before it is connected or listens: later it would not narrow the window that the other side was promised.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    return raw


async def _connect(target: Address, buffer: int | None) -> trio.SocketStream:
    on_tcp = target.socket_path is None
    raw = _make_socket(socket.AF_INET if on_tcp else socket.AF_UNIX, buffer)
    try:
        await raw.connect((target.host, target.port) if on_tcp else target.socket_path)
    except BaseException:
        raw.close()
        raise
    return trio.SocketStream(raw)


async def _listen(target: Address, buffer: int | None, directory: str) -> tuple[trio.SocketListener, Address]:
    """Listen as a server like ``target`` does; return the listener and its address."""
    if target.socket_path is None:
        raw = _make_socket(socket.AF_INET, buffer)
        await raw.bind(("127.0.0.1", 0))
        address = attrs.evolve(target, port=raw.getsockname()[1])
    else:
        raw = _make_socket(socket.AF_UNIX, buffer)
        address = attrs.evolve(target, socket_path=str(Path(directory, "proxy.sock")))
        await raw.bind(address.socket_path)
    raw.listen()
    return trio.SocketListener(raw), address


@asynccontextmanager
async def open_proxy(
    target: Address, prepare: Callable[[Connection], object] = id, *, buffer: int | None = None
) -> AsyncIterator[Proxy]:
    """Run a proxy before a server; leaving the block closes what is still connected."""
    with tempfile.TemporaryDirectory() as directory:
        listener, address = await _listen(target, buffer, directory)
        proxy = Proxy(address, buffer)
        async with listener, trio.open_nursery() as nursery:

            async def serve(client: trio.SocketStream) -> None:
                await proxy.serve(client, target, prepare)

            await nursery.start(trio.serve_listeners, serve, [listener])
            yield proxy
            nursery.cancel_scope.cancel()
