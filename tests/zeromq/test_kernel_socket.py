"""One connection to a kernel, against sockets of libzmq's, which is what kernels have."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import zmq

from kallichore.wire.zmtp import opening
from kallichore.zeromq.kernel_socket import KernelSocket

LIMIT = 20.0


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
async def connected(address: Any, kind: str = "DEALER", identity: bytes = b"") -> AsyncIterator[KernelSocket]:
    """Yield a connection."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            ours = KernelSocket(address, kind, identity, nursery)
            await ours.connect(trio.Event())
            yield ours
            nursery.cancel_scope.cancel()
        ours.close()


async def ready(kernel: Any) -> None:
    """Wait until there may be something to receive for the kernel's socket; its edge may be one that was looked at."""
    with trio.move_on_after(0.01):
        await trio.lowlevel.wait_readable(kernel.get(zmq.FD))


async def hear(kernel: Any) -> list[bytes]:
    """Receive one message on the kernel's side."""
    while True:
        try:
            return kernel.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            await ready(kernel)


async def receive(ours: KernelSocket, count: int) -> list[list[bytes]]:
    """Receive so many messages."""
    messages: list[list[bytes]] = []
    while len(messages) < count:
        messages += await ours.receive_batch()
    return messages


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
async def test_messages_go_both_ways(bind: Bind, transport: str, private_place: Path) -> None:
    """A router gets our message under our identity, and its answer reaches us, over TCP and Unix sockets."""
    place = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{private_place}/s"
    kernel, address = bind(zmq.ROUTER, place)
    async with connected(address, identity=b"me") as ours:
        ours.send([b"", b"question", bytes(300)])
        heard = await hear(kernel)
        kernel.send_multipart([b"me", b"", b"answer"])
        answers = await receive(ours, 1)

    assert [b"me", b"", b"question", bytes(300)] == heard
    assert [[b"", b"answer"]] == answers


async def test_subscriber_is_sent_everything(bind: Bind) -> None:
    """Whatever its topic, what is published from when we are subscribed on arrives, in order."""
    kernel, address = bind(zmq.XPUB)
    async with connected(address, "SUB") as ours:
        subscription = await hear(kernel)
        for number in range(5000):
            kernel.send_multipart([b"topic", b"%d" % number])
        messages = await receive(ours, 5000)

    assert [b"\x01"] == subscription
    assert [[b"topic", b"%d" % number] for number in range(5000)] == messages


async def test_large_messages_arrive_whole(bind: Bind) -> None:
    """Frames of 30 MB pass in both directions, though no buffer of a connection holds so much."""
    kernel, address = bind(zmq.ROUTER)
    large = bytes(range(256)) * 120_000
    async with connected(address, identity=b"me") as ours:
        ours.send([b"small", large])
        ours.send([b"next"])
        heard = [await hear(kernel), await hear(kernel)]
        kernel.send_multipart([b"me", large, b"behind"])
        answers = await receive(ours, 1)

    assert [[b"me", b"small", large], [b"me", b"next"]] == heard
    assert [[large, b"behind"]] == answers


async def test_kernel_that_binds_late_is_found() -> None:
    """Connecting goes on until somebody listens: nobody there, somebody who hangs up, then a kernel."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = held.getsockname()
    async with trio.open_nursery() as nursery:
        ours = KernelSocket(address, "DEALER", b"", nursery)
        nursery.start_soon(ours.connect, trio.Event())
        with trio.fail_after(LIMIT):
            for said in (b"", b"SSH-2.0-OpenSSH\r\n", opening("ROUTER")):
                (listener,) = await trio.open_tcp_listeners(address[1], host="127.0.0.1")
                async with listener:
                    stream = await listener.accept()
                    await stream.send_all(said)
                    if said[:1] == b"\xff":
                        await ours.connected.wait()
                    await stream.aclose()
        nursery.cancel_scope.cancel()
    ours.close()

    assert ours.connected.is_set()


async def test_connection_that_was_lost_is_made_again(bind: Bind) -> None:
    """A kernel that closes its socket and binds it anew is heard again; that it was lost is told."""
    kernel, address = bind(zmq.XPUB)
    async with connected(address, "SUB") as ours, trio.open_nursery() as nursery:
        await hear(kernel)
        assert not ours.lost.is_set()
        kernel.close()
        messages: list[list[bytes]] = []

        async def read() -> None:
            messages.extend(await ours.receive_batch())

        nursery.start_soon(read)
        await ours.lost.wait()
        while True:
            try:
                again, _ = bind(zmq.XPUB, f"tcp://127.0.0.1:{address[1]}")
                break
            except zmq.ZMQError:
                # libzmq closes in a thread of its own.
                await trio.lowlevel.checkpoint()
        await hear(again)
        again.send_multipart([b"here"])

    assert [[b"here"]] == messages


async def test_what_was_sent_before_the_connection_goes_out_with_it(bind: Bind) -> None:
    """A message for a kernel that does not listen yet waits for the connection."""
    kernel, address = bind(zmq.ROUTER)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            ours = KernelSocket(address, "DEALER", b"me", nursery)
            ours.send([b"early"])
            await ours.connect(trio.Event())
            heard = await hear(kernel)
            ours.close()

    assert [b"me", b"early"] == heard


async def test_connecting_can_be_cancelled_anywhere() -> None:
    """Cancelled before somebody listens, or in the handshake, no descriptor is left."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        for backlog in (None, 1):
            if backlog is not None:
                silent.listen(backlog)
            async with trio.open_nursery() as nursery:
                ours = KernelSocket(silent.getsockname(), "DEALER", b"", nursery)
                nursery.start_soon(ours.connect, trio.Event())
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

            assert ours._socket is None


@pytest.mark.parametrize(
    "address", [("no such host.invalid", 1), ("x" * 300, 1), ("127.0.0.1", 70_000), "/" + "x" * 200]
)
async def test_address_that_is_none_is_refused(address: Any) -> None:
    """What can never be connected to is an error at once."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(OSError), trio.fail_after(LIMIT):
            await KernelSocket(address, "DEALER", b"", nursery).connect(trio.Event())
