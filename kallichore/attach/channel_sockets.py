"""A session's own socket, for servers that are on a Unix socket, or on Windows on a named pipe, themselves.

Clients that cannot upgrade a connection to a socket path with a route in it (the WebSocket library of the IDE is one)
ask for the channels over HTTP, are told the path of another socket, and open a WebSocket there, with whatever request
path they like. One socket a session, with a short name of its own, for any number of clients, one after another.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from kallichore.attach.websocket import serve_websocket
from kallichore.config import ServerConfig
from kallichore.errors import ChannelSocketError, ConfigurationError
from kallichore.kernel.launch_plan import safe_name
from kallichore.session.clients import Attendance, Wish
from kallichore.session.supervisor import Session
from kallichore.transport.auth import is_authorized
from kallichore.transport.named_pipe import PipeSystem, open_pipe_listener
from kallichore.transport.places import LONGEST_SOCKET_PATH
from kallichore.transport.request_head import LONGEST_HEAD, RequestHead, parse_head
from kallichore.transport.unix_socket import open_unix_listener

logger = logging.getLogger(__name__)

READ_SIZE = 1 << 16


def refusal(status: str, reason: str = "") -> bytes:
    """Return a whole response that ends the connection."""
    body = reason.encode("utf-8", "replace")
    kind = "content-type: text/plain; charset=utf-8\r\n" if body else ""
    head = f"HTTP/1.1 {status}\r\n{kind}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


def check_upgrade(head: RequestHead, config: ServerConfig, socket_path: str | None = None) -> Wish | bytes:
    """Return how the client attends, or the answer that refuses it. Nobody is displaced by a refused one."""
    if not is_authorized(head.headers.get("authorization"), config.token):
        return refusal("401 Unauthorized")
    if "sec-websocket-key" not in head.headers:
        return refusal("400 Bad Request")
    query = head.query
    attendance, since = query.get("attach", Attendance.TAKE_OVER), query.get("since")
    if attendance not in set(Attendance):
        return refusal("400 Bad Request", f"attach is {attendance!r}; it must be one of {', '.join(Attendance)}")
    if since is not None and not (since.isascii() and since.isdigit() and len(since) < 16):
        return refusal("400 Bad Request", f"since is {since!r}; it must be the number of a message, or 0 for all")
    return Wish(Attendance(attendance), None if since is None else int(since), socket_path)


OpenSocket = Callable[[str], AbstractAsyncContextManager[tuple[str, trio.abc.Listener[Any]]]]
"""Opens a socket of a session's own: yields its path and its listener."""


@asynccontextmanager
async def open_unix_socket(directory: Path, session_id: str) -> AsyncIterator[tuple[str, trio.abc.Listener[Any]]]:
    """Listen on a Unix socket for a session, in the server's private directory.

    Raises:
        ChannelSocketError: It could not be made.
    """
    path = directory / f"{safe_name(session_id)}.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        text = f"The channel socket's path {path} is too long; choose a shorter --socket-dir"
        raise ChannelSocketError(text, "socket_path_too_long")
    async with open_unix_listener(path) as listener:
        yield str(path), listener


@asynccontextmanager
async def open_pipe(
    session_id: str, system: PipeSystem | None = None
) -> AsyncIterator[tuple[str, trio.abc.Listener[Any]]]:
    """Listen on a named pipe for a session."""
    name = rf"\\.\pipe\kallichore-{safe_name(session_id)}-{secrets.token_hex(8)}"
    async with open_pipe_listener(name, system) as listener:
        yield name, listener


@attrs.define(eq=False)
class ChannelSockets:
    """The channel sockets of one server.

    Args:
        config: The server's settings.
        open_socket: Opens the socket of a session.
        nursery: Listeners and connections run in it.
    """

    config: ServerConfig
    open_socket: OpenSocket
    nursery: trio.Nursery
    _paths: dict[Session, str] = attrs.field(factory=dict, init=False)
    _opening: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def path_for(self, session: Session) -> str:
        """Return the path of the session's socket, which is listening; it is made on the first call.

        Raises:
            ChannelSocketError: It could not be made.
        """
        async with self._opening:
            if session not in self._paths:
                try:
                    self._paths[session] = await self.nursery.start(self._listen, session)
                except ConfigurationError as error:
                    raise ChannelSocketError(str(error), "domain_socket_error") from error
        return self._paths[session]

    async def _listen(self, session: Session, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept the session's clients until it is over."""
        async with AsyncExitStack() as stack:
            path, listener = await stack.enter_async_context(self.open_socket(session.session_id))
            async with trio.open_nursery() as nursery:
                handler = partial(self._serve, session, path)
                nursery.start_soon(partial(trio.serve_listeners, handler, [listener], handler_nursery=self.nursery))
                task_status.started(path)
                await session.closed.wait()
                nursery.cancel_scope.cancel()
        self._paths.pop(session, None)

    async def _serve(self, session: Session, path: str, stream: trio.abc.Stream) -> None:
        async with stream:
            try:
                request = await _read_head(stream)
                if request is None:
                    return
                head, surplus = request
                wish = check_upgrade(head, self.config, path)
                if isinstance(wish, bytes):
                    await stream.send_all(wish)
                    return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            await serve_websocket(session, stream, head, surplus, self.config, wish)


async def _read_head(stream: trio.abc.Stream) -> tuple[RequestHead, bytes] | None:
    """Read a request's head and what came with it; None if the client went away or sent something else."""
    data = b""
    while (parsed := parse_head(data)) is None:
        if len(data) > LONGEST_HEAD or (data and not b"GET ".startswith(data[:4])):
            return None
        more = await stream.receive_some(READ_SIZE)
        if not more:
            return None
        data += bytes(more)
    return parsed
