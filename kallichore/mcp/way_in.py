"""The agents' way in to a server, as long as nobody has come: what costs a server's start nothing.

All that serves agents is imported when the first workspace registers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from http import HTTPStatus
from importlib.util import find_spec
from typing import TYPE_CHECKING

import trio

from kallichore.errors import McpListenerError, WorkspaceNotFoundError
from kallichore.models.bodies import McpStatus, McpWorkspace, McpWorkspaceRegistration
from kallichore.server import Server
from kallichore.transport.front_door import Attach, close_in_order
from kallichore.transport.request_head import RequestHead, refusal

if TYPE_CHECKING:
    from kallichore.mcp.side import McpSide
    from kallichore.mcp.workspace import Workspace

_MISSING = "Agents need the package mcp where the server is: python -m pip install 'kallichore[mcp]'"


class WayIn:
    """What the API and the front door know of agents. Made by `open_mcp`.

    Args:
        server: The server.
        nursery: Where all that serves agents lives.
    """

    def __init__(self, server: Server, nursery: trio.Nursery) -> None:
        self._server = server
        self._nursery = nursery
        self._side: McpSide | None = None

    @cached_property
    def is_installed(self) -> bool:
        """Whether the package is there that serves agents."""
        return find_spec("mcp") is not None

    async def register(self, wanted: McpWorkspaceRegistration) -> McpWorkspace:
        """Register a workspace; see `kallichore.mcp.side.McpSide.register`.

        Raises:
            McpListenerError: There is nothing to listen on, or the package ``mcp`` is not installed.
        """
        if not self.is_installed:
            raise McpListenerError(_MISSING, "mcp_not_installed")
        if self._side is None:
            from kallichore.mcp.side import McpSide

            self._side = McpSide(self._server, self._nursery)
            self._server.facilities.additions.of = self._side.environment_of
        return await self._side.register(wanted)

    async def deregister(self, workspace_id: str) -> None:
        """Forget a workspace.

        Raises:
            WorkspaceNotFoundError: There is none with this id.
        """
        self.require(workspace_id)
        assert self._side is not None
        await self._side.deregister(workspace_id)

    def require(self, workspace_id: str) -> Workspace:
        """Return a workspace.

        Raises:
            WorkspaceNotFoundError: There is none with this id.
        """
        if self._side is None:
            raise WorkspaceNotFoundError(f"No workspace {workspace_id[:100]!r} is registered")
        return self._side.require(workspace_id)

    def status(self) -> McpStatus | None:
        """Return how things are; None where the package that serves agents is not installed."""
        if not self.is_installed:
            return None
        if self._side is None:
            return McpStatus(active=False, port=0, request_count=0)
        return self._side.status()

    def takes(self, path: str) -> bool:
        """Whether a WebSocket with this path is a workspace's channel."""
        return _channel_workspace(path) is not None

    def attach_beside(self, others: Attach | None) -> Attach:
        """Return what serves the workspaces' channels, and the WebSockets of others."""

        async def attach(stream: trio.abc.Stream, head: RequestHead, surplus: bytes) -> None:
            name = _channel_workspace(head.path)
            if name is None:
                assert others is not None
                await others(stream, head, surplus)
            elif self._side is None:
                error = WorkspaceNotFoundError("No workspace is registered")
                await stream.send_all(refusal(HTTPStatus(error.http_status), error.message, code=error.code))
                await close_in_order(stream)
            else:
                await self._side.serve_window(name, stream, head, surplus)

        return attach


def _channel_workspace(path: str) -> str | None:
    """Return the still encoded id of ``/mcp/workspaces/{id}/channel``; None if this is another path."""
    parts = path.split("/")
    is_channel = len(parts) == 5 and parts[:3] == ["", "mcp", "workspaces"] and parts[4] == "channel"
    return parts[3] if is_channel else None


@asynccontextmanager
async def open_mcp(server: Server) -> AsyncIterator[WayIn]:
    """Open the agents' way in to a server; leaving the block ends all of it."""
    async with trio.open_nursery() as nursery:
        yield WayIn(server, nursery)
        nursery.cancel_scope.cancel()
