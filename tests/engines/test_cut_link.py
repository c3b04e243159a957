"""A link that comes from elsewhere: cut wherever it may be, it goes on by itself, and nobody who uses it notices."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing

from hosts import (
    IOPUB,
    PATIENCE,
    PLAIN_KERNEL,
    SECRET,
    SHELL,
    STDOUT,
    Hosted,
    connect_all,
    open_host,
    read,
    read_line,
    tell,
)
from kallichore.engines.host_link import HostLink, open_link
from kallichore.engines.host_socket import connect_to_host
from kallichore.engines.reach import Reach
from kallichore.errors import HostGoneError
from plain_kernel import lines

pytestmark = pytest.mark.posix_only("hosts")

PIECE = 10_000


class Way:
    """A way to a host that can be cut, and closed.

    Args:
        host: The host.
        nursery: What carries the bytes runs in it.
    """

    def __init__(self, host: Hosted, nursery: trio.Nursery) -> None:
        self._host, self._nursery = host, nursery
        self._scopes: list[trio.CancelScope] = []
        self.connections = 0
        self.why_closed: OSError | HostGoneError | None = None
        self.told: list[str | None] = []

    async def connect(self) -> socket.socket:
        """Return a connection by way of a pair of sockets."""
        if self.why_closed is not None:
            raise self.why_closed
        there = await connect_to_host(self._host.directory)
        here, between = socket.socketpair()
        here.setblocking(False)
        self.connections += 1
        scope = trio.CancelScope()
        self._scopes.append(scope)
        self._nursery.start_soon(self._carry, scope, there, between)
        return here

    async def _carry(self, scope: trio.CancelScope, *ends: socket.socket) -> None:
        streams = [trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in ends]
        with scope:
            async with streams[0], streams[1], trio.open_nursery() as nursery:

                async def carry(one: trio.SocketStream, other: trio.SocketStream) -> None:
                    try:
                        while data := await one.receive_some(PIECE):
                            await other.send_all(data)
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        pass
                    nursery.cancel_scope.cancel()

                nursery.start_soon(carry, streams[0], streams[1])
                nursery.start_soon(carry, streams[1], streams[0])

    def cut(self) -> None:
        """Cut all connections, wherever the bytes on them are."""
        for scope in self._scopes:
            scope.cancel()
        self._scopes.clear()


@asynccontextmanager
async def open_cut_link(place: Path, argv: Sequence[str] = PLAIN_KERNEL) -> AsyncIterator[tuple[Hosted, Way, HostLink]]:
    """Start a host, and reach it by a way that can be cut."""
    async with open_host(place, argv) as host, trio.open_nursery() as nursery:
        way = Way(host, nursery)
        async with open_link(Reach(way.connect, "over there", way.told.append), SECRET) as link:
            yield host, way, link
        nursery.cancel_scope.cancel()


async def wait_until_cut(way: Way) -> None:
    """Wait until the link has noticed that it was cut, and has another connection."""
    before = way.connections
    way.cut()
    with trio.fail_after(PATIENCE):
        while way.connections == before or way.told[-1] is not None:  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_missing_wherever_a_connection_is_cut(private_place: Path, seed: int) -> None:
    """A flood from the kernel, and payloads to it that it sends back, are whole after twenty cuts of one link."""
    dice = random.Random(seed)
    flood, sent = lines(60_000, 100), b""
    async with open_cut_link(private_place / "s") as (_, way, link):
        await connect_all(link)
        tell(link, "flood 60000 100")
        had = {SHELL: b"", IOPUB: b""}
        with trio.fail_after(PATIENCE):
            while len(had[IOPUB]) < len(flood) or len(had[SHELL]) < len(sent) or way.connections < 20:
                if len(sent) < 2_000_000:
                    payload = dice.randbytes(dice.choice([1, 200, 5000, 70_000, 300_000]))
                    link.send(SHELL, payload, may_be_lost=dice.random() < 0.5)
                    sent += payload
                with trio.move_on_after(0.02):
                    await link.channels[dice.choice([SHELL, IOPUB])].wait()
                for channel, data in had.items():
                    pieces = link.channels[channel].pieces
                    had[channel] = data + b"".join(pieces)
                    pieces.clear()
                    link.confirm(channel, link.channels[channel].position)
                if dice.random() < 0.3:
                    way.cut()

    assert flood == had[IOPUB]
    assert sent == had[SHELL]


async def test_channel_is_connected_however_often_the_link_is_cut_meanwhile(private_place: Path) -> None:
    """Who waits for a connection of the kernel's gets it over the next connection of ours."""
    async with open_cut_link(private_place / "s") as (_, way, link):
        await connect_all(link)
        with socket.create_server(("127.0.0.1", 0)) as server:
            for _ in range(20):
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def open_it() -> None:
                        await link.open(SHELL, "inet", list(server.getsockname()))

                    await trio.lowlevel.checkpoint()
                    way.cut()
                # The last one that the host made is the one that counts.
                connection = None
                link.send(SHELL, b"x")
                with trio.fail_after(PATIENCE):
                    while connection is None or not connection.recv(1):
                        if connection is not None:
                            connection.close()
                        connection = (await trio.to_thread.run_sync(server.accept))[0]
                connection.close()

    assert way.connections > 20


async def test_signal_arrives_once_after_a_cut(private_place: Path) -> None:
    """What was to interrupt the kernel while there was no connection does so when there is one, and once."""
    script = "trap 'echo hit' USR1; trap 'echo end' USR2; echo on; while :; do sleep 0.02; done"
    async with open_cut_link(private_place / "s", ["/bin/sh", "-c", script]) as (_, way, link):
        await read_line(link, STDOUT)
        way.why_closed = OSError("no way")
        way.cut()
        with trio.fail_after(PATIENCE):
            while way.told[-1] is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
        link.signal(signal.SIGUSR1)
        way.why_closed = None
        heard = [await read_line(link, STDOUT)]
        await wait_until_cut(way)
        link.signal(signal.SIGUSR2)
        heard.append(await read_line(link, STDOUT))

    assert [b"hit", b"end"] == heard


async def test_cut_is_told_with_its_reason_and_so_is_its_end(private_place: Path) -> None:
    """People learn that a connection is lost, why it does not come back, and that it is back."""
    async with open_cut_link(private_place / "s") as (_, way, link):
        await connect_all(link)
        way.why_closed = OSError(113, "No route to host")
        way.cut()
        with trio.fail_after(PATIENCE):
            while "No route to host" not in way.told:  # noqa: ASYNC110
                await trio.sleep(0.01)
            way.why_closed = None
            while way.told[-1] is not None:  # noqa: ASYNC110
                await trio.sleep(0.01)
        link.send(SHELL, b"here")

        assert [None, ""] == way.told[:2]
        assert b"here" == await read(link, SHELL, 4)
        assert not link.lost.is_set()


async def test_host_that_is_gone_is_waited_for_no_longer(private_place: Path) -> None:
    """Where who placed the host knows that it is no more, the link is lost, with what is known of that."""
    async with open_cut_link(private_place / "s") as (_, way, link):
        way.why_closed = HostGoneError("its job was cancelled")
        way.cut()
        with trio.fail_after(PATIENCE):
            await link.lost.wait()

        assert "its job was cancelled" == link.why_lost


async def test_release_during_a_cut_ends_the_host_later(private_place: Path) -> None:
    """A host that was to be let go while it could not be reached is let go when it can."""
    async with open_cut_link(private_place / "s") as (_, way, link):
        await connect_all(link)
        way.why_closed = OSError("no way")
        way.cut()
        with trio.fail_after(PATIENCE):
            while way.told[-1] is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            link.release()
            link.flush()
            way.why_closed = None
            await link.lost.wait()


async def test_what_was_read_need_not_be_kept_where_nobody_writes_it_down(private_place: Path) -> None:
    """A flood larger than what the host keeps goes on to its end, though nobody confirms a byte of it."""
    size = 60_000 * 100
    async with open_host(private_place / "s", keep_limit=1 << 20) as host, trio.open_nursery() as nursery:
        way = Way(host, nursery)
        async with open_link(Reach(way.connect, "over there", way.told.append), SECRET) as link:
            link.confirms = True
            await connect_all(link)
            tell(link, "flood 60000 100")
            count = 0
            with trio.fail_after(PATIENCE):
                while count < size:
                    await link.channels[IOPUB].wait()
                    while link.channels[IOPUB].pieces:
                        count += len(link.channels[IOPUB].pieces.popleft())
        nursery.cancel_scope.cancel()

    assert size == count


async def test_second_server_ends_a_link_that_could_be_opened_again(private_place: Path) -> None:
    """A host that another server has taken is not taken back."""
    async with open_cut_link(private_place / "s") as (host, _, link):
        await connect_all(link)
        async with host.link({STDOUT: link.channels[STDOUT].position}):
            with trio.fail_after(PATIENCE):
                await link.lost.wait()

    assert link.replaced
