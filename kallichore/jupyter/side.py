"""Jupyter's API beside ours: which request is whose."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import Any

import attrs
import trio
from hypercorn.typing import ASGIFramework

from kallichore.config import ServerConfig
from kallichore.jupyter.access import Access, locate
from kallichore.jupyter.front_ends import FrontEnds
from kallichore.jupyter.kernels import Kernels
from kallichore.jupyter.sockets import Sockets
from kallichore.server import Server
from kallichore.transport.front_door import Attach, Screen
from kallichore.transport.request_head import RequestHead


@attrs.frozen(eq=False)
class _Screens:
    """Who refuses a request by its head: Jupyter's API what is below its paths, and ours the rest."""

    ours: Screen
    access: Access

    def _of(self, head: RequestHead) -> Screen:
        return self.ours if locate(head.path, self.access.base_url) is None else self.access

    def judge(self, head: RequestHead) -> HTTPStatus | None:
        """Return the status with which a request is refused; None if it may pass."""
        return self._of(head).judge(head)

    def answer(self, head: RequestHead, status: HTTPStatus) -> bytes:
        """Return the whole answer to a request that is refused."""
        return self._of(head).answer(head, status)


@attrs.frozen(eq=False)
class JupyterSide:
    """Jupyter's API of one server. Made by `open_jupyter`.

    Attributes:
        app: Returns its ASGI app.
        access: Who is let in.
        sockets: Its WebSockets.
    """

    app: Callable[[], ASGIFramework]
    access: Access
    sockets: Sockets

    def takes(self, path: str) -> bool:
        """Whether a WebSocket with this path is Jupyter's."""
        return self.sockets.takes(path)

    def beside(self, ours: ASGIFramework) -> ASGIFramework:
        """Return the app of both."""

        async def both(scope: Any, receive: Any, send: Any) -> None:
            # As it was sent, as everybody else locates it: decoded, a token may look like a part of the path.
            path = scope["raw_path"].decode("latin-1") if scope["type"] == "http" else ""
            is_jupyter = locate(path, self.access.base_url) is not None
            await (self.app() if is_jupyter else ours)(scope, receive, send)

        return both

    def attach_beside(self, ours: Attach | None) -> Attach:
        """Return what serves the WebSockets of both."""

        async def attach(stream: trio.abc.Stream, head: RequestHead, surplus: bytes) -> None:
            if self.takes(head.path) or ours is None:
                await self.sockets.serve(stream, head, surplus)
            else:
                await ours(stream, head, surplus)

        return attach

    def screen_beside(self, ours: Screen) -> Screen:
        """Return what refuses requests to both."""
        return _Screens(ours, self.access)


def open_jupyter(server: Server, config: ServerConfig) -> JupyterSide:
    """Return Jupyter's API onto a server's sessions."""
    access = Access(
        token=config.token,
        over_tcp=config.transport == "tcp",
        base_url=config.base_url,
        allow_origin=config.allow_origin,
    )
    front_ends = FrontEnds(config)
    kernels = Kernels(server, config)

    @cache
    def make_app() -> ASGIFramework:
        # For the first request: most servers never get one, and its routes are a twentieth of the time to start one.
        from kallichore.jupyter.app import create_jupyter_app

        return create_jupyter_app(kernels, access)

    return JupyterSide(make_app, access, Sockets(kernels, front_ends, access))
