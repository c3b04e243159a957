"""Who may ask what of the agents' endpoint: decided by the head of a request. [pure]"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Literal

import attrs

from kallichore.errors import BadPathError
from kallichore.transport.auth import refuse_source
from kallichore.transport.request_head import RequestHead, decode_segment, refusal

logger = logging.getLogger(__name__)

ROOT = "/mcp/w/"

CARD: Literal["server-card"] = "server-card"
PRESENCE: Literal["presence"] = "presence"

_WORDS = {
    HTTPStatus.UNAUTHORIZED: "The bearer token is missing or wrong; it belongs to a workspace that is registered",
    HTTPStatus.FORBIDDEN: "This token is another workspace's, or the request comes from another host or page",
    HTTPStatus.NOT_FOUND: "There is nothing at this path; the workspace or the session may be gone",
    HTTPStatus.SERVICE_UNAVAILABLE: "The server is ending",
}


@attrs.frozen
class Place:
    """Where a request leads.

    Args:
        workspace_id: To which workspace.
        session_id: In which session the caller runs, if it is inside a kernel.
        part: The endpoint itself, or what stands beside it.
    """

    workspace_id: str
    session_id: str | None = None
    part: Literal["endpoint", "server-card", "presence"] = "endpoint"


def locate(path: str) -> Place | None:
    """Return where a path leads, as it was sent; None if that is nowhere."""
    if not path.startswith(ROOT):
        return None
    workspace_id, *rest = path[len(ROOT) :].split("/")
    session_id = None
    if len(rest) >= 2 and rest[0] == "s":
        try:
            session_id = decode_segment(rest[1])
        except BadPathError:
            return None
        rest = rest[2:]
    match rest:
        case []:
            return Place(workspace_id, session_id)
        case ["server-card"]:
            return Place(workspace_id, session_id, CARD)
        case ["presence"]:
            return Place(workspace_id, session_id, PRESENCE)
    return None


@attrs.frozen
class Access:
    """The rules of one server's endpoint.

    Args:
        tokens: The token of each registered workspace, by its id.
        has_session: Tells whether there is a session with an id.
        is_ending: Tells whether the server ends.
    """

    tokens: Mapping[str, str] = attrs.field(repr=False)
    has_session: Callable[[str], bool]
    is_ending: Callable[[], bool]

    def judge(self, head: RequestHead) -> HTTPStatus | None:
        """Return the status with which a request is refused, or None if it may pass."""
        if refuse_source(head.all("host"), head.all("origin")) is not None:
            return HTTPStatus.FORBIDDEN
        place = locate(head.path)
        if place is not None and place.part == CARD:
            return self._judge_card(head, place)
        owner = self._owner(head.headers.get("authorization"))
        if owner is None:
            return HTTPStatus.UNAUTHORIZED
        if place is None:
            return HTTPStatus.NOT_FOUND
        if place.workspace_id != owner:
            return HTTPStatus.FORBIDDEN
        if place.session_id is not None and not self.has_session(place.session_id):
            return HTTPStatus.NOT_FOUND
        if self.is_ending():
            return HTTPStatus.SERVICE_UNAVAILABLE
        if place.part == PRESENCE and head.method != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED
        return None

    def _judge_card(self, head: RequestHead, place: Place) -> HTTPStatus | None:
        if place.workspace_id not in self.tokens:
            return HTTPStatus.NOT_FOUND
        if head.method != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED
        return HTTPStatus.SERVICE_UNAVAILABLE if self.is_ending() else None

    def _owner(self, authorization: str | None) -> str | None:
        """Return whose token this is. Takes the same time for any token."""
        scheme, _, given = (authorization or "").strip().partition(" ")
        token = given.strip().encode("utf-8", "replace") if scheme.lower() == "bearer" else b""
        found = None
        for workspace_id, known in self.tokens.items():
            if hmac.compare_digest(token, known.encode()):
                found = workspace_id
        return found

    def answer(self, head: RequestHead, status: HTTPStatus) -> bytes:
        """Return the whole answer that refuses a request. Logs it.

        There is no ``WWW-Authenticate`` in a 401: agents would begin with OAuth, which is not spoken here.
        """
        logger.warning("Refused an agent's request: %s", status.phrase)
        headers = {"allow": "GET"} if status is HTTPStatus.METHOD_NOT_ALLOWED else {}
        words = "" if head.method == "HEAD" else _WORDS.get(status, status.phrase)
        return refusal(status, words, code="" if head.method == "HEAD" else status.phrase.lower(), headers=headers)
