"""The process of ``kcclient mcp``: the agent on standard input and output, and a server that ends with it."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from kallichore.agents.protocol import make_protocol_server
from kallichore.agents.standard_streams import serve_standard_streams
from kallichore.cli.agent.toolbox import AloneToolbox
from kallichore.cli.places import silence_server
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
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_at_signal, nursery.cancel_scope)
        async with _open_place(target) as server, trio.open_nursery() as runs:
            toolbox = AloneToolbox(server, runs)
            await serve_standard_streams(make_protocol_server(toolbox))
            runs.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def cancel_at_signal(scope: trio.CancelScope) -> None:
    """Cancel a scope at the first signal that asks this process to end."""
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async for _ in signals:
            scope.cancel()
            return


@asynccontextmanager
async def _open_place(target: Target) -> AsyncIterator[KallichoreServer]:
    if target.is_named:
        yield await target.kallichore("what agents need")
        return
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
        yield KallichoreServer(ApiClient(from_connection_document(document)))
