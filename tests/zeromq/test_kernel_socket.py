"""What our own connections have beyond the contract: what waits here, and how it is read."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
import zmq

from kallichore.wire.zmtp import LARGE, SUBSCRIPTION, encode, opening
from kallichore.zeromq.kernel_socket import MOST_PIECES, KernelSocket
from kallichore.zeromq.unread import PIECE, Budget

LIMIT = 20.0

LIMIT_BYTES = 64 << 20


Bind = Callable[..., tuple[Any, Any]]


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Return what makes a socket as a kernel has it, and tells its address."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = []

    def bind(kind: int, place: str = "tcp://127.0.0.1:*") -> tuple[Any, Any]:
        kernel = context.socket(kind)
        sockets.append(kernel)
        kernel.sndhwm = kernel.rcvhwm = 0
        kernel.bind(place)
        transport, _, where = kernel.last_endpoint.decode().partition("://")
        return kernel, where if transport == "ipc" else ("127.0.0.1", int(where.rpartition(":")[2]))

    yield bind
    for kernel in sockets:
        kernel.close(linger=0)
    context.term()


@asynccontextmanager
async def connected(
    address: Any, kind: str = "DEALER", identity: bytes = b"", budget: Budget | None = None
) -> AsyncIterator[KernelSocket]:
    """Yield a connection."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            ours = KernelSocket(address, kind, identity, nursery, budget or Budget(LIMIT_BYTES))
            await ours.connect(trio.Event())
            yield ours
            nursery.cancel_scope.cancel()
        ours.close()


async def receive(ours: KernelSocket, count: int) -> list[list[bytes]]:
    """Receive so many messages."""
    messages: list[list[bytes]] = []
    while len(messages) < count:
        messages += await ours.receive_batch()
    return messages


# What waits here


class RawKernel:
    """A kernel's side that sends what bytes it likes, when it likes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def flood(self, messages: int) -> list[list[bytes]]:
        """Send messages of a kilobyte; return them."""
        sent = [[b"topic", b"%04d" % number, bytes(1000)] for number in range(messages)]
        await self.stream.send_all(b"".join(piece for frames in sent for piece in encode(frames)))
        return sent


@asynccontextmanager
async def raw_kernel(budget: Budget) -> AsyncIterator[tuple[KernelSocket, RawKernel]]:
    """Yield a connection and its other side, behind the handshake."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        streams: list[trio.SocketStream] = []
        is_ready = trio.Event()

        async def accept() -> None:
            stream = await listener.accept()
            await stream.send_all(opening("PUB"))
            heard = b""
            # All of it, since a connection that is closed with something unread loses what was sent.
            while not heard.endswith(SUBSCRIPTION):
                heard += await stream.receive_some()
            streams.append(stream)
            is_ready.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            async with connected(listener.socket.getsockname(), "SUB", budget=budget) as ours:
                await is_ready.wait()
                async with streams[0]:
                    yield ours, RawKernel(streams[0])


async def arrives(ours: KernelSocket, size: int) -> None:
    """Wait until so many bytes can be read."""
    assert ours._socket is not None
    await trio.lowlevel.wait_readable(ours._socket)
    while len(ours._socket.recv(size, socket.MSG_PEEK)) < size:  # noqa: ASYNC110  # nobody tells
        await trio.sleep(0.001)


async def test_all_that_is_there_is_read_before_the_first_of_it_is_taken() -> None:
    """One batch is a piece; the others wait here, in their order, and are counted until they are taken."""
    budget = Budget(LIMIT_BYTES)
    async with raw_kernel(budget) as (ours, kernel):
        sent = await kernel.flood(500)
        size = sum(len(piece) for frames in sent for piece in encode(frames))
        await arrives(ours, size)
        first = await ours.receive_batch()
        waiting = budget.used
        rest = await receive(ours, 500 - len(first))

    assert size - PIECE == waiting
    assert sent == first + rest
    assert 0 == budget.used


async def test_one_turn_reads_a_bounded_amount() -> None:
    """A kernel that never pauses leaves others their turn: a megabyte, then the first batch."""
    budget = Budget(LIMIT_BYTES)
    async with raw_kernel(budget) as (ours, kernel), trio.open_nursery() as nursery:
        nursery.start_soon(kernel.flood, 4000)
        await arrives(ours, (MOST_PIECES + 4) * PIECE)
        await ours.receive_batch()
        first = budget.used
        await ours.receive_batch()
        second = budget.used
        nursery.cancel_scope.cancel()

    assert MOST_PIECES * PIECE == first
    assert first <= second + PIECE <= first + MOST_PIECES * PIECE


async def test_what_may_wait_is_bounded_and_nothing_is_lost_beyond_it() -> None:
    """At the limit nothing more is read until some was taken; the rest stays in the connection."""
    budget, most = Budget(4 * PIECE), 0
    async with raw_kernel(budget) as (ours, kernel), trio.open_nursery() as nursery:
        nursery.start_soon(kernel.flood, 4000)
        messages: list[list[bytes]] = []
        while len(messages) < 4000:
            messages += await ours.receive_batch()
            most = max(most, budget.used)

    assert [b"%04d" % number for number in range(4000)] == [frames[1] for frames in messages]
    assert 0 < most <= budget.limit + PIECE


async def test_connection_is_read_though_others_have_used_up_what_may_wait() -> None:
    """A reply is taken while output waits for its turn."""
    budget = Budget(PIECE, used=PIECE)
    async with raw_kernel(budget) as (ours, kernel):
        sent = await kernel.flood(100)
        found = await receive(ours, 100)

    assert sent == found


async def test_end_of_the_connection_is_told_behind_what_was_said_before_it() -> None:
    """Who waits for the loss knows then that everything has been taken."""
    async with raw_kernel(Budget(LIMIT_BYTES)) as (ours, kernel):
        sent = await kernel.flood(500)
        await kernel.stream.aclose()
        messages: list[list[bytes]] = []
        while len(messages) < 500:
            messages += await ours.receive_batch()
            assert not ours.lost.is_set()
        assert not ours.is_drained
        rest = ours.drain()

        assert ours.lost.is_set()
    assert (sent, []) == (messages, rest)


async def test_drain_takes_everything_also_what_is_large() -> None:
    """It is empty only when there is no more, not where a read completes no message."""
    large = [[b"small"], [bytes(40 * LARGE)], [b"behind"]]
    async with raw_kernel(Budget(LIMIT_BYTES)) as (ours, kernel):
        sent = await kernel.flood(100)
        data = b"".join(piece for frames in large for piece in encode(frames))
        await kernel.stream.send_all(data)
        await arrives(ours, len(data) + sum(len(piece) for frames in sent for piece in encode(frames)))
        messages = []
        while batch := ours.drain():
            messages += batch

    assert sent + large == messages


async def test_large_message_is_received_into_its_place() -> None:
    """It is not read ahead, and so not copied from there."""
    budget = Budget(LIMIT_BYTES)
    async with raw_kernel(budget) as (ours, kernel), trio.open_nursery() as nursery:
        head, body = encode([bytes(32 * LARGE)])
        messages: list[list[bytes]] = []

        async def read() -> None:
            messages.extend(await ours.receive_batch())

        await kernel.stream.send_all(head + body[: 16 * LARGE])
        await arrives(ours, 16 * LARGE)
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        waiting, missing = budget.used, ours._decoder.missing
        await kernel.stream.send_all(body[16 * LARGE :])

    assert (0, 16 * LARGE) == (waiting, missing)
    assert [[bytes(32 * LARGE)]] == messages


async def test_connection_that_is_closed_gives_back_what_waited() -> None:
    """What nobody will take is not counted."""
    budget = Budget(LIMIT_BYTES)
    async with raw_kernel(budget) as (ours, kernel):
        sent = await kernel.flood(500)
        await arrives(ours, 400 * 1000)
        await ours.receive_batch()
        waiting = budget.used
        ours.close()

    assert sent
    assert (True, 0) == (waiting > 0, budget.used)


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is Linux's")
async def test_connection_has_a_large_buffer_that_may_still_grow(bind: Bind) -> None:
    """It is as large as the system allows, and not fixed to that."""
    _, address = bind(zmq.XPUB)
    with socket.socket() as plain:
        default = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    async with connected(address, "SUB") as ours:
        assert ours._socket is not None
        size = ours._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        locks = ours._socket.getsockopt(socket.SOL_SOCKET, 72)

    assert default < size
    assert 0 == locks
