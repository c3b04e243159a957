"""The proxy of the tests: each fault is the one that was asked for, at the byte that was asked for."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kallichore.client.address import Address
from kallichore.client.api_client import open_stream
from kernels import REAL_TIME
from scripted_proxy import Connection, Ending, open_proxy


async def _echo(stream: trio.SocketStream) -> None:
    async with stream:
        try:
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass


@asynccontextmanager
async def open_echo(place: Path | None = None) -> AsyncIterator[Address]:
    """Run a server that sends back what it is sent, on TCP or on a Unix socket, and yield its address."""
    if place is None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = Address(host="127.0.0.1", port=listener.socket.getsockname()[1])
    else:
        raw = trio.socket.socket(socket.AF_UNIX)
        address = Address(socket_path=str(place / "echo.sock"))
        await raw.bind(address.socket_path)
        raw.listen()
        listener = trio.SocketListener(raw)
    async with listener, trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, _echo, [listener])
        with trio.fail_after(REAL_TIME):  # noqa: ASYNC100  # the block of the caller waits
            yield address
        nursery.cancel_scope.cancel()


async def receive_exactly(stream: trio.abc.Stream, count: int) -> bytes:
    """Receive so many bytes."""
    data = b""
    while len(data) < count and (more := await stream.receive_some(count - len(data))):
        data += bytes(more)
    return data


async def receive_rest(stream: trio.abc.Stream) -> tuple[bytes, bool]:
    """Receive until the connection ends; return what came, and whether the end was in order."""
    data = b""
    try:
        while more := await stream.receive_some():
            data += bytes(more)
    except trio.BrokenResourceError:
        return data, False
    return data, True


@pytest.mark.parametrize("transport", ["tcp", pytest.param("socket", marks=pytest.mark.posix_only("a Unix socket"))])
async def test_bytes_and_ends_pass_in_both_directions(transport: str, private_place: Path) -> None:
    """What is sent arrives; a client that has nothing more to say still hears the rest, and then the end."""
    async with open_echo(private_place if transport == "socket" else None) as address, open_proxy(address) as proxy:
        async with await open_stream(proxy.address) as stream:
            await stream.send_all(b"x" * 100_000)
            assert isinstance(stream, trio.SocketStream)
            await stream.send_eof()
            heard = await receive_rest(stream)
        connection = await proxy.wait_connection(0)
        await connection.over.wait()

    assert (b"x" * 100_000, True) == heard
    assert (100_000, 100_000) == (connection.to_server.passed, connection.to_client.passed)


@pytest.mark.parametrize(("ending", "in_order"), [(Ending.RESET, False), (Ending.FINISH, True)])
@pytest.mark.parametrize("lane", ["to_server", "to_client"])
async def test_cut_after_a_number_of_bytes(lane: str, ending: Ending, in_order: bool) -> None:
    """So many bytes arrive and no more; the end is hard or in order, as it was asked for, in either direction."""

    def prepare(connection: Connection) -> None:
        getattr(connection, lane).limit = 5
        connection.ending = ending

    async with open_echo() as address, open_proxy(address, prepare) as proxy:
        async with await open_stream(proxy.address) as stream:
            await stream.send_all(b"0123456789")
            heard = await receive_rest(stream)
        connection = await proxy.wait_connection(0)
        await connection.over.wait()

    assert in_order == heard[1]
    assert 5 == getattr(connection, lane).passed
    # What the server has got and sends back comes too late: the connection is cut for both.
    assert heard[0] in ((b"01234",) if lane == "to_client" else (b"", b"01234"))


async def test_cut_at_a_word_of_command() -> None:
    """A connection works until it is cut, and then is over at both ends; the next one is not concerned."""
    async with open_echo() as address, open_proxy(address) as proxy:
        async with await open_stream(proxy.address) as first, await open_stream(proxy.address) as second:
            await first.send_all(b"one")
            one = await receive_exactly(first, 3)
            connection = await proxy.wait_connection(0)
            connection.cut(Ending.RESET)
            rest = await receive_rest(first)
            await connection.over.wait()
            await second.send_all(b"two")
            two = await receive_exactly(second, 3)

    assert (b"one", (b"", False), b"two") == (one, rest, two)


async def test_stalled_lane_holds_everything_and_loses_nothing() -> None:
    """Nothing comes through a stalled lane while the other works; afterwards all of it does, in order."""
    async with open_echo() as address, open_proxy(address) as proxy:
        async with await open_stream(proxy.address) as stream:
            connection = await proxy.wait_connection(0)
            connection.to_client.stall()
            await stream.send_all(b"held ")
            await stream.send_all(b"back")
            while connection.to_server.passed < 9:  # noqa: ASYNC110  # it only counts
                await trio.lowlevel.checkpoint()
            before = connection.to_client.passed
            connection.to_client.go_on()
            heard = await receive_exactly(stream, 9)

    assert (0, b"held back") == (before, heard)


async def test_delay_is_waited_for() -> None:
    """What passes a delayed lane comes no sooner than after the delay."""
    async with open_echo() as address, open_proxy(address) as proxy:
        async with await open_stream(proxy.address) as stream:
            (await proxy.wait_connection(0)).to_client.delay = 0.05
            began = trio.current_time()
            await stream.send_all(b"late")
            heard = await receive_exactly(stream, 4)
            elapsed = trio.current_time() - began

    assert b"late" == heard
    assert elapsed >= 0.05


async def test_dropped_bytes_are_gone() -> None:
    """What is sent while a lane drops is never heard of; what is sent afterwards is."""
    async with open_echo() as address, open_proxy(address) as proxy:
        async with await open_stream(proxy.address) as stream:
            connection = await proxy.wait_connection(0)
            connection.to_client.drop = True
            await stream.send_all(b"gone")
            while connection.to_client.dropped < 4:  # noqa: ASYNC110  # it only counts
                await trio.lowlevel.checkpoint()
            connection.to_client.drop = False
            await stream.send_all(b"kept")
            heard = await receive_exactly(stream, 4)

    assert b"kept" == heard


async def test_server_that_is_not_there_ends_the_connection() -> None:
    """A client of a proxy with nothing behind it is let go."""
    async with open_echo() as address:
        pass
    with trio.fail_after(REAL_TIME):
        async with open_proxy(address) as proxy, await open_stream(proxy.address) as stream:
            heard = await receive_rest(stream)

    assert b"" == heard[0]
