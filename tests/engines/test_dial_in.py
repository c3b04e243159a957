"""Hosts that dial in from where no server can connect to: by TLS with one certificate, known by ids, cut and back."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from hosts import (
    IOPUB,
    PATIENCE,
    SECRET,
    SHELL,
    FarHost,
    connect_all,
    old_pythons,
    open_far_host,
    read,
    tell,
    wait_gone,
)
from kallichore.client.address import Address
from kallichore.engines import dial_in
from kallichore.engines.certificate import Certificate, make_certificate, server_context
from kallichore.engines.dial_in import ID_SIZE, Desk, Registration, open_dial_in
from kallichore.engines.host_link import HostLink, open_link
from kallichore.engines.host_program import dial_document
from kallichore.engines.reach import Reach
from plain_kernel import lines
from scripted_proxy import Connection, Ending, open_proxy

if sys.platform != "linux":
    pytest.skip("processes are looked at through pidfds", allow_module_level=True)

ID = bytes(range(ID_SIZE))
HANDSHAKE = 3000
"""Bytes that a host has sent when the server has attached to it, and something of what its kernel says has come."""


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    """What the desk shows."""
    return make_certificate()


@asynccontextmanager
async def open_desk(certificate: Certificate) -> AsyncIterator[tuple[Desk, Registration]]:
    """Listen, and wait for one host."""
    async with open_dial_in("127.0.0.1", 0, certificate) as desk:
        with desk.register(ID) as registration:
            yield desk, registration


def open_dialling(
    place: Path, address: tuple[str, int], certificate: Certificate, **more: Any
) -> AbstractAsyncContextManager[FarHost]:
    """Start a host that stays and dials in."""
    return open_far_host(place, stays=True, dial=dial_document(address, ID, certificate.pem), **more)


@asynccontextmanager
async def open_called_link(registration: Registration, told: list[str | None]) -> AsyncIterator[HostLink]:
    """Attach to the host that dials in, again whenever it is cut."""
    with trio.fail_after(PATIENCE) as scope:
        async with open_link(Reach(registration.next_connection, "that dials in", told.append), SECRET) as link:
            scope.deadline = float("inf")
            yield link


async def test_host_that_dials_in_is_talked_to_like_any_other(private_place: Path, certificate: Certificate) -> None:
    """A flood from its kernel, and payloads to it that come back, are whole; then it is let go, and leaves nothing."""
    flood, payload = lines(40_000, 100), random.Random(0).randbytes(2_000_000)
    async with (
        open_desk(certificate) as (desk, registration),
        open_dialling(private_place, desk.address, certificate) as host,
    ):
        async with open_called_link(registration, []) as link:
            assert host.pid == link.hello.host_pid
            await connect_all(link)
            tell(link, "flood 40000 100")
            link.send(SHELL, payload)
            assert payload == await read(link, SHELL, len(payload))
            assert flood == await read(link, IOPUB, len(flood))
            link.release()
            link.flush()
            await wait_gone(host.pid)

        assert [] == list(private_place.iterdir())


async def test_host_dials_in_under_an_old_python(private_place: Path, certificate: Certificate) -> None:
    """The oldest Python that is here shakes hands with our server."""
    pythons = old_pythons()
    if not pythons:
        pytest.skip("there is no Python before 3.11 here")
    async with (
        open_desk(certificate) as (desk, registration),
        open_dialling(private_place, desk.address, certificate, python=(pythons[0], "-I")) as host,
        open_called_link(registration, []) as link,
    ):
        assert host.pid == link.hello.host_pid


@pytest.mark.parametrize("ending", list(Ending))
async def test_nothing_is_missing_when_the_way_is_cut_again_and_again(
    private_place: Path, certificate: Certificate, ending: Ending
) -> None:
    """A flood of which every connection is cut after 50 ms is whole, and so is what is sent meanwhile: 0 missing, 0
    twice.
    """
    flood, sent, had = lines(150_000, 100), b"", {SHELL: b"", IOPUB: b""}
    dice, told = random.Random(1), list[str | None]()
    async with open_desk(certificate) as (desk, registration), trio.open_nursery() as nursery:

        async def cut(connection: Connection) -> None:
            while connection.to_server.passed < HANDSHAKE:  # noqa: ASYNC110
                await trio.sleep(0.01)
            await trio.sleep(0.05)
            connection.cut(ending)

        target = Address(host=desk.address[0], port=desk.address[1])
        async with open_proxy(target, lambda connection: nursery.start_soon(cut, connection)) as proxy:
            way = (str(proxy.address.host), int(proxy.address.port or 0))
            async with open_dialling(private_place, way, certificate), open_called_link(registration, told) as link:
                await connect_all(link)
                tell(link, "flood 150000 100")
                with trio.fail_after(2 * PATIENCE):
                    while len(had[IOPUB]) < len(flood) or len(had[SHELL]) < len(sent):
                        if len(sent) < 1_000_000:
                            payload = dice.randbytes(dice.choice([1, 200, 5000, 70_000]))
                            link.send(SHELL, payload)
                            sent += payload
                        with trio.move_on_after(0.02):
                            await link.channels[dice.choice([SHELL, IOPUB])].wait()
                        for channel in had:
                            take(link, channel, had)
        nursery.cancel_scope.cancel()

    assert flood == had[IOPUB]
    assert sent == had[SHELL]
    assert len(proxy.connections) > 3
    assert None in told


def take(link: HostLink, channel: int, had: dict[int, bytes]) -> None:
    """Take what there is, and confirm it."""
    pieces = link.channels[channel].pieces
    had[channel] += b"".join(pieces)
    pieces.clear()
    link.confirm(channel, link.channels[channel].position)


async def test_host_waits_for_a_server_that_comes_later(private_place: Path, certificate: Certificate) -> None:
    """A host whose server is not there yet, or is another one after a while, is there for each that comes."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        address = held.getsockname()
        async with open_dialling(private_place, address, certificate) as host:
            for _ in range(2):
                async with open_dial_in(*address, certificate) as desk:
                    with desk.register(ID) as registration:
                        async with open_called_link(registration, []) as link:
                            assert host.pid == link.hello.host_pid


def dialler_of(host: FarHost) -> int:
    """Return the process that dials: of those that the host forked the one that has more than three descriptors."""
    own = Path(f"/proc/{host.pid}/cmdline").read_bytes()
    children = map(int, Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split())
    forks = [pid for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes() == own]
    return next(pid for pid in forks if len(os.listdir(f"/proc/{pid}/fd")) > 3)


async def test_what_dials_is_started_anew_and_gone_with_its_host(private_place: Path, certificate: Certificate) -> None:
    """Whoever kills the process that dials does not cut a host off; it ends with the host, however that ends."""
    told: list[str | None] = []
    async with open_desk(certificate) as (desk, registration):
        async with (
            open_dialling(private_place, desk.address, certificate) as host,
            open_called_link(registration, told) as link,
        ):
            await connect_all(link)
            dialler = dialler_of(host)
            os.kill(dialler, signal.SIGKILL)
            await wait_gone(dialler)
            link.send(SHELL, b"still there")
            assert b"still there" == await read(link, SHELL, 11)
            dialler = dialler_of(host)
            os.kill(host.pid, signal.SIGKILL)
            await wait_gone(dialler)

    assert None in told


async def test_host_takes_no_server_with_another_certificate(private_place: Path, certificate: Certificate) -> None:
    """Who listens in the server's place, but has another certificate, is told nothing: not even an id; why is said."""
    said: list[bytes] = []
    heard = trio.Event()
    context = server_context(make_certificate())

    async def listen(stream: trio.SocketStream) -> None:
        async with trio.SSLStream(stream, context, server_side=True, https_compatible=True) as secure:
            with suppress(trio.BrokenResourceError):
                said.append(bytes(await secure.receive_some()))
            heard.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, listen, 0)
        port = listeners[0].socket.getsockname()[1]
        async with open_dialling(private_place, ("127.0.0.1", port), certificate) as host:
            with trio.fail_after(PATIENCE):
                await heard.wait()
                complaint = await host.errors.receive_some()
        nursery.cancel_scope.cancel()

    assert [] == said
    assert f"no connection to the server at 127.0.0.1:{port}".encode() in complaint
    assert b"certificate verify failed" in complaint


# Whoever else comes


async def shake_hands(desk: Desk) -> trio.SSLStream[trio.SocketStream]:
    """Connect to a desk as a host does."""
    context = ssl.create_default_context(cadata=desk.certificate)
    context.check_hostname = False
    stream = await trio.open_ssl_over_tcp_stream(*desk.address, ssl_context=context, https_compatible=True)
    await stream.do_handshake()
    return stream


async def hung_up(stream: trio.abc.ReceiveStream) -> bool:
    """Whether the other side hangs up, in a while."""
    with trio.move_on_after(PATIENCE):
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        return True
    return False


async def next_connection(registration: Registration) -> socket.socket:
    """Return a host's next connection, for which a while is waited."""
    with trio.fail_after(PATIENCE):
        return await registration.next_connection()


async def receive(connection: socket.socket) -> bytes:
    """Return what comes next on a connection; nothing if that is its end."""
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(connection)
    return connection.recv(1000)


async def test_host_that_nobody_waits_for_is_hung_up_on(
    certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    """Another id, and one that was waited for once, are hung up on, and the log has one line that names the peer."""
    async with open_dial_in("127.0.0.1", 0, certificate) as desk:
        with desk.register(ID):
            pass
        for identity in (ID, bytes(ID_SIZE)):
            async with await shake_hands(desk) as stream:
                await stream.send_all(identity)
                assert await hung_up(stream)

    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert ["Hung up on 127.0.0.1, which dialled in as a host and is waited for by nobody"] == said


async def test_strangers_are_hung_up_on_and_disturb_nobody(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who says nothing, or nonsense instead of TLS, or half an id, is hung up on after a while, and hosts come in."""
    monkeypatch.setattr(dial_in, "STRANGER_PATIENCE", 0.3)
    async with open_desk(certificate) as (desk, registration):
        silent = await trio.open_tcp_stream(*desk.address)
        noisy = await trio.open_tcp_stream(*desk.address)
        await noisy.send_all(b"GET / HTTP/1.1\r\n\r\n" * 10)
        slow = await shake_hands(desk)
        await slow.send_all(ID[:8])
        for stream in (silent, noisy, slow):
            assert await hung_up(stream)
            await trio.aclose_forcefully(stream)
        async with await shake_hands(desk) as stream:
            await stream.send_all(ID + b"there")
            with await next_connection(registration) as connection:
                assert b"there" == await receive(connection)


async def test_oldest_stranger_makes_way(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens many connections and says nothing keeps no host away."""
    monkeypatch.setattr(dial_in, "MOST_STRANGERS", 3)
    async with open_desk(certificate) as (desk, registration), AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(await trio.open_tcp_stream(*desk.address)) for _ in range(5)]
        assert await hung_up(silent[0])
        assert await hung_up(silent[1])
        stream = await stack.enter_async_context(await shake_hands(desk))
        await stream.send_all(ID + b"there")
        with await next_connection(registration) as connection:
            assert b"there" == await receive(connection)


async def test_next_connection_of_a_host_replaces_the_one_before(certificate: Certificate) -> None:
    """A host that dials anew has lost its connection, whatever it looks like here: that one ends."""
    async with open_desk(certificate) as (desk, registration), AsyncExitStack() as stack:
        connections = []
        for number in range(2):
            stream = await stack.enter_async_context(await shake_hands(desk))
            await stream.send_all(ID + bytes([number]))
            connections.append(stack.enter_context(await next_connection(registration)))
            assert bytes([number]) == await receive(connections[number])

        assert b"" == await receive(connections[0])
        connections[1].send(b"to the second")
        assert b"to the second" == await stream.receive_some()


async def test_connection_that_was_not_taken_before_it_ended_is_not_given(certificate: Certificate) -> None:
    """Who waits is given a connection that lives, and not one whose host has hung up long since."""
    async with open_desk(certificate) as (desk, registration):
        async with await shake_hands(desk) as first:
            await first.send_all(ID + b"first")
            with trio.fail_after(PATIENCE):
                while "connected" not in repr(registration):  # noqa: ASYNC110
                    await trio.sleep(0.01)
        with trio.fail_after(PATIENCE):
            while "away" not in repr(registration):  # noqa: ASYNC110
                await trio.sleep(0.01)
        async with await shake_hands(desk) as second:
            await second.send_all(ID + b"second")
            with await next_connection(registration) as connection:
                assert b"second" == await receive(connection)


async def test_who_is_slow_is_waited_for(certificate: Certificate) -> None:
    """What nobody reads stays with who sends it: no more is taken in than the system's buffers hold."""
    async with open_desk(certificate) as (desk, registration), await shake_hands(desk) as stream:
        await stream.send_all(ID)
        with await next_connection(registration) as connection:
            sent = 0
            with trio.move_on_after(1) as scope:
                while sent < 64 << 20:
                    await stream.send_all(bytes(1 << 16))
                    sent += 1 << 16

            assert scope.cancelled_caught
            assert b"\0" == (await receive(connection))[:1]
        await trio.aclose_forcefully(stream)


async def test_what_is_said_last_arrives_although_not_all_was_read(certificate: Certificate) -> None:
    """Who hangs up with something unread on a connection has had its last words taken by the host all the same."""
    async with open_desk(certificate) as (desk, registration), await shake_hands(desk) as stream:
        await stream.send_all(ID)
        with await next_connection(registration) as connection:
            await stream.send_all(bytes(100_000))
            await receive(connection)
            connection.send(b"last words")
        with suppress(trio.BrokenResourceError):
            for _ in range(100):
                await stream.send_all(bytes(10_000))

        assert b"last words" == await stream.receive_some()
        assert await hung_up(stream)


async def test_waiting_for_a_host_can_be_cancelled(certificate: Certificate) -> None:
    """Who waits and is cancelled has taken nothing: the connection is there for who waits next."""
    async with open_desk(certificate) as (desk, registration):
        with trio.move_on_after(0.05) as scope:
            await registration.next_connection()
        assert scope.cancelled_caught
        async with await shake_hands(desk) as stream:
            await stream.send_all(ID + b"there")
            with trio.fail_after(PATIENCE):
                while "connected" not in repr(registration):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            with trio.CancelScope() as scope:
                scope.cancel()
                await registration.next_connection()
            assert scope.cancelled_caught
            with await next_connection(registration) as connection:
                assert b"there" == await receive(connection)


@pytest.mark.parametrize(
    ("listens", "called"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("0.0.0.0", socket.gethostname())],
)
async def test_hosts_are_told_an_address_that_they_can_connect_to(
    certificate: Certificate, listens: str, called: str
) -> None:
    """A name stays the name that it is, since it may be another address elsewhere; all addresses are none to call."""
    async with open_dial_in(listens, 0, certificate) as desk:
        assert called == desk.address[0]
        assert desk.address[1] > 0


async def test_host_is_registered_once_and_by_sixteen_bytes(certificate: Certificate) -> None:
    """Two cannot wait for one host, until the first does no more; and an id has its size."""
    async with open_dial_in("127.0.0.1", 0, certificate) as desk:
        with desk.register(ID), pytest.raises(ValueError, match="once"):
            desk.register(ID)
        with desk.register(ID):
            pass
        with pytest.raises(ValueError, match="sixteen"):
            desk.register(b"short")
