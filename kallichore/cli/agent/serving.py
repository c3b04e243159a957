"""The process of ``kcclient mcp``: the agent on standard input and output, and a server that ends with it."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import attrs
import trio

from kallichore.agents.protocol import make_protocol_server
from kallichore.agents.standard_streams import serve_standard_streams
from kallichore.cli.agent.toolbox import AloneToolbox, FindServer
from kallichore.cli.target import Target
from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient
from kallichore.client.kallichore_server import KallichoreServer

SIGNALS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


async def serve_agent(target: Target) -> None:
    """Serve the agent that started this process, until it closes standard input or a signal comes.

    Args:
        target: A server that was named; if none was, there is a private one, which ends with this.

    Raises:
        ConfigurationError: The server has no address, or a private one cannot be had.
    """
    greeted = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_at_signal, nursery.cancel_scope)
        async with _open_place(target, greeted) as find_server, trio.open_nursery() as runs:
            toolbox = AloneToolbox(find_server, runs)
            await serve_standard_streams(make_protocol_server(toolbox), greeted)
            runs.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def cancel_at_signal(scope: trio.CancelScope) -> None:
    """Cancel a scope at the first signal that asks this process to end."""
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async for _ in signals:
            scope.cancel()
            return


@asynccontextmanager
async def _open_place(target: Target, greeted: trio.Event) -> AsyncIterator[FindServer]:
    """Yield what waits for the server and returns it; a private one ends with the block."""
    if target.is_named:
        named = await target.kallichore("what agents need")

        async def find_named() -> KallichoreServer:
            await trio.lowlevel.checkpoint()
            return named

        yield find_named
        return
    private = _Private(greeted)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(private.run)
        try:
            yield private.find
        finally:
            private.leave()


@attrs.define(eq=False)
class _Private:
    """A server of our own. It is started once the agent has its first answer, as importing it takes a second.

    Args:
        greeted: Set when the agent has its first answer.
    """

    greeted: trio.Event
    _server: KallichoreServer | None = attrs.field(default=None, init=False)
    _ready: trio.Event = attrs.field(factory=trio.Event, init=False)
    _left: trio.Event = attrs.field(factory=trio.Event, init=False)
    _waiting: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    def leave(self) -> None:
        """Let it end."""
        self._left.set()
        self._waiting.cancel()

    async def find(self) -> KallichoreServer:
        """Wait until it is there, and return it."""
        await self._ready.wait()
        assert self._server is not None
        return self._server

    async def run(self) -> None:
        """Run it until it is let end."""
        with self._waiting:
            await self.greeted.wait()
            await trio.to_thread.run_sync(import_module, "kallichore.embed", abandon_on_cancel=True)
        if self._waiting.cancelled_caught:
            return
        from kallichore.cli.places import silence_server
        from kallichore.config import ServerConfig, make_token
        from kallichore.embed import serve

        silence_server()
        transport = "named-pipe" if sys.platform == "win32" else "socket"
        config = ServerConfig(transport=transport, token=make_token(), resource_sample_interval_ms=0, jupyter=False)
        async with serve(config) as running:
            address = running.address
            document = {
                "transport": transport,
                "socket_path": address.socket_path,
                "named_pipe": address.named_pipe,
                "bearer_token": running.token,
            }
            self._server = KallichoreServer(ApiClient(from_connection_document(document)))
            self._ready.set()
            await self._left.wait()
