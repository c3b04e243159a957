"""Named pipes over an in-memory double of the operating system's: the listener's and the stream's contract."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kallichore.errors import ConfigurationError
from kallichore.transport.named_pipe import PipeBusyError, connect_named_pipe, open_pipe_listener
from memory_pipes import MemoryPipes

NAME = r"\\.\pipe\kallichore-test"


async def test_clients_connect_one_after_another() -> None:
    """Each client gets a stream of its own, and there is always an instance for the next."""
    system = MemoryPipes()
    async with open_pipe_listener(NAME, system) as listener:
        for number in range(3):
            client = await connect_named_pipe(NAME, system)
            async with await listener.accept() as server, client:
                await client.send_all(b"hello %d" % number)
                assert await server.receive_some() == b"hello %d" % number
                await server.send_all(b"bye")
                assert await client.receive_some(10) == b"bye"
                await client.aclose()
                assert await server.receive_some() == b""
                with pytest.raises(trio.ClosedResourceError):
                    await client.send_all(b"x")


async def test_name_that_is_taken_is_refused_in_words() -> None:
    """A second server with the same name is told so."""
    system = MemoryPipes()
    async with open_pipe_listener(NAME, system):
        with pytest.raises(ConfigurationError, match="Access is denied"):
            async with open_pipe_listener(NAME, system):
                pytest.fail("it must not listen")


async def test_busy_pipe_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    """A client that finds all instances taken tries again for a second, and then says that it is busy."""
    system = MemoryPipes()
    async with open_pipe_listener(NAME, system) as listener, trio.open_nursery() as nursery:
        first = await connect_named_pipe(NAME, system)
        nursery.start_soon(partial(connect_named_pipe, NAME, system))
        await wait_all_tasks_blocked()
        accepted = await listener.accept()
        second = await listener.accept()
        for stream in (first, accepted, second):
            await stream.aclose()
        began = trio.current_time()
        await connect_named_pipe(NAME, system)
        with pytest.raises(PipeBusyError):
            await connect_named_pipe(NAME, system)
        assert trio.current_time() - began == pytest.approx(1.0)


async def test_closing_the_listener_ends_accept() -> None:
    """Closing a listener from another task ends its accept, as with Trio's own."""
    system = MemoryPipes()
    async with open_pipe_listener(NAME, system) as listener, trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        await listener.aclose()


async def test_missing_pipe_is_an_error_of_the_system() -> None:
    """Connecting to a pipe that nobody listens on fails at once."""
    with pytest.raises(FileNotFoundError):
        await connect_named_pipe(NAME, MemoryPipes())
