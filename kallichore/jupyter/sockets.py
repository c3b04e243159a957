"""The WebSockets of Jupyter's API: a kernel's channels, and events, of which there are none."""

from __future__ import annotations

import json
from contextlib import suppress
from http import HTTPStatus

import attrs
import trio
from wsproto.events import CloseConnection, Ping
from wsproto.utilities import RemoteProtocolError

from kallichore.attach.frames import PONG, close_frame, control_frame
from kallichore.attach.incoming import Incoming, TooBig
from kallichore.attach.websocket import NO_CODE, TOO_BIG, upgrade_response
from kallichore.jupyter.access import Access, channels_of, locate
from kallichore.jupyter.front_ends import FrontEnds
from kallichore.jupyter.kernels import Kernels
from kallichore.jupyter.models import JupyterError
from kallichore.transport.front_door import close_in_order
from kallichore.transport.request_head import RequestHead, refusal

EVENTS = "/api/events/subscribe"

READ_SIZE = 1 << 12

LARGEST_EVENT = 1 << 16
"""Bytes of what a client may say where nobody listens."""


@attrs.frozen(eq=False)
class Sockets:
    """Those of one server."""

    kernels: Kernels
    front_ends: FrontEnds
    access: Access

    def takes(self, path: str) -> bool:
        """Whether a WebSocket with this path is one of these."""
        place = locate(path, self.access.base_url)
        return place is not None and (place.path == EVENTS or channels_of(place.path) is not None)

    async def serve(self, stream: trio.abc.Stream, head: RequestHead, surplus: bytes) -> None:
        """Answer an upgrade: refuse it, or serve the front end; the stream is closed then."""
        place = locate(head.path, self.access.base_url)
        assert place is not None
        if "sec-websocket-key" not in head.headers:
            await self._refuse(stream, JupyterError(HTTPStatus.BAD_REQUEST, 'Can "Upgrade" only to "WebSocket".'))
            return
        if place.path == EVENTS:
            await _be_silent(stream, head, surplus)
            return
        try:
            session = self.kernels.find(channels_of(place.path) or "")
        except JupyterError as unknown:
            await self._refuse(stream, unknown)
            return
        if error := await self.front_ends.serve(session, stream, head, surplus):
            await self._refuse(stream, error)

    async def _refuse(self, stream: trio.abc.Stream, error: JupyterError) -> None:
        await stream.send_all(
            refusal(error.status, json.dumps(error.body()), headers={"content-type": "application/json"})
        )
        await close_in_order(stream)


async def _be_silent(stream: trio.abc.Stream, head: RequestHead, surplus: bytes) -> None:
    """Hold a WebSocket on which nothing is said, but answers to pings: front ends in Node end where there is none."""
    incoming = Incoming(surplus, LARGEST_EVENT)
    async with stream:
        await stream.send_all(upgrade_response(head))
        with suppress(trio.BrokenResourceError, RemoteProtocolError):
            while True:
                for event in incoming.events():
                    if isinstance(event, Ping):
                        await stream.send_all(control_frame(PONG, bytes(event.payload)))
                    elif isinstance(event, CloseConnection | TooBig):
                        code = int(event.code) if isinstance(event, CloseConnection) else TOO_BIG
                        await stream.send_all(close_frame(None if code == NO_CODE else code))
                        return
                data = await stream.receive_some(READ_SIZE)
                if not data:
                    return
                incoming.receive(bytes(data))
