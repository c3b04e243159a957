"""MCP over standard input and output: one JSON document a line.

The official package's own way reads in a thread that nothing can cancel: told to end by a signal, a process would wait
for its agent's next line. This one lets go of the thread. As there, what this process or its children print by
accident does not reach the agent: file descriptor 1 leads to standard error meanwhile, and 0 to nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import attrs
import mcp_types as types
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.lowlevel.server import Server
from mcp.shared.message import SessionMessage

READ_SIZE = 1 << 16

LAST_WORDS = 1.0
"""Seconds that the agent is given to read the last answers, once all is over."""

LARGEST_LINE = 1 << 25
"""Bytes of a message; what is longer ends the connection, as nothing tells where it would end."""


@attrs.define
class Lines:
    """Puts lines together from bytes as they come. [pure]"""

    _pieces: list[bytes] = attrs.field(factory=list, init=False)
    _size: int = attrs.field(default=0, init=False)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without empty ones.

        Raises:
            ValueError: A line is too long.
        """
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = b"".join((*self._pieces, whole[0]))
            self._pieces, self._size = [], 0
        self._pieces.append(rest)
        self._size += len(rest)
        if self._size > LARGEST_LINE:
            raise ValueError(f"a message is longer than {LARGEST_LINE} bytes")
        return [line for line in whole if line.strip()]


@contextmanager
def _take_streams() -> Iterator[tuple[int, int]]:
    """Yield descriptors of standard input and output, which nobody else has meanwhile."""
    sys.stdout.flush()
    taken = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0, inheritable=False)
    os.close(nothing)
    os.dup2(2, 1, inheritable=False)
    if sys.platform == "win32":
        import msvcrt

        for descriptor in taken:
            msvcrt.setmode(descriptor, os.O_BINARY)
    try:
        yield taken
    finally:
        # A thread may still be reading, so the descriptor must not become somebody else's: it is left to the end.
        os.dup2(taken[1], 1)


async def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = await trio.to_thread.run_sync(os.write, descriptor, view, abandon_on_cancel=True)
        view = view[written:]


@asynccontextmanager
async def open_standard_streams(answered: trio.Event | None = None) -> AsyncIterator[tuple[Any, Any]]:
    """Yield the two streams that an MCP server of the official package reads from and writes to.

    The first ends when standard input does. Cancelling lets go of both at once.

    Args:
        answered: Is set when the first message has been written.
    """
    to_server: MemoryObjectSendStream[SessionMessage | Exception]
    from_client: MemoryObjectReceiveStream[SessionMessage | Exception]
    to_client: MemoryObjectSendStream[SessionMessage]
    from_server: MemoryObjectReceiveStream[SessionMessage]
    to_server, from_client = anyio.create_memory_object_stream(0)
    to_client, from_server = anyio.create_memory_object_stream(0)

    async def read(descriptor: int) -> None:
        lines = Lines()
        async with to_server:
            while data := await trio.to_thread.run_sync(os.read, descriptor, READ_SIZE, abandon_on_cancel=True):
                for line in lines.feed(data):
                    await to_server.send(_parse(line))

    async def write(descriptor: int) -> None:
        async with from_server:
            async for message in from_server:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await _write_all(descriptor, text.encode() + b"\n")
                if answered is not None:
                    answered.set()
        written.set()

    written = trio.Event()
    with _take_streams() as (source, sink):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_closed, read, source)
            nursery.start_soon(_until_closed, write, sink)
            yield from_client, to_client
            with trio.move_on_after(LAST_WORDS):
                await written.wait()
            nursery.cancel_scope.cancel()


def _parse(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        # The package answers, as JSON-RPC has it for what cannot be read.
        return error


async def _until_closed(pump: Any, descriptor: int) -> None:
    try:
        await pump(descriptor)
    except (OSError, ValueError, anyio.ClosedResourceError, anyio.BrokenResourceError):
        # The agent is gone, or sends what is no message: the end, as that of standard input.
        await trio.lowlevel.checkpoint()


async def serve_standard_streams(server: Server[Any], answered: trio.Event | None = None) -> None:
    """Serve the agent that started this process, until it closes standard input. Cancelling ends it at once.

    Args:
        server: Answers it.
        answered: Is set when it has its first answer.
    """
    async with open_standard_streams(answered) as (source, sink):
        await server.run(source, sink, server.create_initialization_options())
