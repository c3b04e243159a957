"""A window of Positron's, as far as a workspace's channel shows it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from kallichore.client.address import Address
from kallichore.client.api_client import open_stream


@attrs.frozen
class Window:
    """Says and hears frames."""

    socket: WebSocketConnection

    async def say(self, kind: str, **members: Any) -> None:
        """Send a frame."""
        await self.socket.send_message(json.dumps({"kind": kind, **members}))

    async def hear(self, kind: str) -> dict[str, Any]:
        """Return the next frame of a kind; others are passed over."""
        while True:
            frame: dict[str, Any] = json.loads(await self.socket.get_message())
            if frame["kind"] == kind:
                return frame


@asynccontextmanager
async def open_window(address: Address, workspace_id: str, **hello: Any) -> AsyncIterator[Window]:
    """Open a workspace's channel and say hello."""
    path = f"/mcp/workspaces/{workspace_id}/channel"
    headers = [("authorization", f"Bearer {address.token}")]
    async with trio.open_nursery() as nursery:
        async with await open_stream(address) as stream:
            socket = await wrap_client_stream(nursery, stream, address.authority, path, extra_headers=headers)
            async with socket:
                window = Window(socket)
                await window.say("hello", **hello)
                yield window
        nursery.cancel_scope.cancel()
