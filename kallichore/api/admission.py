"""Who may ask what, decided by the head of a request alone: what is refused costs a look at its head, and no more.

The app would refuse the same, but not before a request has gone through hypercorn and Quart, which takes some
milliseconds: enough, with a thousand strangers at once, to keep everybody else waiting for seconds.
"""

from __future__ import annotations

import logging
import uuid
from http import HTTPStatus

import attrs

from kallichore.api.operations import find_operation
from kallichore.api.pages import PAGES
from kallichore.api.refusals import explain
from kallichore.transport.auth import authorization_of_page, is_authorized, refuse_source
from kallichore.transport.request_head import RequestHead, refusal

logger = logging.getLogger(__name__)

SPAN_ID = "x-span-id"

LARGEST_STRANGERS_BODY = 1 << 10
"""Bytes of a body at most without the token: a heartbeat's, which has a number in it. Who has the token may send
widgets and notebooks of nearly any size."""


@attrs.frozen(kw_only=True)
class Admission:
    """The rules of one server.

    Args:
        token: The bearer token; None lets everybody in.
        over_tcp: Whether connections come over TCP, where Host and Origin are looked at.
        allow_origin: Origins of web pages that may send requests, besides this machine's own: where a proxy shows the
            dashboard. ``*`` is not for this API, and names none.
    """

    token: str | None = attrs.field(repr=False)
    over_tcp: bool
    allow_origin: tuple[str, ...] = ()

    def knows(self, authorization: str | None) -> bool:
        """Tell whether a request with this ``Authorization`` has the token."""
        return is_authorized(authorization, self.token)

    def refuse_source(self, hosts: list[str], origins: list[str]) -> HTTPStatus | None:
        """Tell whether a request comes from another machine's page; see `kallichore.transport.auth.refuse_source`."""
        if not self.over_tcp:
            return None
        return refuse_source(
            hosts, origins if len(origins) > 1 else [each for each in origins if each not in self.allow_origin]
        )

    def judge(self, head: RequestHead) -> HTTPStatus | None:
        """Return the status with which a request is refused, or None if it may be looked at further."""
        if status := self.refuse_source(head.all("host"), head.all("origin")):
            return status
        if self.knows(head.headers.get("authorization") or authorization_of_page(head.subprotocols)):
            return None
        if head.path in PAGES:
            return None if head.method == "GET" else HTTPStatus.METHOD_NOT_ALLOWED
        operation = find_operation(head.method, head.path)
        if isinstance(operation, HTTPStatus):
            return operation
        if operation.needs_token:
            return HTTPStatus.UNAUTHORIZED
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if _length(head) > LARGEST_STRANGERS_BODY else None

    def answer(self, head: RequestHead, status: HTTPStatus) -> bytes:
        """Return the whole answer that refuses a request and ends its connection. Logs it."""
        headers = {}
        if status not in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            operation = find_operation(head.method, head.path)
            log_refusal(status, "an unknown path" if isinstance(operation, HTTPStatus) else operation.name)
            headers = {SPAN_ID: str(uuid.uuid4())}
        if head.method == "HEAD":
            # Its answer has no body (RFC 9110, 9.3.2).
            return refusal(status, headers=headers)
        error = explain(status)
        return refusal(status, error.message, code=error.code, headers=headers)


def log_refusal(status: HTTPStatus, name: str) -> None:
    """Log that a request was refused, with nothing of what it said."""
    match status:
        case HTTPStatus.UNAUTHORIZED:
            logger.warning("Refused %s: the bearer token is missing or wrong", name)
        case HTTPStatus.FORBIDDEN:
            logger.warning("Refused a request of another host or origin (%s)", name)
        case HTTPStatus.BAD_REQUEST:
            logger.warning("Refused a request whose Host or Origin is none (%s)", name)
        case _:
            logger.warning("Refused %s: %s", name, status.phrase)


def _length(head: RequestHead) -> int:
    """Return how long a body is said to be; 0 where that is not said, or no number, which others refuse."""
    text = head.headers.get("content-length", "")
    # Python refuses to read numbers of thousands of digits; this one has few enough.
    return int(text[:20]) if text.isascii() and text.isdigit() else 0
