"""A WebSocket to a server on whichever transport it has, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError

from kallichore.client.address import Address
from kallichore.client.api_client import ApiError, open_stream
from kallichore.errors import KallichoreError, innermost

LARGEST_MESSAGE = 1 << 31

UPGRADE_PATIENCE = 20.0
"""Seconds that the server is given to open the channels; trio-websocket never hears of one that goes away first."""

CLOSING_PATIENCE = 2.0
"""Seconds that the server is given to answer our close frame."""

Complaint = Callable[[str, str, int, Any], str]
"""Returns what a refusal means in words: of the method, path, status and body."""


class ChannelClosedError(KallichoreError):
    """The channels were closed; ``code`` is the WebSocket close code, 1006 where there was none."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.close_code = code


def closed(error: ConnectionClosed) -> ChannelClosedError:
    """Return what the end of a connection means."""
    reason = error.reason
    code = 1006 if reason is None else int(reason.code)
    text = "" if reason is None or not reason.reason else f": {reason.reason}"
    return ChannelClosedError(f"The channels were closed ({code}){text}", code)


def refused(resource: str, status: int, complaint: Complaint) -> ApiError:
    """Return what the refusal of an upgrade means."""
    return ApiError(complaint("GET", resource, status, ""), status, None)


def not_opened(address: Address) -> ChannelClosedError:
    """Return what it means that a server did not answer an upgrade."""
    return ChannelClosedError(f"The server at {address} did not open the channels", 1006)


def headers_of(address: Address) -> list[tuple[bytes, bytes]]:
    """Return the headers of an upgrade that are not the WebSocket's own."""
    return [(name.encode(), value.encode()) for name, value in address.headers if name != "host"]


@asynccontextmanager
async def open_websocket(
    address: Address,
    resource: str,
    complaint: Complaint,
    *,
    patience: float,
    subprotocols: Iterable[str] | None = None,
) -> AsyncIterator[WebSocketConnection]:
    """Connect to a server's WebSocket. Closed on leaving.

    Args:
        address: Where the server is.
        resource: The path, with its query.
        complaint: Says what a refusal means.
        patience: Seconds that the server has to open it.
        subprotocols: What is offered.

    What the block raises comes out in a group, as from any nursery; so does a `ChannelClosedError` where the server
    never answers the upgrade.

    Raises:
        ApiError: The server refused.
        OSError: Nobody listens there.
    """
    stream = await open_stream(address)
    is_closing = False
    try:
        async with trio.open_nursery() as nursery:
            socket = None
            with trio.move_on_after(patience):
                socket = await wrap_client_stream(
                    nursery,
                    stream,  # type: ignore[arg-type]  # a pipe's stream does as well
                    address.authority,
                    resource,
                    subprotocols=subprotocols,
                    extra_headers=headers_of(address),
                    max_message_size=LARGEST_MESSAGE,
                )
            if socket is None:
                raise not_opened(address)
            yield socket
            is_closing = True
            with trio.move_on_after(CLOSING_PATIENCE):
                await socket.aclose()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # trio-websocket's reader raises a refusal, and we are cancelled where we wait for the handshake.
        refusal, others = group.split(ConnectionRejected)
        if refusal is not None and others is None:
            status = innermost(refusal).status_code  # type: ignore[attr-defined]  # a ConnectionRejected
            raise refused(resource, status, complaint) from group
        if not is_closing:
            raise
        # It also answers a ping that comes while we are closing, and stumbles over it.
        _, others = group.split(LocalProtocolError)
        if others is not None:
            raise others from group
    finally:
        await trio.aclose_forcefully(stream)
