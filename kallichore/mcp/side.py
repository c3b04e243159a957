"""The workspaces of one server, the listener for their agents, and their windows' channels.

The package ``mcp``, which takes a second to be imported, is imported in a thread when the first workspace registers,
while the answer to that is on its way.
"""

from __future__ import annotations

import importlib
import logging
import secrets
import string
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import attrs
import trio
from hypercorn.typing import ASGIFramework

from kallichore.config import make_token
from kallichore.errors import BadPathError, McpListenerError, WorkspaceNotFoundError
from kallichore.mcp import beside
from kallichore.mcp.access import CARD, PRESENCE, ROOT, Access, locate
from kallichore.mcp.channel import serve_channel
from kallichore.mcp.names import is_token, is_workspace_id, make_workspace_id
from kallichore.mcp.workspace import Workspace
from kallichore.models.bodies import McpStatus, McpWorkspace, McpWorkspaceRegistration, NewSession
from kallichore.server import Server
from kallichore.session.session import cancel_when
from kallichore.transport.front_door import FrontDoor, close_in_order
from kallichore.transport.request_head import RequestHead, decode_segment, refusal
from kallichore.transport.tcp import TcpListener, open_tcp_listeners

logger = logging.getLogger(__name__)

MOST_WORKSPACES = 100
"""Workspaces at a time: a window each, and there are not that many screens."""

_LETTERS = string.ascii_lowercase + string.digits


@attrs.define(eq=False)
class _Listening:
    """A listener that is open, and how to close it."""

    port: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    closed: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class McpSide:
    """The workspaces of one server. Made by `kallichore.mcp.way_in` when there is one to register."""

    server: Server
    _nursery: trio.Nursery
    _workspaces: dict[str, Workspace] = attrs.field(factory=dict, init=False)
    _tokens: dict[str, str] = attrs.field(factory=dict, init=False)
    _endpoints: dict[str, Any] = attrs.field(factory=dict, init=False)
    _scopes: dict[str, trio.CancelScope] = attrs.field(factory=dict, init=False)
    _listening: _Listening | None = attrs.field(default=None, init=False)
    _binding: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _requests: int = attrs.field(default=0, init=False)
    _ready: dict[str, trio.Event] = attrs.field(factory=dict, init=False)

    # The management API

    async def register(self, wanted: McpWorkspaceRegistration) -> McpWorkspace:
        """Register a workspace, or register it again: then it keeps its token, and may have a new name.

        Raises:
            McpListenerError: There is nothing to listen on, or there are too many workspaces.
        """
        async with self._binding:
            listening = self._listening or await self._listen(wanted.preferred_port)
            workspace = self._workspaces.get(wanted.workspace_id or "")
            if workspace is None:
                workspace = await self._add(wanted)
            workspace.display_name = wanted.display_name
        return McpWorkspace(
            workspace_id=workspace.workspace_id,
            token=workspace.token,
            port=listening.port,
            url=self._url(workspace.workspace_id),
        )

    async def deregister(self, workspace_id: str) -> None:
        """Forget a workspace: its token is worth nothing any more, and its windows and agents are let go.

        Raises:
            WorkspaceNotFoundError: There is none with this id.
        """
        async with self._binding:
            workspace = self.require(workspace_id)
            self._forget(workspace)
            if not self._workspaces and self._listening is not None:
                listening, self._listening, self._requests = self._listening, None, 0
                listening.scope.cancel()
                # The port is free when this is answered.
                await listening.closed.wait()

    def require(self, workspace_id: str) -> Workspace:
        """Return a workspace.

        Raises:
            WorkspaceNotFoundError: There is none with this id.
        """
        try:
            return self._workspaces[workspace_id]
        except KeyError:
            raise WorkspaceNotFoundError(f"No workspace {workspace_id[:100]!r} is registered") from None

    def status(self) -> McpStatus:
        """Return how things are."""
        return McpStatus(
            active=self._listening is not None,
            port=0 if self._listening is None else self._listening.port,
            request_count=self._requests,
            workspaces=tuple(workspace.status() for workspace in self._workspaces.values()),
        )

    # Workspaces

    async def _add(self, wanted: McpWorkspaceRegistration) -> Workspace:
        if len(self._workspaces) >= MOST_WORKSPACES:
            raise McpListenerError(f"There are {MOST_WORKSPACES} workspaces; remove one first", "too_many_workspaces")
        name = wanted.workspace_id
        if name is None or not is_workspace_id(name):
            name = make_workspace_id(wanted.display_name, "".join(secrets.choice(_LETTERS) for _ in range(6)))
        token = wanted.token
        if token is None or not is_token(token) or token in self._tokens.values():
            token = make_token()
        workspace = Workspace(name, wanted.display_name, token)
        self._workspaces[name], self._tokens[name] = workspace, token
        self._ready[name] = trio.Event()
        self._nursery.start_soon(self._serve_workspace, workspace)
        logger.info("[workspace %s] Registered for agents", name)
        await trio.lowlevel.checkpoint()
        return workspace

    async def _serve_workspace(self, workspace: Workspace) -> None:
        """Serve the agents of a workspace until it is forgotten."""
        name = workspace.workspace_id
        ready = self._ready[name]
        with trio.CancelScope() as self._scopes[name]:
            endpoint_module = await trio.to_thread.run_sync(importlib.import_module, "kallichore.mcp.endpoint")
            toolbox_module = importlib.import_module("kallichore.mcp.toolbox")
            toolbox = toolbox_module.WindowToolbox(
                self.server, workspace, lambda: list(self._workspaces.values()), self._count_request
            )
            endpoint = endpoint_module.Endpoint(toolbox)
            async with trio.open_nursery() as nursery:
                await nursery.start(endpoint.run)
                if not workspace.is_removed:
                    self._endpoints[name] = partial(_serve_apart, nursery, endpoint.serve)
                ready.set()
        ready.set()

    def _forget(self, workspace: Workspace) -> None:
        name = workspace.workspace_id
        for kept in (self._workspaces, self._tokens, self._endpoints):
            kept.pop(name, None)
        workspace.remove()
        if (scope := self._scopes.pop(name, None)) is not None:
            scope.cancel()
        logger.info("[workspace %s] Removed", name)

    def _count_request(self) -> None:
        self._requests += 1

    def environment_of(self, request: NewSession) -> Mapping[str, str]:
        """Return what tells agents inside a kernel how to reach the workspace that it was started for."""
        workspace = self._workspaces.get(request.workspace_id or "")
        if workspace is None or self._listening is None:
            return {}
        url = f"{self._url(workspace.workspace_id)}/s/{quote(request.session_id, safe='')}"
        return {"POSITRON_MCP_URL": url, "POSITRON_MCP_TOKEN": workspace.token}

    # The listener

    def _url(self, workspace_id: str) -> str:
        assert self._listening is not None
        return f"http://127.0.0.1:{self._listening.port}{ROOT}{workspace_id}"

    async def _listen(self, preferred_port: int | None) -> _Listening:
        port = preferred_port if preferred_port is not None and 0 < preferred_port < 1 << 16 else 0
        try:
            try:
                listeners = await open_tcp_listeners(port, "127.0.0.1")
            except OSError:
                # Somebody else has it by now.
                listeners = await open_tcp_listeners(0, "127.0.0.1")
        except OSError as error:
            raise McpListenerError(f"Agents could not be listened for: {error.strerror or error}") from error
        listening = _Listening(listeners[0].port)
        self._listening = listening
        self._nursery.start_soon(self._serve, listening, listeners)
        logger.info("Listening for agents on port %d", listening.port)
        return listening

    async def _serve(self, listening: _Listening, listeners: list[TcpListener]) -> None:
        access = Access(self._tokens, self._has_session, self.server.shutdown_requested.is_set)
        door = FrontDoor(self._make_app(), None, access, serves_half_closed=False)
        try:
            with listening.scope:
                await trio.serve_listeners(door.serve, listeners)
        finally:
            for listener in listeners:
                listener.close()
            listening.closed.set()

    def _has_session(self, session_id: str) -> bool:
        return any(session.session_id == session_id for session in self.server.sessions)

    def _make_app(self) -> ASGIFramework:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return
            place = locate(scope["raw_path"].decode("latin-1"))
            workspace = None if place is None else self._workspaces.get(place.workspace_id)
            if place is None or workspace is None:
                await send({"type": "http.response.start", "status": 404, "headers": []})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            query = scope["query_string"].decode("latin-1")
            async with trio.open_nursery() as nursery:
                if place.session_id is not None:
                    nursery.start_soon(cancel_when, self._deleted(place.session_id), nursery.cancel_scope)
                if place.part == CARD:
                    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
                    await beside.answer_card(self._url(workspace.workspace_id), headers, send)
                elif place.part == PRESENCE:
                    nursery.start_soon(_cancel_at_disconnect, receive, nursery.cancel_scope)
                    await beside.hold_presence(workspace, place, query, send)
                else:
                    await self._serve_agent(workspace, {**scope, "kallichore.caller": place.session_id}, receive, send)
                nursery.cancel_scope.cancel()

        return app

    def _deleted(self, session_id: str) -> trio.Event:
        """Return the event that a session is deleted; of one that is not there, it has been."""
        for session in self.server.sessions:
            if session.session_id == session_id:
                return session.deleted
        gone = trio.Event()
        gone.set()
        return gone

    async def _serve_agent(self, workspace: Workspace, scope: Any, receive: Any, send: Any) -> None:
        await self._ready[workspace.workspace_id].wait()
        serve = self._endpoints.get(workspace.workspace_id)
        if serve is not None:
            await serve(scope, receive, send)

    # Windows

    async def serve_window(self, name: str, stream: trio.abc.Stream, head: RequestHead, surplus: bytes) -> None:
        """Answer the upgrade of a workspace's channel: refuse it, or serve the window.

        Args:
            name: The workspace's id, still encoded.
            stream: The connection; it is closed then.
            head: The request.
            surplus: What came behind it.
        """
        try:
            if "sec-websocket-key" not in head.headers:
                raise BadPathError("A WebSocket needs a Sec-WebSocket-Key")
            workspace = self.require(decode_segment(name))
        except (WorkspaceNotFoundError, BadPathError) as error:
            status = HTTPStatus(error.http_status)
            await stream.send_all(refusal(status, error.message, code=error.code or "bad_request"))
            await close_in_order(stream)
            return
        await serve_channel(workspace, stream, head, surplus, self.server.shutdown_requested)


async def _serve_apart(nursery: trio.Nursery, app: ASGIFramework, scope: Any, receive: Any, send: Any) -> None:
    """Have an app serve a request in a task of its own, which is told when the connection is gone, and not cancelled.

    The official package takes a request that is cancelled for one that failed: an agent that closes its connection as
    soon as it has read the answer to its first request would lose the session that this has opened.

    Args:
        nursery: Where the task lives.
        app: Serves it.
        scope: The request, and so on, as ASGI has it.
        receive: The same.
        send: The same.
    """
    gone, finished = trio.Event(), trio.Event()

    async def receive_or_gone() -> Any:
        message: Any = {"type": "http.disconnect"}
        async with trio.open_nursery() as waiting:
            waiting.start_soon(cancel_when, gone, waiting.cancel_scope)
            message = await receive()
            waiting.cancel_scope.cancel()
        return message

    async def send_unless_gone(message: Any) -> None:
        if not gone.is_set():
            await send(message)

    async def serve() -> None:
        try:
            request: Any = {**scope, "kallichore.gone": gone}
            await app(request, receive_or_gone, send_unless_gone)
        except Exception:
            # It is one request's, and must not be the end of all the others.
            logger.exception("An agent's request failed")
        finally:
            finished.set()

    nursery.start_soon(serve)
    try:
        await finished.wait()
    finally:
        gone.set()


async def _cancel_at_disconnect(receive: Any, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
