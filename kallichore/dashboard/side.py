"""The page beside the API: its paths are open to everybody who may reach the server, as there is no data in it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import attrs
from hypercorn.typing import ASGIFramework

from kallichore.dashboard.files import load_files
from kallichore.transport.auth import refuse_source
from kallichore.transport.front_door import Screen
from kallichore.transport.request_head import RequestHead

FOLDER = "/dashboard/"


def is_of_page(path: str) -> bool:
    """Whether this is the page or one of its files, of this version or another."""
    return path == "/" or path.startswith(FOLDER)


@attrs.frozen
class DashboardScreen:
    """Lets everybody have the page whose Host and Origin are this machine's; all else is judged by the API's screen."""

    api: Screen

    def judge(self, head: RequestHead) -> HTTPStatus | None:
        """Return the status with which a request is refused; None if it may pass."""
        if not is_of_page(head.path):
            return self.api.judge(head)
        return _judge(head.method, head.path, head.all("host"), head.all("origin"))

    def answer(self, head: RequestHead, status: HTTPStatus) -> bytes:
        """Return the whole answer to a request that is refused."""
        return self.api.answer(head, status)


def _judge(method: str, path: str, hosts: list[str], origins: list[str]) -> HTTPStatus | None:
    if status := refuse_source(hosts, origins):
        return status
    if method != "GET":
        return HTTPStatus.METHOD_NOT_ALLOWED
    return None if path in load_files() else HTTPStatus.NOT_FOUND


def beside(api: ASGIFramework) -> ASGIFramework:
    """Return the app of the API with the page in it."""

    async def both(scope: Any, receive: Any, send: Any) -> None:
        path = scope["raw_path"].decode("latin-1") if scope["type"] == "http" else ""
        if not is_of_page(path):
            await api(scope, receive, send)
            return
        status, content, headers = _find(scope, path)
        encoded = [(name.encode(), text.encode()) for name, text in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": content})

    return both


def _find(scope: Any, path: str) -> tuple[HTTPStatus, bytes, dict[str, str]]:
    """Return what is answered. The screen has judged most requests, but not those that came along with another."""
    given: dict[str, list[str]] = {"host": [], "origin": []}
    for name, text in scope["headers"]:
        given.setdefault(name.decode("latin-1").lower(), []).append(text.decode("latin-1"))
    if refused := _judge(scope["method"], path, given["host"], given["origin"]):
        return refused, b"", {"content-length": "0"}
    file = load_files()[path]
    return HTTPStatus.OK, file.content, dict(file.headers)
