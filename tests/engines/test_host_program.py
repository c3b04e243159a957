"""Programs that carry all they need: a host is told apart from noise, and what carries bytes to it ends with them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st

from hosts import IOPUB, PATIENCE, SECRET, SHELL, connect_all, open_far_host, open_host, read, tell
from kallichore.engines.host_link import open_link
from kallichore.engines.host_program import (
    NOBODY_LISTENS,
    Ready,
    as_argument,
    host_script,
    read_failure,
    read_ready,
    relay_script,
)
from kallichore.engines.reach import Reach
from kallichore.wire.host_frames import (
    HEAD,
    NONCE_SIZE,
    HostDecoder,
    Kind,
    Received,
    decode_hello,
    encode_attach,
    is_proven,
)
from plain_kernel import lines

pytestmark = pytest.mark.posix_only("hosts")

noise = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Zl", "Zp", "Cc"])).filter(
        lambda line: not line.startswith(("ready ", "failed: "))
    )
)


@given(noise, noise, st.integers(1, 1 << 22), st.text(st.characters(exclude_categories=["Cs"])))
def test_host_that_is_ready_is_found_among_what_a_shell_says(
    before: list[str], behind: list[str], pid: int, path: str
) -> None:
    """Greetings of a login shell before the line, and whatever comes behind it, are not taken for it."""
    line = "ready " + json.dumps({"pid": pid, "socket": path})
    said = "\n".join([*before, line, *behind]).encode()

    assert Ready(pid, path) == read_ready(said)
    assert read_failure(said) is None
    assert "too bad" == read_failure("\n".join([*before, "failed: too bad", *behind]).encode())


@pytest.mark.parametrize(
    "said", [b"", b"ready", b"ready 17", b"ready {", b'ready {"pid": 1}', b'ready ["pid"]', b"\xff"]
)
def test_what_is_no_host_is_not_ready(said: bytes) -> None:
    """A line that tells nothing of a host is none."""
    assert read_ready(said) is None


@settings(max_examples=10)
@given(st.dictionaries(st.text(), st.text(st.characters(exclude_categories=["Cs"]))))
def test_script_is_ascii_in_short_lines(environment: dict[str, str]) -> None:
    """Whatever is in a document, the text has short lines of ASCII, and begins as a batch script does."""
    script = host_script({"secret": "5e" * 32, "environment": environment}, shebang="#!/opt/python3")

    assert script.startswith(b"#!/opt/python3\n")
    assert max(map(len, script.splitlines())) <= 120
    assert script.isascii()


def test_script_on_one_line_survives_every_shell() -> None:
    """A relay as an argument has no character that is special between single quotes, in `csh` neither."""
    argument = as_argument(relay_script('/tmp/it\'s a "place"!/host.sock'))

    assert set() == set(argument) & set("'!\\\n$`")
    compile(argument, "argument", "exec")


@attrs.frozen
class Relay:
    """A relay that runs. What ssh would carry is one socket here, whose other end it has twice, as it has sshd's."""

    process: trio.Process
    socket: socket.socket

    async def wait(self) -> int:
        """Return its exit code."""
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def open_relay(path: Path | str) -> AsyncIterator[Relay]:
    """Start a relay as a shell far away would; it is killed on leaving if it is still there."""
    ours, theirs = socket.socketpair()
    command = f"exec {shlex.quote(sys.executable)} -I -S -c '{as_argument(relay_script(str(path)))}'"
    with ours, theirs:
        argv = ["/bin/sh", "-c", command]
        process = await trio.lowlevel.open_process(argv, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
        theirs.close()
        ours.setblocking(False)
        try:
            yield Relay(process, ours)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                assert process.stderr is not None
                await process.stderr.aclose()


async def test_relay_carries_a_kernels_flood_and_what_it_is_sent(private_place: Path) -> None:
    """Through a relay a link has all of a flood, and what it sends comes back, although neither fits into buffers."""
    flood, payload = lines(40_000, 100), bytes(2_000_000)
    async with open_host(private_place / "s") as host, open_relay(host.directory / "host.sock") as relay:
        with relay.socket.dup() as connection:

            async def connect() -> socket.socket:
                return connection

            async with open_link(Reach(connect, "over there"), SECRET) as link:
                await connect_all(link)
                tell(link, "flood 40000 100")
                link.send(SHELL, payload)
                assert payload == await read(link, SHELL, len(payload))
                assert flood == await read(link, IOPUB, len(flood))


async def test_host_far_away_is_reached_through_two_pipes(private_place: Path) -> None:
    """What ssh has of a relay may be two pipes as well: a host that a Python was given proves itself through them."""
    async with open_far_host(private_place) as host:
        argv = [sys.executable, "-I", "-c", as_argument(relay_script(host.ready.socket))]
        process = await trio.lowlevel.open_process(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        decoder, received = HostDecoder(), list[Received]()
        async with process.stdout:
            with trio.fail_after(PATIENCE):
                while not received:
                    received += decoder.feed(await process.stdout.receive_some())
                nonce, challenge = bytes(NONCE_SIZE), received.pop().payload
                await process.stdin.send_all(encode_attach(SECRET, challenge, nonce, {}))
                while not received:
                    received += decoder.feed(await process.stdout.receive_some())
                hello = decode_hello(received.pop(0).payload)
                await process.stdin.aclose()
                code = await process.wait()

    assert is_proven(hello, SECRET, challenge, nonce)
    assert (host.pid, 0) == (hello.host_pid, code)


async def test_relay_ends_with_its_input(private_place: Path) -> None:
    """When what is carried to the host ends, the host hears of that; its own end is carried back, and all is over."""
    async with open_host(private_place / "s") as host, open_relay(host.directory / "host.sock") as relay:
        said = await receive(relay.socket, HEAD.size + NONCE_SIZE)
        relay.socket.shutdown(socket.SHUT_WR)

        assert 0 == await relay.wait()
        assert Kind.CHALLENGE == said[0]
        assert b"" == await receive(relay.socket, 1)


async def test_relay_ends_when_nobody_is_at_its_other_end(private_place: Path) -> None:
    """When the connection is gone the relay goes, and the host has no server that is none."""
    async with open_host(private_place / "s") as host, open_relay(host.directory / "host.sock") as relay:
        relay.socket.close()

        assert 0 == await relay.wait()


async def test_relay_ends_with_the_host(private_place: Path) -> None:
    """When the host is gone, what it said before is carried, and the relay ends although its input goes on."""
    async with open_host(private_place / "s") as host, open_relay(host.directory / "host.sock") as relay:
        said = await receive(relay.socket, 1)
        os.kill(host.pid, signal.SIGKILL)
        said += await receive(relay.socket, 1000)

        assert 0 == await relay.wait()
        assert HEAD.size + NONCE_SIZE == len(said)


async def test_relay_says_by_its_exit_code_that_there_is_no_host(private_place: Path) -> None:
    """Where nobody listens, who called knows that by the code, and why by a line."""
    private_place.mkdir(exist_ok=True)
    async with open_relay(private_place / "host.sock") as relay:
        assert NOBODY_LISTENS == await relay.wait()
        assert relay.process.stderr is not None
        assert b"No such file" in await relay.process.stderr.receive_some()


@asynccontextmanager
async def open_far_end(place: Path) -> AsyncIterator[tuple[Relay, trio.SocketStream]]:
    """Start a relay that connects to us instead of a host."""
    place.mkdir(exist_ok=True)
    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(str(place / "host.sock"))
        listener.listen()
        async with open_relay(place / "host.sock") as relay:
            with trio.fail_after(PATIENCE):
                connection, _ = await listener.accept()
            async with trio.SocketStream(connection) as stream:
                yield relay, stream


SAID = bytes(range(256)) * 40_000
"""More than all buffers on the way hold."""


@pytest.mark.parametrize("has_ended", [False, True])
async def test_relay_carries_what_is_said_last(private_place: Path, has_ended: bool) -> None:
    """What a host says before it goes is carried to the end, also when the input had ended before."""
    async with open_far_end(private_place) as (relay, host), trio.open_nursery() as nursery:
        if has_ended:
            relay.socket.shutdown(socket.SHUT_WR)
            assert b"" == await host.receive_some()

        async def say() -> None:
            await host.send_all(SAID)
            await host.aclose()

        nursery.start_soon(say)
        heard = await receive(relay.socket, len(SAID) + 1)

        assert SAID == heard
        assert 0 == await relay.wait()


async def test_relay_does_not_wait_for_ever_for_who_takes_nothing(private_place: Path) -> None:
    """Where the host is gone and what it said last is not taken, a connection is dead, and its relay goes after it."""
    async with open_far_end(private_place) as (relay, host):
        with trio.move_on_after(0.5):
            await host.send_all(SAID)
        await host.aclose()

        assert 0 == await relay.wait()


async def receive(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes, or what there is up to the end."""
    data = b""
    with trio.fail_after(PATIENCE):
        while len(data) < size:
            await trio.lowlevel.wait_readable(connection)
            piece = connection.recv(1 << 16)
            if not piece:
                break
            data += piece
    return data
