"""Named pipes over an in-memory double of the operating system's: the listener's and the stream's contract."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kallichore.errors import ConfigurationError
from kallichore.transport.named_pipe import (
    BUSY_PATIENCE,
    PLACES,
    SCARCITY_PAUSE,
    PipeBusyError,
    connect_named_pipe,
    open_pipe_listener,
    open_pipe_listeners,
)
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
    """A client that finds all instances taken tries again for half a minute, and then says that it is busy."""
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
        assert trio.current_time() - began == pytest.approx(BUSY_PATIENCE)


async def test_clients_that_come_at_once_find_a_place_each() -> None:
    """As many as there are places need not wait until the server has seen the one before; the name stays taken."""
    system = MemoryPipes()
    async with open_pipe_listeners(NAME, system) as listeners:
        clients = [system.open_client(NAME) for _ in listeners]
        with pytest.raises(PipeBusyError):
            system.open_client(NAME)
        for listener, client in zip(listeners, clients, strict=True):
            async with await listener.accept() as server:
                await system.write(client, b"hello")
                assert await server.receive_some() == b"hello"
            system.close(client)
        with pytest.raises(ConfigurationError, match="Access is denied"):
            async with open_pipe_listeners(NAME, system):
                pytest.fail("it must not listen")

    assert len(clients) == PLACES
    with pytest.raises(FileNotFoundError):
        system.open_client(NAME)


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


async def test_client_that_came_to_nothing_ends_nothing() -> None:
    """Where the system says that a client's connection failed, the next client is waited for, and finds an instance."""
    system = MemoryPipes()
    system.failures.append(OSError("the client is gone"))
    async with open_pipe_listener(NAME, system) as listener, trio.open_nursery() as nursery:

        async def accept() -> None:
            async with await listener.accept() as server:
                assert await server.receive_some() == b"the second"

        nursery.start_soon(accept)
        gone = await connect_named_pipe(NAME, system)
        await wait_all_tasks_blocked()
        async with await connect_named_pipe(NAME, system) as second:
            await second.send_all(b"the second")
        with pytest.raises(trio.BrokenResourceError):
            await gone.send_all(b"the first")
        await gone.aclose()


async def test_system_without_an_instance_to_give_is_asked_again(autojump_clock: trio.abc.Clock) -> None:
    """A client is served although there is no instance for the next one, which has to wait until there is."""
    system = MemoryPipes()
    async with open_pipe_listener(NAME, system) as listener:
        async with await connect_named_pipe(NAME, system) as first:
            system.refusals += [OSError(1450, "no resources")] * 3
            async with await listener.accept() as server, trio.open_nursery() as nursery:
                await first.send_all(b"first")
                assert await server.receive_some() == b"first"
                began = trio.current_time()
                nursery.start_soon(connect_later, system)
                async with await listener.accept() as other:
                    assert await other.receive_some() == b"later"

    assert trio.current_time() - began >= 2 * SCARCITY_PAUSE


async def connect_later(system: MemoryPipes) -> None:
    """Connect to the pipe as soon as it is there, and say so."""
    while True:
        try:
            async with await connect_named_pipe(NAME, system) as client:
                await client.send_all(b"later")
                return
        except FileNotFoundError:
            await trio.sleep(SCARCITY_PAUSE)


async def test_receiving_from_a_pipe_that_we_close_is_not_its_end() -> None:
    """Another task of ours that waits for data is told that we closed it; a client that closes is the end of data."""
    system = MemoryPipes()
    async with open_pipe_listener(NAME, system) as listener, trio.open_nursery() as nursery:
        client = await connect_named_pipe(NAME, system)
        server = await listener.accept()

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await server.receive_some()

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await server.aclose()
        assert await client.receive_some() == b""
        await client.aclose()


async def test_missing_pipe_is_an_error_of_the_system() -> None:
    """Connecting to a pipe that nobody listens on fails at once."""
    with pytest.raises(FileNotFoundError):
        await connect_named_pipe(NAME, MemoryPipes())
