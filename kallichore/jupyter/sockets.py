"""The WebSockets of Jupyter's API: a kernel's channels, and events, of which there are none."""

from __future__ import annotations

import json
from http import HTTPStatus

import attrs
import trio

from kallichore.attach.websocket import upgrade_response
from kallichore.jupyter.access import Access, channels_of, locate
from kallichore.jupyter.front_ends import FrontEnds
from kallichore.jupyter.kernels import Kernels
from kallichore.jupyter.models import JupyterError
from kallichore.transport.front_door import close_in_order
from kallichore.transport.request_head import RequestHead, refusal

EVENTS = "/api/events/subscribe"

READ_SIZE = 1 << 12


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
            await _be_silent(stream, head)
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


async def _be_silent(stream: trio.abc.Stream, head: RequestHead) -> None:
    """Hold a WebSocket on which nothing is said: front ends in Node end where there is none."""
    async with stream:
        await stream.send_all(upgrade_response(head))
        while await stream.receive_some(READ_SIZE):
            pass
