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
        if status := refuse_source(head.all("host"), head.all("origin")):
            return status
        if head.method != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED
        return None if head.path in load_files() else HTTPStatus.NOT_FOUND

    def answer(self, head: RequestHead, status: HTTPStatus) -> bytes:
        """Return the whole answer to a request that is refused."""
        return self.api.answer(head, status)


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
    file = load_files().get(path)
    refused = refuse_source(given["host"], given["origin"])
    if refused is None and scope["method"] != "GET":
        refused = HTTPStatus.METHOD_NOT_ALLOWED
    if refused is None and file is not None:
        return HTTPStatus.OK, file.content, dict(file.headers)
    return refused or HTTPStatus.NOT_FOUND, b"", {"content-length": "0"}
