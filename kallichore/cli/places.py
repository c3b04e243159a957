"""Where code is run: in a kernel of this command's own, here or on a server, or in a session that is there already."""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from kallichore.cli.dialogue import LATE_OUTPUT, SERVERS_OWN, Dialogue, has_exited, open_dialogue
from kallichore.cli.execution import END_PATIENCE, Kernel
from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, ApiError, session_path
from kallichore.kernel.kernelspecs import KernelSpec
from kallichore.models.converter import unstructure

if TYPE_CHECKING:
    from kallichore.session.executions import Execution
    from kallichore.session.session import Session

QUIET_START = 3.0
"""Seconds that a start may take without a word; most take one."""

DELETE_PATIENCE = 10.0
"""Seconds that the end of a session of ours may take, also when we are cancelled."""

OnOutput = Callable[[str, str], None]


def new_id(spec: KernelSpec) -> str:
    """Return an id for a session that nobody named."""
    return f"{spec.name}-{secrets.token_hex(4)}"


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
async def open_here(spec: KernelSpec, members: dict[str, Any]) -> AsyncIterator[Kernel]:
    """Start a kernel in a private server inside this process. Nothing is left behind, however the block ends.

    Args:
        spec: The kernel.
        members: What the session is created with besides the kernel, as members of `NewSession`.

    Raises:
        StartupError: The kernel could not be started.
    """
    # Only here is the server needed.
    from kallichore.config import ServerConfig
    from kallichore.server import open_server

    silence_server()
    async with open_server(ServerConfig(token=None, resource_sample_interval_ms=0)) as server:
        session = server.create_session(spec.new_session(new_id(spec), **members))
        async with tell_of_waiting(spec, members):
            await session.start()
        yield _Here(session)


@asynccontextmanager
async def open_new(
    address: Address, spec: KernelSpec, members: dict[str, Any], on_output: OnOutput
) -> AsyncIterator[Kernel]:
    """Start a kernel in a new session of a server, which is ended and deleted afterwards; see `open_here`.

    Args:
        address: The server.
        spec: The kernel.
        members: What the session is created with besides the kernel.
        on_output: Is given what processes print while no code of ours runs.

    Raises:
        ApiError: The server refused.
    """

    def pass_on(stream: str, text: str) -> None:
        # What the server says itself is of the kernel's end, which we asked for.
        if not text.startswith(SERVERS_OWN):
            on_output(stream, text)

    async with open_session(address, spec, members) as session_id:
        async with open_dialogue(address, session_id, pass_on) as dialogue:
            yield dialogue
            await _end(ApiClient(address), dialogue)


async def _end(client: ApiClient, dialogue: Dialogue) -> None:
    """End the kernel, and hear what its processes print until then."""
    with suppress(ApiError):
        # Where there is nothing to kill it has ended by itself.
        await client.call("POST", session_path(dialogue.session_id, "kill"))
    with trio.move_on_after(END_PATIENCE):
        await dialogue.exited.wait()


@asynccontextmanager
async def open_session(address: Address, spec: KernelSpec, members: dict[str, Any]) -> AsyncIterator[str]:
    """Create and start a session of a server; yield its id. It is ended and deleted afterwards.

    Raises:
        ApiError: The server refused.
    """
    client, session_id = ApiClient(address), new_id(spec)
    await client.call("PUT", "/sessions", unstructure(spec.new_session(session_id, **members)))
    try:
        async with tell_of_waiting(spec, members):
            await client.call("POST", session_path(session_id, "start"))
        yield session_id
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(DELETE_PATIENCE):
            await delete_session(client, session_id)


@asynccontextmanager
async def open_existing(
    address: Address, session_id: str, on_output: OnOutput, *, takes_over: bool = False, name: str | None = None
) -> AsyncIterator[Kernel]:
    """Join a session that is there; see `open_dialogue`. What programs print at the end is waited for."""
    async with open_dialogue(address, session_id, on_output, takes_over=takes_over, name=name) as dialogue:
        yield dialogue
        await dialogue.wait_late_output()


@asynccontextmanager
async def tell_of_waiting(spec: KernelSpec, members: dict[str, Any]) -> AsyncIterator[None]:
    """While a block waits for a kernel's start, say so on standard error once that takes long."""
    limit = members.get("connection_timeout", 0)
    given = f"for {limit} seconds at most; --start-timeout gives it more" if limit >= 0 else "for as long as it takes"

    async def tell() -> None:
        await trio.sleep(QUIET_START)
        print(f"Waiting for the kernel {spec.name} to start and answer, {given}", file=sys.stderr, flush=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        yield
        nursery.cancel_scope.cancel()


async def delete_session(client: ApiClient, session_id: str) -> None:
    """Kill and delete a session of ours. Its kernel ends a moment after the kill; deleting works from then on."""
    try:
        with suppress(ApiError):
            await client.call("POST", session_path(session_id, "kill"))
        while not await has_exited(client, session_id):  # noqa: ASYNC110  # the API has no call that waits for it
            await trio.sleep(LATE_OUTPUT / 6)
        await client.call("DELETE", session_path(session_id))
    except ApiError:
        # Somebody else was faster.
        pass
