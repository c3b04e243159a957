"""A session's channels from outside: messages as dicts, over a WebSocket on whichever transport the server has."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, RejectConnection, Request, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, complaint, open_stream, session_path
from kallichore.client.websocket import (
    CLOSING_PATIENCE,
    UPGRADE_PATIENCE,
    closed,
    headers_of,
    not_opened,
    open_websocket,
    refused,
)


def make_message(msg_type: str, content: dict[str, Any], channel: str = "shell") -> dict[str, Any]:
    """Return a Jupyter message as clients send it."""
    return {
        "header": {
            "msg_id": secrets.token_hex(16),
            "msg_type": msg_type,
            "session": "kcclient",
            "username": "kcclient",
            "date": datetime.now(UTC).isoformat(),
            "version": "5.3",
        },
        "parent_header": None,
        "channel": channel,
        "content": content,
        "metadata": {},
        "buffers": [],
    }


def make_execute_request(code: str, **content: Any) -> dict[str, Any]:
    """Return an ``execute_request``; ``content`` are members other than the usual."""
    usual = {"silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": True, "stop_on_error": True}
    return make_message("execute_request", {"code": code, **usual, **content})


@attrs.frozen(eq=False)
class ChannelClient:
    """A session's channels, open. Made by `open_channel`."""

    socket: WebSocketConnection

    async def send(self, message: dict[str, Any]) -> str:
        """Send a message and return its ``msg_id``.

        Raises:
            ChannelClosedError: The channels are closed.
        """
        try:
            await self.socket.send_message(json.dumps(message))
        except ConnectionClosed as error:
            raise closed(error) from error
        return str(message["header"]["msg_id"])

    async def receive(self) -> dict[str, Any]:
        """Wait for the next message. Cancelling loses nothing.

        Raises:
            ChannelClosedError: The channels are closed.
        """
        try:
            message: dict[str, Any] = json.loads(await self.socket.get_message())
        except ConnectionClosed as error:
            raise closed(error) from error
        return message


async def _find_channels(address: Address, session_id: str) -> tuple[Address, str]:
    """Return where a session's channels are, and the path to ask for there: off TCP they have a socket of their own."""
    resource = session_path(session_id, "channels")
    if address.port is not None:
        return address, resource
    path = await ApiClient(address).call("GET", resource)
    pipe = address.named_pipe is not None
    address = attrs.evolve(address, **{"named_pipe" if pipe else "socket_path": path})
    return address, f"/api/channels/{quote(session_id, safe='')}"


def _query(**parameters: str | int | None) -> str:
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


@asynccontextmanager
async def open_channel(
    address: Address,
    session_id: str,
    *,
    since: int | None = None,
    attach: str | None = None,
    name: str | None = None,
) -> AsyncIterator[ChannelClient]:
    """Connect to a session's channels. Closed on leaving.

    Args:
        address: Where the server is.
        session_id: The session.
        since: A message's number: those beyond it come, with their numbers, and before them a ``sessionState``.
        attach: ``share`` to join other clients, ``watch`` to only read, ``visit`` to leave to others all that does not
            answer this client's own requests; else one that is there is displaced.
        name: Who this is, for the client that is displaced.

    What the block raises comes out in a group, as from any nursery; so does a `ChannelClosedError` where the server
    never answers the upgrade.

    Raises:
        ApiError: The server refused.
        OSError: Nobody listens there.
    """
    address, resource = await _find_channels(address, session_id)
    resource += _query(since=since, attach=attach, name=name)
    async with open_websocket(address, resource, complaint, patience=UPGRADE_PATIENCE) as socket:
        yield ChannelClient(socket)


async def send_and_leave(address: Address, session_id: str, message: dict[str, Any]) -> None:
    """Connect to a session's channels, send a message and close, these two in one piece.

    So what the kernel says to it is not sent here any more, and is the next client's, however fast the kernel is; and
    nobody who is there is displaced.
    Cancelling closes the connection; whether the message was sent is not known then.

    Raises:
        ApiError: The server refused.
        ChannelClosedError: The server went away.
        OSError: Nobody listens there.
    """
    address, resource = await _find_channels(address, session_id)
    resource += _query(attach="visit")
    protocol = WSConnection(ConnectionType.CLIENT)
    request = Request(host=address.authority, target=resource, extra_headers=headers_of(address))
    async with await open_stream(address) as stream:
        await stream.send_all(protocol.send(request))
        answer = None
        with trio.move_on_after(UPGRADE_PATIENCE):
            answer = await _next_event(stream, protocol)
        if isinstance(answer, RejectConnection):
            raise refused(resource, answer.status_code, complaint)
        if not isinstance(answer, AcceptConnection):
            raise not_opened(address)
        text = protocol.send(TextMessage(json.dumps(message)))
        await stream.send_all(text + protocol.send(CloseConnection(CloseReason.NORMAL_CLOSURE)))
        with trio.move_on_after(CLOSING_PATIENCE):
            while not isinstance(await _next_event(stream, protocol), CloseConnection | None):
                pass


async def _next_event(stream: trio.abc.Stream, protocol: WSConnection) -> Event | None:
    """Return what the server says next; None at the end of the connection, or where it speaks something else."""
    while True:
        for event in protocol.events():
            return event
        try:
            data = await stream.receive_some()
            if not data:
                return None
            protocol.receive_data(bytes(data))
        except (trio.BrokenResourceError, RemoteProtocolError):
            return None
