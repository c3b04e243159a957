"""The same server below another path, as behind a proxy that passes on paths as they came.

What comes below the path is answered as if it had come without; all else stays what it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import attrs

from kallichore.transport.front_door import Screen
from kallichore.transport.request_head import RequestHead


def below(path: str, base: str) -> str:
    """Return a path, or a path and query, without a base that it begins with.

    Args:
        path: As sent.
        base: Begins with a slash and ends without; empty for none.
    """
    return path[len(base) :] if base and path.startswith(base + "/") else path


@attrs.frozen
class BelowBase:
    """Requests as they look without the base.

    Args:
        base: As `below` has it.
        screen: Judges them.
    """

    base: str
    screen: Screen

    def strip(self, head: RequestHead) -> RequestHead:
        """Return a request's head without the base."""
        target = below(head.target, self.base)
        return head if target is head.target else attrs.evolve(head, target=target)

    def judge(self, head: RequestHead) -> HTTPStatus | None:
        """Return the status with which a request is refused; None if it may pass."""
        return self.screen.judge(self.strip(head))

    def answer(self, head: RequestHead, status: HTTPStatus) -> bytes:
        """Return the whole answer to a request that is refused."""
        return self.screen.answer(self.strip(head), status)


def app_below(base: str, app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return an ASGI app that is the same below ``base``, which is as `below` has it."""
    if not base:
        return app
    prefix = base.encode("latin-1")

    async def stripped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["raw_path"].startswith(prefix + b"/"):
            raw_path = scope["raw_path"][len(prefix) :]
            scope = {**scope, "raw_path": raw_path, "path": below(scope["path"], base)}
        await app(scope, receive, send)

    return stripped
