"""The contract of a connection to a kernel, for either kind, against sockets of libzmq's, as kernels have them."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import zmq

from kallichore.engines.host_link import HostLink, open_link
from kallichore.engines.local import start_host
from kallichore.engines.reach import beside
from kallichore.wire.curve_keys import CurveKeys
from kallichore.zeromq.connecting import ForeignKernelError
from kallichore.zeromq.connection import KernelConnection
from kallichore.zeromq.curve_socket import MOST_REFUSALS, CurveConnector, CurveSocket, make_keys
from kallichore.zeromq.hosted_socket import HostedSocket
from kallichore.zeromq.kernel_socket import KernelSocket
from kallichore.zeromq.unread import Budget

LIMIT = 20.0

LIMIT_BYTES = 64 << 20

KEYS = make_keys()

Bind = Callable[..., tuple[Any, Any]]
Make = Callable[..., KernelConnection]


HOSTED = pytest.param("hosted", marks=pytest.mark.posix_only("a host beside the kernel"))


@pytest.fixture(params=["NULL", "CURVE", HOSTED])
def mechanism(request: pytest.FixtureRequest) -> str:
    """Return what both sides speak; ``hosted`` is NULL, on a connection that a host holds."""
    return str(request.param)


@pytest.fixture
def bind(mechanism: str) -> Iterator[Bind]:
    """Return what makes a socket as a kernel has it, and tells its address."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = []

    def bind(kind: int, place: str = "tcp://127.0.0.1:*", speaks: str = mechanism) -> tuple[Any, Any]:
        kernel = context.socket(kind)
        sockets.append(kernel)
        kernel.sndhwm = kernel.rcvhwm = 0
        if speaks == "CURVE":
            assert KEYS.secret is not None
            kernel.curve_server = True
            kernel.curve_publickey, kernel.curve_secretkey = KEYS.public.encode(), KEYS.secret.encode()
        kernel.bind(place)
        transport, _, where = kernel.last_endpoint.decode().partition("://")
        return kernel, where if transport == "ipc" else ("127.0.0.1", int(where.rpartition(":")[2]))

    yield bind
    for kernel in sockets:
        kernel.close(linger=0)
    context.term()


@asynccontextmanager
async def open_host() -> AsyncIterator[HostLink]:
    """Yield the link to a host whose kernel does nothing, and end both."""
    with tempfile.TemporaryDirectory() as place:
        directory, secret = Path(place), b"secret"
        await start_host(directory, secret, ["sleep", "600"], dict(os.environ), place, abandon_after=60)
        async with open_link(beside(directory), secret) as link:
            try:
                yield link
            finally:
                link.release()
                with trio.CancelScope(shield=True):
                    await link.lost.wait()


@asynccontextmanager
async def maker(mechanism: str, keys: CurveKeys = KEYS) -> AsyncIterator[Make]:
    """Yield what makes connections; they are closed on leaving."""
    connector = CurveConnector(keys)
    made: list[KernelConnection] = []
    try:
        with trio.fail_after(LIMIT):  # noqa: ASYNC100  # around what is done with them
            async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
                stream = await stack.enter_async_context(open_host()) if mechanism == "hosted" else None

                def make(address: Any, kind: str = "DEALER", identity: bytes = b"") -> KernelConnection:
                    ours: KernelConnection
                    if stream is not None:
                        ours = HostedSocket(address, kind, identity, stream, len(made))
                    elif mechanism == "CURVE":
                        ours = CurveSocket(address, kind, identity, nursery, connector)
                    else:
                        ours = KernelSocket(address, kind, identity, nursery, Budget(LIMIT_BYTES))
                    made.append(ours)
                    return ours

                yield make
                nursery.cancel_scope.cancel()
    finally:
        for ours in made:
            ours.close()
        connector.close()


@asynccontextmanager
async def connected(
    mechanism: str, address: Any, kind: str = "DEALER", identity: bytes = b"", keys: CurveKeys = KEYS
) -> AsyncIterator[KernelConnection]:
    """Yield a connection."""
    async with maker(mechanism, keys) as make:
        ours = make(address, kind, identity)
        await ours.connect(trio.Event())
        yield ours


async def hear(kernel: Any) -> list[bytes]:
    """Receive one message on the kernel's side."""
    while True:
        try:
            return kernel.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            # Its edge may be one that was looked at.
            with trio.move_on_after(0.01):
                await trio.lowlevel.wait_readable(kernel.get(zmq.FD))


async def receive(ours: KernelConnection, count: int) -> list[list[bytes]]:
    """Receive so many messages."""
    messages: list[list[bytes]] = []
    while len(messages) < count:
        messages += await ours.receive_batch()
    return messages


UNIX_SOCKET = pytest.param("ipc", marks=pytest.mark.posix_only("a Unix socket"))


@pytest.mark.parametrize("transport", ["tcp", UNIX_SOCKET])
async def test_messages_go_both_ways(mechanism: str, bind: Bind, transport: str, private_place: Path) -> None:
    """A router gets our message under our identity, and its answer reaches us, over TCP and Unix sockets."""
    place = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{private_place}/s"
    kernel, address = bind(zmq.ROUTER, place)
    async with connected(mechanism, address, identity=b"me") as ours:
        ours.send([b"", b"question", bytes(300)])
        heard = await hear(kernel)
        kernel.send_multipart([b"me", b"", b"answer"])
        answers = await receive(ours, 1)

    assert [b"me", b"", b"question", bytes(300)] == heard
    assert [[b"", b"answer"]] == answers


async def test_flood_arrives_in_order(mechanism: str, bind: Bind) -> None:
    """Whatever its topic, what is published from when we are subscribed on arrives, all of it, a bounded amount each
    time."""
    kernel, address = bind(zmq.XPUB)
    async with connected(mechanism, address, "SUB") as ours:
        subscription = await hear(kernel)
        for number in range(20_000):
            kernel.send_multipart([b"topic", b"%d" % number, bytes(400)])
        batches = [await ours.receive_batch()]
        while sum(map(len, batches)) < 20_000:
            batches.append(await ours.receive_batch())
        is_drained = ours.is_drained

    assert [b"\x01"] == subscription
    assert [b"%d" % number for number in range(20_000)] == [frames[1] for batch in batches for frames in batch]
    assert max(map(len, batches)) < 1000
    assert is_drained


async def test_large_messages_arrive_whole(mechanism: str, bind: Bind) -> None:
    """Frames of 30 MB pass in both directions, though no buffer of a connection holds so much."""
    kernel, address = bind(zmq.ROUTER)
    large = bytes(range(256)) * 120_000
    async with connected(mechanism, address, identity=b"me") as ours:
        ours.send([b"small", large])
        ours.send([b"next"])
        heard = [await hear(kernel), await hear(kernel)]
        kernel.send_multipart([b"me", large, b"behind"])
        answers = await receive(ours, 1)

    assert [[b"me", b"small", large], [b"me", b"next"]] == heard
    assert [[large, b"behind"]] == answers


async def test_kernel_that_binds_late_is_found(mechanism: str, bind: Bind) -> None:
    """Connecting goes on until somebody listens: nobody there, somebody who hangs up, then a kernel."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        address = held.getsockname()
        if sys.platform == "win32":
            # Nobody could listen on a port that is held.
            held.close()
        async with maker(mechanism) as make, trio.open_nursery() as nursery:
            ours = make(address)
            nursery.start_soon(ours.connect, trio.Event())
            for said in (b"", b"SSH-2.0-OpenSSH\r\n", b""):
                (listener,) = await trio.open_tcp_listeners(address[1], host="127.0.0.1")
                async with listener:
                    stream = await listener.accept()
                    await stream.send_all(said)
                    await stream.aclose()
            bind(zmq.ROUTER, f"tcp://127.0.0.1:{address[1]}")
            await ours.connected.wait()

    assert ours.connected.is_set()


async def test_connection_that_was_lost_is_made_again(mechanism: str, bind: Bind) -> None:
    """A kernel that closes its socket and binds it anew is heard again; that it was lost is told."""
    kernel, address = bind(zmq.XPUB)
    async with connected(mechanism, address, "SUB") as ours, trio.open_nursery() as nursery:
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


async def test_end_of_the_connection_is_told_behind_what_was_said_before_it(mechanism: str, bind: Bind) -> None:
    """Who waits for the loss knows then that everything has been taken; draining finds it too."""
    kernel, address = bind(zmq.XPUB)
    async with connected(mechanism, address, "SUB") as ours:
        await hear(kernel)
        for number in range(3000):
            kernel.send_multipart([b"%d" % number])
        kernel.close(linger=-1)
        messages: list[list[bytes]] = []
        while len(messages) < 3000:
            messages += await ours.receive_batch()
            assert not ours.lost.is_set()
        rest = []
        while not ours.lost.is_set():
            rest += ours.drain()
            await trio.lowlevel.checkpoint()

    assert [[b"%d" % number] for number in range(3000)] == messages
    assert [] == rest


async def test_what_was_sent_before_the_connection_goes_out_with_it(mechanism: str, bind: Bind) -> None:
    """A message for a kernel that does not listen yet waits for the connection."""
    kernel, address = bind(zmq.ROUTER)
    async with maker(mechanism) as make:
        ours = make(address, identity=b"me")
        ours.send([b"early"])
        await ours.connect(trio.Event())
        heard = await hear(kernel)

    assert [b"me", b"early"] == heard


async def test_receiver_hears_what_came_while_others_sent(mechanism: str, bind: Bind) -> None:
    """Each question is answered at once, and no answer waits for the next one, whoever sends in between."""
    kernel, address = bind(zmq.ROUTER)
    async with connected(mechanism, address, identity=b"me") as ours, trio.open_nursery() as nursery:
        answers: list[list[bytes]] = []

        async def read() -> None:
            while len(answers) < 300:
                answers.extend(await ours.receive_batch())
            nursery.cancel_scope.cancel()

        async def answer() -> None:
            while True:
                kernel.send_multipart(await hear(kernel))

        nursery.start_soon(read)
        nursery.start_soon(answer)
        for number in range(100):
            for part in range(3):
                ours.send([b"%d" % (3 * number + part)])
                await trio.lowlevel.checkpoint()

    assert [[b"%d" % number] for number in range(300)] == answers


async def test_connecting_can_be_cancelled_anywhere(mechanism: str) -> None:
    """Cancelled before somebody listens, or in the handshake, it ends, and closing is in order."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        for backlog in (None, 1):
            if backlog is not None:
                silent.listen(backlog)
            async with maker(mechanism) as make, trio.open_nursery() as nursery:
                ours = make(silent.getsockname())
                nursery.start_soon(ours.connect, trio.Event())
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            ours.close()

            assert not ours.connected.is_set()
            assert [] == ours.drain()


@pytest.mark.parametrize(
    "address", [("no such host.invalid", 1), ("x" * 300, 1), ("127.0.0.1", 70_000), "/" + "x" * 200]
)
async def test_address_that_is_none_is_refused(mechanism: str, address: Any) -> None:
    """What can never be connected to is an error at once."""
    async with maker(mechanism) as make:
        with pytest.raises(OSError):
            await make(address).connect(trio.Event())


async def test_kernel_of_the_other_mechanism_is_refused_at_once(mechanism: str, bind: Bind) -> None:
    """That a kernel encrypts, and we do not, or the other way round, is no question of time; the error says it."""
    other = "NULL" if mechanism == "CURVE" else "CURVE"
    _, address = bind(zmq.ROUTER, speaks=other)
    async with maker(mechanism) as make:
        with pytest.raises(ForeignKernelError, match=f"asks for the mechanism {other}"):
            await make(address).connect(trio.Event())


# What only an encrypted connection has


@pytest.mark.parametrize("mechanism", ["CURVE"], indirect=True)
async def test_wrong_keys_are_told_after_a_few_handshakes(bind: Bind) -> None:
    """A kernel that encrypts, and hangs up on us each time, has other keys."""
    _, address = bind(zmq.ROUTER)
    async with maker("CURVE", make_keys()) as make:
        with pytest.raises(ForeignKernelError, match=f"broke off {MOST_REFUSALS} handshakes: curve_publickey"):
            await make(address).connect(trio.Event())


@pytest.mark.parametrize("mechanism", ["CURVE"], indirect=True)
async def test_public_key_alone_is_enough(bind: Bind) -> None:
    """Without the kernel's secret key, a client has a pair of its own."""
    kernel, address = bind(zmq.ROUTER)
    async with connected("CURVE", address, identity=b"me", keys=CurveKeys(KEYS.public, None)) as ours:
        ours.send([b"hello"])
        heard = await hear(kernel)

    assert [b"me", b"hello"] == heard
