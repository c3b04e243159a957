"""The contract of a session's own socket, over a Unix socket and over the double of a named pipe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from kallichore.attach.channel_sockets import ChannelSockets, OpenSocket, open_pipe, open_unix_socket
from kallichore.config import ServerConfig
from kallichore.errors import ChannelSocketError
from kallichore.server import Server, open_server
from kallichore.session.session import Session
from kallichore.transport.named_pipe import connect_named_pipe
from kernels import REAL_TIME, scripted
from memory_pipes import MemoryPipes

TOKEN = "secret"

Connect = Callable[[str], Any]


@pytest.fixture(params=[pytest.param("unix", marks=pytest.mark.posix_only("a Unix socket")), "pipe"])
def kind(request: pytest.FixtureRequest, private_place: Path) -> tuple[OpenSocket, Connect]:
    """Return how to open a session's socket, and how to connect to it."""
    if request.param == "unix":
        return partial(open_unix_socket, private_place), trio.open_unix_socket
    pipes = MemoryPipes()
    return partial(open_pipe, system=pipes), partial(connect_named_pipe, system=pipes)


@asynccontextmanager
async def open_sockets(open_socket: OpenSocket) -> AsyncIterator[tuple[Server, Session, ChannelSockets]]:
    """Open a server with one session, and its channel sockets."""
    config = ServerConfig(token=TOKEN)
    with trio.fail_after(REAL_TIME):
        async with open_server(config) as server, trio.open_nursery() as nursery:
            session = server.create_session(scripted())
            yield server, session, ChannelSockets(config, open_socket, nursery)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_client(stream: Any, token: str = TOKEN) -> AsyncIterator[WebSocketConnection]:
    """Open a WebSocket over a stream."""
    headers = [(b"authorization", f"Bearer {token}".encode())]
    async with stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, "localhost", "/api/channels/s", extra_headers=headers)
        nursery.cancel_scope.cancel()


async def test_clients_follow_one_another_on_one_socket(kind: tuple[OpenSocket, Connect]) -> None:
    """A session has one socket; its second client displaces the first, which is told and closed properly."""
    open_socket, connect = kind
    async with open_sockets(open_socket) as (_, session, sockets):
        path = await sockets.path_for(session)
        assert path == await sockets.path_for(session)
        session.conversation.say("output", ["stdout", "hello"])
        async with open_client(await connect(path)) as first:
            assert '"hello"' in await first.get_message()
            assert path == session.describe().socket_path
            async with open_client(await connect(path)) as second:
                assert "clientDisconnected" in await first.get_message()
                with pytest.raises(ConnectionClosed):
                    await first.get_message()
                session.conversation.say("output", ["stdout", "you too"])
                assert '"you too"' in await second.get_message()


async def test_refused_upgrade_displaces_nobody(kind: tuple[OpenSocket, Connect]) -> None:
    """A client without the token is refused, and the present client goes on."""
    open_socket, connect = kind
    async with open_sockets(open_socket) as (_, session, sockets):
        path = await sockets.path_for(session)
        async with open_client(await connect(path)) as client:
            with pytest.raises(BaseExceptionGroup) as refused:
                async with open_client(await connect(path), token="wrong"):
                    pytest.fail("it must not connect")
            session.conversation.say("output", ["stdout", "still here"])
            assert '"still here"' in await client.get_message()

    assert refused.group_contains(ConnectionRejected)


@pytest.mark.parametrize("data", [b"", b"\x81\x05hello", b"POST / HTTP/1.1\r\n\r\n", b"GE"])
async def test_what_is_no_upgrade_is_closed(kind: tuple[OpenSocket, Connect], data: bytes) -> None:
    """Whatever else arrives ends that connection and nothing more."""
    open_socket, connect = kind
    async with open_sockets(open_socket) as (_, session, sockets):
        stream = await connect(await sockets.path_for(session))
        if data:
            await stream.send_all(data)
        if len(data) > 3:
            answer = b""
            while more := await stream.receive_some():
                answer += bytes(more)
            assert answer[:10] in (b"", b"HTTP/1.1 4")
        await stream.aclose()
        assert 0 == len(session.audience)


async def test_socket_goes_with_its_session(kind: tuple[OpenSocket, Connect]) -> None:
    """Deleting a session closes its client and its socket."""
    open_socket, connect = kind
    async with open_sockets(open_socket) as (server, session, sockets):
        path = await sockets.path_for(session)
        async with open_client(await connect(path)) as client:
            server.delete_session("s")
            with pytest.raises(ConnectionClosed):
                await client.get_message()
        await wait_all_tasks_blocked()
        with pytest.raises(OSError):  # what it is depends on the kind
            await connect(path)


@pytest.mark.posix_only("a Unix socket")
async def test_path_that_is_too_long_is_refused_in_words(private_place: Path) -> None:
    """A directory that leaves no room for a name gives the API's code and the way out."""
    async with open_sockets(partial(open_unix_socket, private_place / ("d" * 90))) as (_, session, sockets):
        with pytest.raises(ChannelSocketError, match="--socket-dir") as refused:
            await sockets.path_for(session)

    assert "socket_path_too_long" == refused.value.code
