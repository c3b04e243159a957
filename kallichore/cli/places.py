"""Where code is run: in a kernel of this command's own, here or on a server, or in a session that is there already."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from kallichore.cli.dialogue import SERVERS_OWN, Dialogue, open_dialogue
from kallichore.cli.execution import END_PATIENCE, Kernel
from kallichore.client.api_client import ApiError
from kallichore.client.server import NewKernel, Server

if TYPE_CHECKING:
    from kallichore.session.executions import Execution
    from kallichore.session.session import Session

QUIET_START = 3.0
"""Seconds that a start may take without a word; most take one."""

OnOutput = Callable[[str, str], None]


def silence_server() -> None:
    """Keep what a server inside this process logs from the terminal; what matters is said by what fails."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())


@attrs.define(eq=False)
class _Here:
    """A kernel of a server inside this process; see `kallichore.cli.execution.Kernel`."""

    session: Session
    _execution: Execution | None = attrs.field(default=None, init=False)

    @asynccontextmanager
    async def run(self, code: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        async with self.session.execute(code, allow_stdin=True) as self._execution:
            yield self._execution

    async def answer(self, value: str) -> None:
        assert self._execution is not None
        self._execution.answer_input(value)

    async def interrupt(self) -> None:
        self.session.interrupt()


@asynccontextmanager
async def open_here(kernel: NewKernel) -> AsyncIterator[Kernel]:
    """Start a kernel in a private server inside this process. Nothing is left behind, however the block ends.

    Raises:
        StartupError: The kernel could not be started.
    """
    # Only here is the server needed.
    from kallichore.config import ServerConfig
    from kallichore.server import open_server

    silence_server()
    async with open_server(ServerConfig(token=None, resource_sample_interval_ms=0)) as server:
        session = server.create_session(kernel.make_request(kernel.name))
        async with tell_of_waiting(kernel):
            await session.start()
        yield _Here(session)


@asynccontextmanager
async def open_new(server: Server, kernel: NewKernel, on_output: OnOutput) -> AsyncIterator[Kernel]:
    """Start a kernel in a new session of a server, which is ended and deleted afterwards; see `open_here`.

    Args:
        server: The server.
        kernel: The kernel.
        on_output: Is given what processes print while no code of ours runs.

    Raises:
        ApiError: The server refused.
    """

    def pass_on(stream: str, text: str) -> None:
        # What the server says itself is of the kernel's end, which we asked for.
        if not text.startswith(SERVERS_OWN):
            on_output(stream, text)

    async with open_session(server, kernel) as session_id:
        async with open_dialogue(server, session_id, pass_on) as dialogue:
            yield dialogue
            await _end(server, dialogue)


async def _end(server: Server, dialogue: Dialogue) -> None:
    """End the kernel, and hear what its processes print until then."""
    with suppress(ApiError):
        # Where there is nothing to kill it has ended by itself.
        await server.kill(dialogue.session_id)
    with trio.move_on_after(END_PATIENCE):
        await dialogue.exited.wait()


@asynccontextmanager
async def open_session(server: Server, kernel: NewKernel) -> AsyncIterator[str]:
    """Start a kernel in a new session of a server; yield its id. It is ended and deleted afterwards.

    Raises:
        ApiError: The server refused.
    """
    async with AsyncExitStack() as session:
        async with tell_of_waiting(kernel):
            session_id = await session.enter_async_context(server.open_new(kernel))
        yield session_id


@asynccontextmanager
async def open_existing(
    server: Server, session_id: str, on_output: OnOutput, *, takes_over: bool = False, name: str | None = None
) -> AsyncIterator[Kernel]:
    """Join a session that is there; see `open_dialogue`. What programs print at the end is waited for."""
    async with open_dialogue(server, session_id, on_output, takes_over=takes_over, name=name) as dialogue:
        yield dialogue
        await dialogue.wait_late_output()


@asynccontextmanager
async def tell_of_waiting(kernel: NewKernel) -> AsyncIterator[None]:
    """While a block waits for a kernel's start, say so on standard error once that takes long."""
    limit = kernel.start_timeout
    given = f"for {limit} seconds at most; --start-timeout gives it more" if limit else "for as long as it takes"

    async def tell() -> None:
        await trio.sleep(QUIET_START)
        print(f"Waiting for the kernel {kernel.name} to start and answer, {given}", file=sys.stderr, flush=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        yield
        nursery.cancel_scope.cancel()
