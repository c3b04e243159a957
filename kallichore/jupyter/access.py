"""Who may ask what of Jupyter's API, and which pages: decided by the head of a request. [pure]

Host and Origin are as strict here as everywhere (see `kallichore.transport.auth`); ``allow_origin`` names exceptions.
A token may come in each of the ways in which Jupyter's clients send it. One of them can send none at all, neither in a
header nor in the query (jupyter_client's GatewayKernelClient, for its WebSocket), so it may be in the path as well:
``http://127.0.0.1:8888/t/TOKEN`` is an address of the whole API.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import attrs

from kallichore.transport.auth import is_authorized, refuse_source
from kallichore.transport.request_head import RequestHead, refusal

logger = logging.getLogger(__name__)

PREFLIGHT = {
    "access-control-allow-methods": "GET, PUT, POST, PATCH, DELETE, OPTIONS",
    "access-control-allow-headers": "accept, content-type, authorization, x-xsrftoken",
    "access-control-max-age": "600",
}
"""What a browser is told that asks whether a page of another origin may send a request."""

_ROOTS = ("/api", "/kernelspecs", "/hub/api", "/tree", "/login")
"""Below these paths Jupyter's API is; the last three are asked by VS Code to find out what kind of server this is."""

_TOKEN_IN_PATH = "/t/"  # noqa: S105  # not a password


@attrs.frozen
class Place:
    """Where a request leads.

    Args:
        path: The path below the API's own.
        token: What stood in the path as a token.
    """

    path: str
    token: str | None = attrs.field(default=None, repr=False)


def locate(path: str, base_url: str) -> Place | None:
    """Return where a path leads; None if that is not Jupyter's API.

    Args:
        path: As sent.
        base_url: The path below which the API is; ``/`` for none.
    """
    base = base_url.rstrip("/")
    if base and not (path == base or path.startswith(base + "/")):
        return None
    path, token = path[len(base) :], None
    if path.startswith(_TOKEN_IN_PATH):
        token, slash, rest = path[len(_TOKEN_IN_PATH) :].partition("/")
        path, token = slash + rest, unquote(token)
    if any(path == root or path.startswith(root + "/") for root in _ROOTS):
        return Place(path, token)
    return None


def channels_of(path: str) -> str | None:
    """Return the kernel id of ``/api/kernels/{id}/channels``; None if this is another path."""
    parts = path.split("/")
    is_channels = len(parts) == 5 and parts[:3] == ["", "api", "kernels"] and parts[4] == "channels"
    return parts[3] if is_channels else None


@attrs.frozen(kw_only=True)
class Access:
    """The rules of one server.

    Args:
        token: The token; None lets everybody in.
        over_tcp: Whether connections come over TCP, where Host and Origin are looked at.
        base_url: The path below which the API is.
        allow_origin: Origins of web pages that may use it, besides this machine's own.
    """

    token: str | None = attrs.field(repr=False)
    over_tcp: bool
    base_url: str = "/"
    allow_origin: tuple[str, ...] = ()

    def judge(self, head: RequestHead) -> HTTPStatus | None:
        """Return the status with which a request is refused, or None if it may be looked at further."""
        if status := self.refuse_source(head.all("host"), head.all("origin")):
            return status
        place = locate(head.path, self.base_url)
        if place is None:
            return HTTPStatus.NOT_FOUND
        query = head.target.partition("#")[0].partition("?")[2]
        if self.is_open(head.method, place.path) or self.knows(head.headers.get("authorization"), query, place.token):
            return None
        return HTTPStatus.UNAUTHORIZED

    def answer(self, head: RequestHead, status: HTTPStatus) -> bytes:
        """Return the whole answer to a request that is refused. Logs it."""
        reason = {
            HTTPStatus.UNAUTHORIZED: "The token is missing or wrong",
            HTTPStatus.FORBIDDEN: "This host or origin is not allowed; --allow-origin names those that are",
            HTTPStatus.BAD_REQUEST: "The Host or Origin is none",
        }.get(status, status.phrase)
        logger.warning("Refused a request of Jupyter's API: %s", reason)
        body = json.dumps({"message": reason, "reason": status.phrase})
        headers = self.cross_origin(head.headers.get("origin")) if status is HTTPStatus.UNAUTHORIZED else {}
        return refusal(status, body, headers={"content-type": "application/json", **headers})

    def refuse_source(self, hosts: list[str], origins: list[str]) -> HTTPStatus | None:
        """Tell whether a request comes from another machine's page, and not from one that is allowed."""
        if not self.over_tcp:
            return None
        return refuse_source(
            hosts, origins if len(origins) > 1 else [each for each in origins if not self._allows(each)]
        )

    def _allows(self, origin: str) -> bool:
        return "*" in self.allow_origin or origin in self.allow_origin

    def is_open(self, method: str, path: str) -> bool:
        """Whether this is answered without a token: which version this is, and what browsers ask beforehand."""
        return method == "OPTIONS" or path == "/api"

    def knows(self, authorization: str | None, query: str, in_path: str | None) -> bool:
        """Tell whether one of the tokens of a request is the right one."""
        scheme, _, given = (authorization or "").strip().partition(" ")
        in_query = dict(parse_qsl(query)).get("token")
        candidates = [given.strip() if scheme.lower() in ("token", "bearer") else None, in_query, in_path]
        return self.token is None or any(is_authorized(f"Bearer {each}", self.token) for each in candidates if each)

    def cross_origin(self, origin: str | None) -> Mapping[str, str]:
        """Return the headers with which a browser gives an answer to a page of this origin, which may pass."""
        if not origin:
            return {}
        return {"access-control-allow-origin": origin, "vary": "Origin"}
