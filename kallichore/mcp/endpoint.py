"""Streamable HTTP for the agents of each workspace, as the official package speaks it.

Importing this imports the package, which takes a second or more; it is done in a thread, when the first workspace
registers.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from kallichore.agents.protocol import make_protocol_server
from kallichore.mcp.toolbox import WindowToolbox

SESSION_IDLE = 3600.0
"""Seconds after which what an agent's connection is known by is forgotten; then it has to begin anew, as it may."""

MOST_SESSIONS = 200
"""Connections of agents to a workspace that are known at a time."""

LARGEST_BODY = 1 << 23
"""Bytes of a request: the largest code that a tool takes, escaped, and some room."""


@attrs.define(eq=False)
class Endpoint:
    """The endpoint of one workspace.

    Args:
        toolbox: What its agents can do.
    """

    toolbox: WindowToolbox
    _manager: StreamableHTTPSessionManager = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._manager = StreamableHTTPSessionManager(
            make_protocol_server(self.toolbox),
            max_request_body_size=LARGEST_BODY,
            session_idle_timeout=SESSION_IDLE,
            max_sessions=MOST_SESSIONS,
        )

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled, which ends all that goes on for its agents."""
        async with self._manager.run():
            task_status.started()
            await trio.sleep_forever()

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, as ASGI has it."""
        await self._manager.handle_request(scope, receive, send)
