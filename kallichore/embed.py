"""The whole server in somebody's Trio program: listeners, HTTP, channels, sessions, and their order at the end.

`run` is the server as a task, for ``await nursery.start(kallichore.run, config)``; `serve` is the same as a block. The
nursery tree is here. Connections are the outermost, in a nursery of their own that outlives the sessions for a moment:
clients are to hear how their session ended.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import attrs
import trio

from kallichore.api.admission import Admission
from kallichore.api.app import create_app
from kallichore.api.handlers import make_handlers
from kallichore.attach.channel_sockets import ChannelSockets, check_upgrade, open_pipe, open_unix_socket
from kallichore.attach.websocket import serve_websocket
from kallichore.config import ServerConfig
from kallichore.dashboard import side as dashboard
from kallichore.errors import BadPathError, ConfigurationError, SessionNotFoundError
from kallichore.jupyter.side import open_jupyter
from kallichore.mcp.way_in import WayIn, open_mcp
from kallichore.models.bodies import NewSession
from kallichore.server import Server, open_server
from kallichore.server.border import open_border
from kallichore.session.session import Session
from kallichore.state.address import go_on_at_the_same_address
from kallichore.transport.base_path import BelowBase, app_below, below
from kallichore.transport.connection_file import (
    ServerAddress,
    connection_document,
    open_connection_file,
    send_handshake,
)
from kallichore.transport.front_door import Attach, FrontDoor, Screen, close_in_order
from kallichore.transport.request_head import (
    RequestHead,
    channels_session,
    decode_segment,
    is_channels_path,
    refusal,
)
from kallichore.transport.tcp import TcpListener, open_tcp_listeners
from kallichore.transport.unix_socket import open_unix_listener

logger = logging.getLogger(__name__)

FAREWELL = 1.0
"""Seconds that connections get after the last session has ended: to deliver last messages and answers."""


@attrs.define(eq=False)
class RunningServer:
    """A server that listens: how to reach it, and how to end it.

    Attributes:
        address: Where it listens.
        token: The bearer token; None if everybody is let in.
        server: The server behind it, to use its sessions in this process.
    """

    address: ServerAddress
    token: str | None = attrs.field(repr=False)
    server: Server

    @property
    def sessions(self) -> list[Session]:
        """The sessions, in the order of their creation."""
        return self.server.sessions

    def create_session(self, request: NewSession) -> Session:
        """Create a session; see `Server.create_session`."""
        return self.server.create_session(request)

    def request_shutdown(self, reason: str = "asked to") -> None:
        """Begin to end the server: new connections are refused, and its kernels are asked to stop, each with its grace
        period. Idempotent.

        Args:
            reason: Why, for the log.
        """
        self.server.request_shutdown(reason)

    def request_exit(self, reason: str = "asked to") -> None:
        """Begin to end the server, and those of its kernels that do not outlive it; see `ServerConfig.on_exit`.
        Idempotent.

        Args:
            reason: Why, for the log.
        """
        self.server.request_exit(reason)

    def hurry(self) -> None:
        """Cut the grace periods of a shutdown short: kernels that still run are killed."""
        self.server.hurry()


async def run(  # noqa: ASYNC128  # _run_server calls started() for us
    config: ServerConfig | None = None,
    *,
    on_listening: Callable[[RunningServer], None] | None = None,
    task_status: trio.TaskStatus[RunningServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a server until it ends: by request, by idleness, or by cancellation.

    Cancelling ends it in order: kernels are asked to stop, then terminated, then killed, within the configured grace
    periods; sockets, files and processes are gone when this returns.

    Args:
        config: The settings.
        on_listening: Called when the server is bound, before the first request is answered.
        task_status: Is given the running server.

    Raises:
        ConfigurationError: It cannot listen there, the connection file or the handshake failed, or there is no Trio.
    """
    with open_border():
        await _run(config or ServerConfig(), on_listening, task_status)


async def _run(  # noqa: ASYNC128  # _run_server calls started() for us
    config: ServerConfig,
    on_listening: Callable[[RunningServer], None] | None,
    task_status: trio.TaskStatus[RunningServer],
) -> None:
    async with trio.open_nursery() as nursery:
        connections: _Connections = await nursery.start(_hold_connections)
        try:
            await _run_server(config, connections.nursery, on_listening, task_status)
        finally:
            connections.nursery.cancel_scope.deadline = trio.current_time() + FAREWELL
            connections.closing.set()


@attrs.frozen
class _Connections:
    """The nursery of the connections, and the word that no more will come."""

    nursery: trio.Nursery
    closing: trio.Event


async def _hold_connections(task_status: trio.TaskStatus[_Connections] = trio.TASK_STATUS_IGNORED) -> None:
    """Hold the connections' nursery, out of a cancellation's reach, until they have ended or their deadline has
    come.
    """
    closing = trio.Event()
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            task_status.started(_Connections(nursery, closing))
            await closing.wait()


async def _run_server(
    chosen: ServerConfig,
    connections: trio.Nursery,
    on_listening: Callable[[RunningServer], None] | None,
    task_status: trio.TaskStatus[RunningServer],
) -> None:
    config = go_on_at_the_same_address(chosen)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server(config))
        may_move = config.port != chosen.port
        listeners, address = await _open_listeners(
            config, server.facilities.runtime_directory, stack, may_move=may_move
        )
        if address.socket_path is not None and config.unix_socket is None:
            # A name that is this server's alone. A path that was chosen may be another server's when this one is gone.
            server.facilities.watchdog.guard_file(Path(address.socket_path))
        mcp = await stack.enter_async_context(open_mcp(server))
        running = RunningServer(address, config.token, server)
        server.announce(str(address), _document(running, config))
        deaf = trio.Event()
        door = _open_front_door(server, config, connections, deaf, mcp)
        if on_listening is not None:
            on_listening(running)
        async with trio.open_nursery() as accepting:
            accepting.start_soon(partial(trio.serve_listeners, door.serve, listeners, handler_nursery=connections))
            await _announce(running, config, stack)
            task_status.started(running)
            await server.shutdown_requested.wait()
            accepting.cancel_scope.cancel()
        deaf.set()
        await server.wait_sessions_ended()
        await door.close_idle()


async def _open_listeners(
    config: ServerConfig, runtime_directory: Path, stack: AsyncExitStack, *, may_move: bool
) -> tuple[list[trio.abc.Listener[Any]], ServerAddress]:
    if config.transport == "tcp":
        try:
            listeners = await _listen_on_tcp(config.port, may_move=may_move)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigurationError(
                f"Could not listen on 127.0.0.1:{config.port}: {reason}; choose another --port, or 0 for any"
            ) from error
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        port = listeners[0].port
        return list(listeners), ServerAddress(transport="tcp", port=port, base_path=f"http://127.0.0.1:{port}")
    if config.transport == "socket":
        path = config.unix_socket or _socket_path(config, runtime_directory)
        owners = await stack.enter_async_context(open_unix_listener(path))
        return [owners], ServerAddress(transport="socket", socket_path=str(path))
    from kallichore.transport.named_pipe import open_pipe_listeners

    name = rf"\\.\pipe\kallichore-{os.getpid()}"
    places = await stack.enter_async_context(open_pipe_listeners(name))
    return [*places], ServerAddress(transport="named-pipe", named_pipe=name)


async def _listen_on_tcp(port: int, *, may_move: bool) -> list[TcpListener]:
    try:
        return await open_tcp_listeners(port, "127.0.0.1")
    except OSError as error:
        if not may_move:
            raise
        logger.warning("Port %d, which the server before had, is somebody else's now: %s", port, error)
        return await open_tcp_listeners(0, "127.0.0.1")


def _socket_path(config: ServerConfig, runtime_directory: Path) -> Path:
    """Return a short path of this server's own for its main socket: where it was asked for, else where the server's
    directory could be made.
    """
    name = f"kc-{os.getpid()}-{secrets.token_hex(2)}.sock"
    return (config.socket_directory or runtime_directory.parent) / name


def _open_front_door(
    server: Server, config: ServerConfig, connections: trio.Nursery, deaf: trio.Event, mcp: WayIn
) -> FrontDoor:
    """Return the door to a server.

    Args:
        server: The server.
        config: Its settings.
        connections: Where connections to channel sockets, and those sockets, live.
        deaf: Is set when no new connection is accepted any more.
        mcp: The workspaces that agents reach, whose channels are here on every transport.
    """
    over_tcp = config.transport == "tcp"
    sockets: ChannelSockets | None = None
    channel_path = None
    attach: Attach | None = None
    if over_tcp:
        attach = partial(_attach, server, config)
    else:
        on_pipe = config.transport == "named-pipe"
        open_socket = open_pipe if on_pipe else partial(open_unix_socket, server.facilities.runtime_directory)
        sockets = ChannelSockets(config, open_socket, connections, server.shutdown_requested)
        channel_path = sockets.path_for

    async def wait_deaf() -> None:
        await deaf.wait()
        if sockets is not None:
            await sockets.wait_closed()

    admission = Admission(token=config.token, over_tcp=over_tcp, allow_origin=config.allow_origin)
    app = create_app(make_handlers(server, channel_path, wait_deaf, mcp), admission, server.facilities.intake)
    screen: Screen = admission
    base = config.base_url.rstrip("/")
    if over_tcp:
        # Browsers come over TCP only. What is a page's is also there where a proxy may have put it.
        app = app_below(base, dashboard.beside(app))
        screen = BelowBase(base, dashboard.DashboardScreen(admission))

    def takes(path: str) -> bool:
        return mcp.takes(path) or (over_tcp and is_channels_path(below(path, base)))

    attach = mcp.attach_beside(attach)
    if not config.jupyter:
        return FrontDoor(app, attach, screen, takes=takes)
    jupyter = open_jupyter(server, config)
    return FrontDoor(
        jupyter.beside(app),
        jupyter.attach_beside(attach),
        jupyter.screen_beside(screen),
        takes=lambda path: jupyter.takes(path) or takes(path),
    )


async def _attach(
    server: Server, config: ServerConfig, stream: trio.abc.Stream, head: RequestHead, surplus: bytes
) -> None:
    """Answer a channel upgrade over TCP: refuse it, or serve the session's client."""
    head = attrs.evolve(head, target=below(head.target, config.base_url.rstrip("/")))
    wish = check_upgrade(head, config)
    if not isinstance(wish, bytes):
        try:
            session = server.session(decode_segment(channels_session(head.path) or ""))
        except SessionNotFoundError as error:
            wish = refusal(HTTPStatus.NOT_FOUND, error.message, code=error.code)
        except BadPathError as error:
            wish = refusal(HTTPStatus.BAD_REQUEST, error.message)
        else:
            await serve_websocket(session, stream, head, surplus, config, wish)
            return
    await stream.send_all(wish)
    # A client may have sent its first frames already; unread, they would take the answer with them.
    await close_in_order(stream)


async def _announce(running: RunningServer, config: ServerConfig, stack: AsyncExitStack) -> None:
    """Tell clients how to reach the server, where that was asked for."""
    if config.connection_file is None and config.handshake_socket is None:
        return
    document = _document(running, config)
    if config.connection_file is not None:
        await stack.enter_async_context(open_connection_file(config.connection_file, document))
    if config.handshake_socket is not None:
        await send_handshake(config.handshake_socket, document)


def _document(running: RunningServer, config: ServerConfig) -> dict[str, Any]:
    return connection_document(
        running.address,
        server_path=shutil.which(sys.argv[0]) or sys.executable,
        bearer_token=config.token,
        log_path=config.log_file,
        server_id=running.server.server_id,
    )


@asynccontextmanager
async def serve(config: ServerConfig | None = None) -> AsyncIterator[RunningServer]:
    """Run a server while a block runs; leaving the block ends it as cancelling `run` does.

    A server that ends by itself (a client's shutdown request, idleness) does not end the block. What is raised in the
    block is raised by it, as it is; if the server fails at the same time, both are in an `ExceptionGroup`.

    Args:
        config: The settings.

    Raises:
        ConfigurationError: It cannot listen there, the connection file or the handshake failed, or there is no Trio.
    """
    with open_border() as border:
        async with trio.open_nursery() as nursery:
            running: RunningServer = await nursery.start(run, config)
            try:
                with border.block():
                    yield running
            finally:
                nursery.cancel_scope.cancel()
