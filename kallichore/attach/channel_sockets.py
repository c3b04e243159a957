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
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import attrs
import trio
import trio_util

from kallichore.attach.websocket import serve_websocket
from kallichore.config import ServerConfig
from kallichore.errors import ChannelSocketError, ConfigurationError, UnauthorizedError
from kallichore.kernel.launch_plan import safe_name
from kallichore.session.clients import Attendance, Wish
from kallichore.session.session import Session
from kallichore.transport.auth import authorization_of_page, is_authorized
from kallichore.transport.named_pipe import PipeSystem, open_pipe_listener
from kallichore.transport.places import LONGEST_SOCKET_PATH
from kallichore.transport.request_head import (
    LONGEST_HEAD,
    MalformedHeadError,
    RequestHead,
    parse_head,
    refusal,
    speaks_http_1,
)
from kallichore.transport.unix_socket import open_unix_listener

logger = logging.getLogger(__name__)

READ_SIZE = 1 << 16

LONGEST_NAME = 120
"""Letters of what a client says it is that another is told: a program, a person and a machine."""


def check_upgrade(head: RequestHead, config: ServerConfig, socket_path: str | None = None) -> Wish | bytes:
    """Return how the client attends, or the answer that refuses it. Nobody is displaced by a refused one."""
    if not speaks_http_1(head.version):
        return refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    authorization = head.headers.get("authorization") or authorization_of_page(head.subprotocols)
    if not is_authorized(authorization, config.token):
        text = "The bearer token is missing or wrong; the upgrade needs it as every request does"
        return refusal(HTTPStatus.UNAUTHORIZED, text, code=UnauthorizedError.code)
    if "sec-websocket-key" not in head.headers:
        return refusal(HTTPStatus.BAD_REQUEST, "This is no WebSocket upgrade: it has no Sec-WebSocket-Key")
    query = head.query
    attendance, since = query.get("attach", Attendance.TAKE_OVER), query.get("since")
    if attendance not in set(Attendance):
        return refusal(HTTPStatus.BAD_REQUEST, f"attach is {attendance!r}; it must be one of {', '.join(Attendance)}")
    if since is not None and not (since.isascii() and since.isdigit() and len(since) < 16):
        return refusal(HTTPStatus.BAD_REQUEST, f"since is {since!r}; it must be the number of a message, or 0 for all")
    name = query.get("name", "")[:LONGEST_NAME]
    return Wish(Attendance(attendance), None if since is None else int(since), socket_path, name)


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
        closing: Is set when no new connections are to be accepted.
    """

    config: ServerConfig
    open_socket: OpenSocket
    nursery: trio.Nursery
    closing: trio.Event = attrs.field(factory=trio.Event)
    _paths: dict[Session, str] = attrs.field(factory=dict, init=False)
    _closed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _opening: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def path_for(self, session: Session) -> str:
        """Return the path of the session's socket, which is listening; it is made on the first call.

        Raises:
            ChannelSocketError: It could not be made.
        """
        if self.closing.is_set():
            raise ChannelSocketError("The server is shutting down", "domain_socket_error")
        async with self._opening:
            if session not in self._paths:
                try:
                    await self.nursery.start(self._listen, session)
                except ConfigurationError as error:
                    raise ChannelSocketError(str(error), "domain_socket_error") from error
            try:
                return self._paths[session]
            except KeyError:
                raise ChannelSocketError("The session or the server has just ended", "domain_socket_error") from None

    async def _listen(self, session: Session, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept the session's clients until it is over."""
        async with AsyncExitStack() as stack:
            path, listener = await stack.enter_async_context(self.open_socket(session.session_id))
            async with trio.open_nursery() as nursery:
                handler = partial(self._serve, session, path)
                nursery.start_soon(partial(trio.serve_listeners, handler, [listener], handler_nursery=self.nursery))
                self._paths[session] = path
                task_status.started()
                await trio_util.wait_any(session.closed.wait, self.closing.wait)
                nursery.cancel_scope.cancel()
        self._paths.pop(session, None)
        if not self._paths:
            self._closed.set()

    async def wait_closed(self) -> None:
        """Wait until none of the sockets accepts connections any more, once they are `closing`."""
        while self._paths:
            self._closed = trio.Event()
            await self._closed.wait()

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
            except MalformedHeadError:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await stream.send_all(refusal(HTTPStatus.BAD_REQUEST))
                return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            await serve_websocket(session, stream, head, surplus, self.config, wish)


async def _read_head(stream: trio.abc.Stream) -> tuple[RequestHead, bytes] | None:
    """Read a request's head and what came with it; None if the client went away or sent something else.

    Raises:
        MalformedHeadError: It sent a head that is none.
    """
    data = b""
    while (parsed := parse_head(data)) is None:
        if len(data) > LONGEST_HEAD or (data and not b"GET ".startswith(data[:4])):
            return None
        more = await stream.receive_some(READ_SIZE)
        if not more:
            return None
        data += bytes(more)
    return parsed
