"""Windows' own named pipes: clients that vanish, who may open one, and what closing it means."""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

if sys.platform != "win32":
    pytest.skip("Windows only: `nox -s windows` runs it under Wine", allow_module_level=True)

from kallichore.session.kernel_files import open_kernel_file
from kallichore.transport.connection_file import open_connection_file, read_connection_file
from kallichore.transport.named_pipe import connect_named_pipe, open_pipe_listener
from kallichore.transport.windows_pipes import WindowsPipes
from kallichore.transport.windows_security import access_list, user_sid

LIMIT = 60
"""Seconds after which a test has failed; what it waits for takes moments."""


def new_name() -> str:
    """Return a pipe's name that nobody has."""
    return rf"\\.\pipe\kallichore-test-{secrets.token_hex(6)}"


def vanish(name: str, data: bytes = b"") -> None:
    """Connect to a pipe, write, and leave at once."""
    with open(name, "r+b", buffering=0) as client:
        client.write(data)


def look(name: str) -> None:
    """See whether a pipe is there, which connects to it and leaves."""
    os.path.exists(name)


async def test_clients_that_vanish_end_nothing() -> None:
    """Whoever only looks whether a pipe is there, or leaves before we know of it, is a client that has left; what it
    wrote before that is still there. The next one is served.
    """
    name = new_name()
    heard: list[bytes] = []
    with trio.fail_after(LIMIT):
        async with open_pipe_listener(name) as listener:
            for number in range(100):
                vanish(name, b"%d" % number) if number % 2 else look(name)
                async with await listener.accept() as server:
                    heard.append(bytes(await server.receive_some()))
            async with await connect_named_pipe(name) as client, await listener.accept() as server:
                await client.send_all(b"hello")
                served = bytes(await server.receive_some())

    assert [b"%d" % number if number % 2 else b"" for number in range(100)] == heard
    assert b"hello" == served


async def test_storm_of_clients_is_survived() -> None:
    """Clients that come from many tasks at once are each served, however many vanish between them."""
    name = new_name()
    answers: list[bytes] = []

    async def come(number: int) -> None:
        async with await connect_named_pipe(name) as client:
            if number % 3 == 0:
                return
            await client.send_all(b"%d" % number)
            answers.append(bytes(await client.receive_some()))

    async def echo(stream: trio.abc.Stream) -> None:
        async with stream:
            data = await stream.receive_some()
            if data:
                await stream.send_all(data)
                # Until the client has gone: what it has not read yet would stay, but only as long as the pipe does.
                await stream.receive_some()

    with trio.fail_after(LIMIT):
        async with open_pipe_listener(name) as listener, trio.open_nursery() as serving:
            serving.start_soon(trio.serve_listeners, echo, [listener])
            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(come, number)
            serving.cancel_scope.cancel()

    assert {b"%d" % number for number in range(60) if number % 3} == {*answers}


async def test_pipe_and_connection_file_are_for_their_user_alone(tmp_path: Path) -> None:
    """The list of who may open them has one entry, and inherits none. (Wine adds the system itself to a file's.)"""
    pipes = WindowsPipes()
    handle = pipes.create_instance(new_name(), first=True)
    of_pipe = access_list(handle)
    pipes.close(handle)
    path = tmp_path / "connection.json"
    async with open_connection_file(path, {"transport": "tcp"}):
        with path.open("rb") as file:
            import msvcrt

            of_file = access_list(msvcrt.get_osfhandle(file.fileno()), is_file=True)

    entry = re.escape(user_sid())
    assert re.fullmatch(rf"D:P\w*\(A;;(GA|FA|0x\w+);;;{entry}\)", of_pipe)
    assert {user_sid()} == {*re.findall(r"\(A;\w*;\w+;;;([^)]+)\)", of_file)} - {"SY"}


async def test_closing_a_pipe_that_is_read_from_is_told_as_such() -> None:
    """Our own task hears that we closed it, the other side that the data are at their end; both get all data first."""
    name = new_name()
    with trio.fail_after(LIMIT):
        async with open_pipe_listener(name) as listener:
            client = await connect_named_pipe(name)
            server = await listener.accept()
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await server.receive_some()

                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                await server.send_all(b"last words")
                await server.aclose()
            heard = [bytes(await client.receive_some()) for _ in range(2)]
            await client.aclose()

    assert [b"last words", b""] == heard


async def test_closing_a_listener_ends_its_accept() -> None:
    """A task that waits for a client is told that there will be none."""
    with trio.fail_after(LIMIT):
        async with open_pipe_listener(new_name()) as listener, trio.open_nursery() as nursery:

            async def accept() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await listener.accept()

            nursery.start_soon(accept)
            await wait_all_tasks_blocked()
            await listener.aclose()


async def test_connection_file_that_somebody_reads_is_replaced_and_removed(tmp_path: Path) -> None:
    """An open file cannot be replaced here; the server waits until it can, and at its end until it can be removed."""
    path = tmp_path / "connection.json"
    path.write_text("old")

    async def hold(seconds: float) -> None:
        with path.open("rb"):
            await trio.sleep(seconds)

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, 0.3)
            await wait_all_tasks_blocked()
            async with open_connection_file(path, {"transport": "tcp"}):
                written = read_connection_file(path)
                nursery.start_soon(hold, 0.3)
                await wait_all_tasks_blocked()

    assert {"transport": "tcp"} == written
    assert [] == os.listdir(tmp_path)


def test_file_of_a_kernel_that_somebody_reads_does_not_keep_the_next_from_its_own(tmp_path: Path) -> None:
    """A restart while a scanner has the file of the kernel before writes another one beside it, and removes its own."""
    path = tmp_path / "connection.json"
    with open_kernel_file(path, {"shell_port": 1}):
        held = path.open("rb")
    with open_kernel_file(path, {"shell_port": 2}) as another:
        written = another.read_bytes()
    held.close()
    left = os.listdir(tmp_path)
    with open_kernel_file(path, {"shell_port": 3}) as again:
        assert again == path

    assert b'"shell_port": 2' in written
    assert path != another
    assert ["connection.json"] == left
    assert [] == os.listdir(tmp_path)
